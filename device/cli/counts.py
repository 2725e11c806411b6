"""What `nanotox count` writes: JSON lines, a text table, a CSV file, and pictures."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.counting import labels_in_frame
from device.analysis.overlay import draw_overlay
from device.cli.fields import FieldFile, FieldResult
from device.errors import ConfigError, ImageError
from device.images import list_images, write_png
from device.messages import payload
from device.records import Quality, Reading

READING_KEYS = (
    "outcome",
    "reasons",
    "n_live",
    "n_dead",
    "n_other",
    "affected",
    "p_toxic",
    "quality",
    "cells",
    "height_px",
    "width_px",
    "assay",
    "modality",
    "method",
    "cell_model",
    "field_model",
    "simulated",
)
"""Fields of `records.Reading` in a JSON line, null where a file could not be read."""
_NUMBERS = ("n_live", "n_dead", "n_other", "affected", "p_toxic")
_QUALITY = tuple(item.name for item in fields(Quality))
CSV_COLUMNS = (
    "file",
    "outcome",
    "reasons",
    *_NUMBERS,
    *_QUALITY,
    "assay",
    "modality",
    "method",
    "model",
    "error",
)


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
    known: dict[str, Any] = {} if result.reading is None else payload(result.reading)
    values = {key: known.get(key) for key in READING_KEYS}
    return {"file": str(result.file.path), **values, "timing_ms": result.timing_ms, "error": result.error}


def csv_row(result: FieldResult) -> list[str]:
    """Return one row under `CSV_COLUMNS`; several reasons are separated by spaces."""
    line = json_line(result)
    model = line["cell_model"] or {}
    values = {**line, **(line["quality"] or {}), "model": model.get("name")}
    return [_csv_text(values.get(name)) for name in CSV_COLUMNS]


def _csv_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write rows under `CSV_COLUMNS`; the file is there whole or not at all.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    table.writerows(rows)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text.getvalue(), encoding="utf-8", newline="")
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); expected a folder with rights"
        ) from error


class TextTable:
    """An aligned table on a terminal or in a file, a line a file as soon as it is known.

    Parameters
    ----------
    names : sequence of str
        All file names to come, for the width of the first column.
    stream : TextIO
        Where to print.
    """

    def __init__(self, names: Sequence[str], stream: TextIO) -> None:
        self._stream = stream
        self._width = max((len(name) for name in names), default=4)
        self._line("file", ["live", "dead", "other", "affected"], "outcome")

    def add(self, result: FieldResult) -> None:
        """Print one file: its counts, or why there are none."""
        reading, name = result.reading, str(result.file.path)
        if reading is None:
            self._line(name, ["-"] * 4, f"unreadable: {result.error}")
            return
        affected = "-" if reading.affected is None else f"{100 * reading.affected:.1f} %"
        numbers = [str(n) for n in (reading.n_live, reading.n_dead, reading.n_other)]
        reasons = ", ".join(dict.fromkeys((*reading.reasons, *reading.quality.flags)))
        self._line(name, [*numbers, affected], f"{reading.outcome}{': ' if reasons else ''}{reasons}")

    def _line(self, name: str, numbers: list[str], rest: str) -> None:
        live, dead, other, affected = numbers
        row = f"{name:<{self._width}}  {live:>5}  {dead:>5}  {other:>5}  {affected:>8}  {rest}"
        print(row, file=self._stream, flush=True)


class Pictures:
    """Writes overlays, masks and stages of each field below the folders asked for.

    Parameters
    ----------
    files : sequence of Path
        All images to come; their pictures keep names and, below their common folder, subfolders.
    overlay, masks, stages : Path or None
        Folders; made if missing.

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
        self._n_stages: dict[Path, int] = {}
        sources = {file.resolve().parent for file in files}
        for option, folder in (("overlay", overlay), ("masks", masks), ("stages", stages)):
            if folder is not None and folder.resolve() in sources:
                raise ConfigError(f"--{option} is {folder}, where the images are; expected another folder")

    def keep(self, path: Path, image: NDArray[np.uint8], reading: Reading) -> None:
        """Write the overlay and the mask of one field."""
        if self._overlay is not None:
            _write(self._overlay / f"{self._names[path]}.png", draw_overlay(image, reading))
        if self._masks is not None:
            _write(self._masks / f"{self._names[path]}.png", labels_in_frame(reading))

    def see(self, path: Path, stage: str, picture: NDArray[np.generic]) -> None:
        """Write the picture of one stage, numbered in their order."""
        if self._stages is not None:
            number = self._n_stages[path] = self._n_stages.get(path, 0) + 1
            _write(self._stages / self._names[path] / f"{number:02d}-{stage}.png", visible(picture))


def visible(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return a stage's picture as something to look at.

    Parameters
    ----------
    picture : (M, N) ndarray
        uint8 gray, a bool mask, integer labels (0 or less: background) or real numbers.

    Returns
    -------
    ndarray of uint8
        (M, N) gray; of labels (M, N, 3) BGR, a color a label; of real numbers lowest black, highest white.
    """
    if picture.dtype == np.uint8:
        return picture.astype(np.uint8)
    if picture.dtype == np.bool_:
        return np.where(picture, 255, 0).astype(np.uint8)
    if np.issubdtype(picture.dtype, np.integer):
        labels = np.maximum(picture.astype(np.int64), 0)
        # hues a golden angle apart: neighbors in number differ in color
        hue = (np.arange(labels.max() + 1) * 0.618 % 1 * 180).astype(np.uint8)
        bright = np.where(np.arange(hue.size) > 0, 255, 0).astype(np.uint8)
        palette = cv2.cvtColor(
            np.stack([hue, np.full_like(hue, 160), bright], axis=-1)[None], cv2.COLOR_HSV2BGR
        )
        return np.asarray(palette[0][labels], np.uint8)
    real = picture.astype(np.float32)
    low, high = float(real.min()), float(real.max())
    return np.asarray(np.rint((real - low) * (255 / max(high - low, 1e-12))), np.uint8)


def _picture_names(files: Sequence[Path]) -> dict[Path, Path]:
    """Return a name without suffix for each file, none twice."""
    parents = [file.resolve().parent for file in files]
    common = Path(os.path.commonpath(parents)) if parents else Path()
    plain = {
        file: parent.relative_to(common) / file.stem for file, parent in zip(files, parents, strict=True)
    }
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
