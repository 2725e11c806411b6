"""What `nanotox count` writes: JSON lines, a text table, a CSV file, and pictures."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.analysis.counting import labels_in_frame
from device.analysis.overlay import draw_overlay, stage_picture
from device.errors import ConfigError, ImageError
from device.fields import FieldFile, FieldResult
from device.images import list_images, read_gray, write_png
from device.messages import payload
from device.records import Quality, Reading

_OTHERS = {"source", "sequence", "taken_at", "well", "field", "tally", "labels", "glimpse", "zoom"}
READING_KEYS = tuple(item.name for item in fields(Reading) if item.name not in _OTHERS)
"""Fields of `records.Reading` in a JSON line, null where a file could not be read."""
_RESULT = ("file", "outcome", "reasons", "n_live", "n_dead", "n_other", "affected", "p_toxic")
_QUALITY = tuple(item.name for item in fields(Quality))
CSV_COLUMNS = (*_RESULT, *_QUALITY, "assay", "modality", "method", "model", "error")


def find_files(paths: Sequence[Path]) -> list[FieldFile]:
    """Return the images that paths name, folders opened; what is missing stays, to get its own line."""
    found: list[Path] = []
    for path in paths:
        try:
            found += list_images(path) or [path]
        except ImageError:
            found.append(path)
    return [FieldFile(path) for path in found]


def json_line(result: FieldResult) -> dict[str, Any]:
    """Return what `--json` prints of one file."""
    known = {} if result.reading is None else payload(result.reading)
    values = {key: known.get(key) for key in READING_KEYS}
    return {"file": str(result.file.path), **values, "timing_ms": result.timing_ms, "error": result.error}


def text_line(result: FieldResult | None, width: int) -> str:
    """Return a line of the text table, whose first column has `width` characters; its titles for None."""
    reading = None if result is None else result.reading
    if result is None:
        words = ["file", "live", "dead", "other", "affected", "outcome"]
    elif reading is None:
        words = [str(result.file.path), *"----", f"unreadable: {result.error}"]
    else:
        numbers = [str(n) for n in (reading.n_live, reading.n_dead, reading.n_other)]
        affected = "-" if reading.affected is None else f"{100 * reading.affected:.1f} %"
        reasons = ", ".join(dict.fromkeys((*reading.reasons, *reading.quality.flags)))
        outcome = f"{reading.outcome}{': ' if reasons else ''}{reasons}"
        words = [str(result.file.path), *numbers, affected, outcome]
    return "{:<{width}}  {:>5}  {:>5}  {:>5}  {:>8}  {}".format(*words, width=width)


def csv_row(line: Mapping[str, Any]) -> list[str]:
    """Return a file's `json_line` as one row under `CSV_COLUMNS`; several reasons are separated by spaces."""
    values = {**line, **(line["quality"] or {}), "model": (line["cell_model"] or {}).get("name")}
    return [_csv_text(values.get(name)) for name in CSV_COLUMNS]


def _csv_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


class Pictures:
    """Writes overlays, masks and stages of each field below the folders asked for, made if missing.

    The pictures of `files` keep their names and, below their common folder, subfolders.

    Raises
    ------
    ConfigError
        If a folder holds images that are read, because their pictures would replace them.
    """

    def __init__(
        self, files: Sequence[Path], *, overlay: Path | None, masks: Path | None, stages: Path | None
    ) -> None:
        self._overlay, self._masks, self._stages = overlay, masks, stages
        self._names = _picture_names(files)
        self._n_stages: Counter[Path] = Counter()
        sources = {file.resolve().parent for file in files}
        for option, folder in (("overlay", overlay), ("masks", masks), ("stages", stages)):
            if folder is not None and folder.resolve() in sources:
                raise ConfigError(f"--{option} is {folder}, where the images are; expected another folder")

    def keep(self, path: Path, image: NDArray[np.uint8], reading: Reading) -> None:
        """Write the overlay and the mask of one field."""
        if self._overlay is not None:
            whole = image if image.shape == (reading.height_px, reading.width_px) else read_gray(path)
            _write(self._overlay / f"{self._names[path]}.png", draw_overlay(whole, reading))
        if self._masks is not None:
            _write(self._masks / f"{self._names[path]}.png", labels_in_frame(reading))

    def see(self, path: Path, stage: str, picture: NDArray[np.generic]) -> None:
        """Write the picture of one stage, numbered in their order."""
        if self._stages is not None:
            self._n_stages[path] += 1
            name = f"{self._n_stages[path]:02d}-{stage}.png"
            _write(self._stages / self._names[path] / name, stage_picture(picture))


def _picture_names(files: Sequence[Path]) -> dict[Path, Path]:
    """Return a name without suffix for each file, none twice."""
    whole = {file: file.parent.resolve() / file.name for file in files}
    common = os.path.commonpath([path.parent for path in whole.values()]) if whole else ""
    plain = {file: path.relative_to(common).with_suffix("") for file, path in whole.items()}
    times = Counter(plain.values())
    return {file: name if times[name] == 1 else name.with_name(file.name) for file, name in plain.items()}


def _write(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path.parent} cannot be made ({error.strerror}); expected a writable place"
        ) from error
    write_png(path, image)
