"""What a folder of images says of itself: dataset.json with scale, modality, origin and licence."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from device.errors import ConfigError
from device.plates.files import one_of, unreadable, write_whole
from device.records import Assay, Modality, Scale, ScaleSource

DATASET_FILE = "dataset.json"
_DATASET_KEYS = ("modality", "assay", "origin", "licence", "simulated", "label_source")
LabelSource = Literal["person", "station"]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What dataset.json says of a folder of images."""

    scale: Scale
    modality: Modality | None
    """Null for images that no station sees, such as fluorescence: they test the watershed only."""
    origin: str
    """Where the images come from, in words."""
    licence: str
    assay: Assay | None = None
    """Null where the folder does not say it."""
    simulated: bool = False
    """True for rendered images."""
    label_source: LabelSource | None = None
    """Who labeled the cells of a station's frames: `station` means that nobody corrected what it said."""


def read_dataset_info(folder: Path) -> DatasetInfo:
    """Return what `folder`/dataset.json says.

    Raises
    ------
    ConfigError
        If the file is missing, is no JSON object, or lacks or misstates a key. Lists all faults.
    """
    path = folder / DATASET_FILE
    try:
        content: Any = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        missing = "expected it to state um_per_px, modality, origin, licence"
        raise unreadable(path, error, missing, "expected a JSON object") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    said: dict[str, Any] = {"assay": None, "simulated": False, "label_source": None} | content
    checks = {
        "um_per_px": (_is_positive(said.get("um_per_px")), "a number > 0, micrometers a pixel"),
        "um_per_px_source": (said.get("um_per_px_source") in get_args(ScaleSource), one_of(ScaleSource)),
        "modality": (said.get("modality", "") in (None, *get_args(Modality)), one_of(Modality) + " or null"),
        "origin": (isinstance(said.get("origin"), str), "words"),
        "licence": (isinstance(said.get("licence"), str), "words"),
        "assay": (said["assay"] in (None, *get_args(Assay)), one_of(Assay) + " or null"),
        "simulated": (isinstance(said["simulated"], bool), "true or false"),
        "label_source": (
            said["label_source"] in (None, *get_args(LabelSource)),
            one_of(LabelSource) + " or null",
        ),
    }
    wrong = [(key, expected) for key, (fits, expected) in checks.items() if not fits]
    if wrong:
        raise ConfigError([f"{path}: {key} is {json.dumps(said.get(key))}; expected {x}" for key, x in wrong])
    scale = Scale(float(said["um_per_px"]), said["um_per_px_source"])
    return DatasetInfo(scale, **{key: said[key] for key in _DATASET_KEYS})


def find_dataset_info(folder: Path) -> DatasetInfo | None:
    """Return what dataset.json says of the images in `folder`: its own, else its parent's; None without one.

    Raises as `read_dataset_info`.
    """
    for place in (folder, folder.resolve().parent):
        if (place / DATASET_FILE).is_file():
            return read_dataset_info(place)
    return None


def write_dataset_info(folder: Path, info: DatasetInfo) -> None:
    """Write `info` as `folder`/dataset.json so that `read_dataset_info` gives it back."""
    content = {"um_per_px": info.scale.um_per_px, "um_per_px_source": info.scale.source}
    content |= {key: getattr(info, key) for key in _DATASET_KEYS}
    write_whole(folder / DATASET_FILE, [json.dumps(content, indent=2, allow_nan=False), "\n"])


def scale_of(info: DatasetInfo | None, um_per_px: float | None) -> Scale | None:
    """Return the scale of a folder's images: `um_per_px` overrides the value only, never how it is known.

    Its source is that of `info`, else `measured`. None where neither says a value; ConfigError for a value
    that is not a finite number above 0.
    """
    if um_per_px is None:
        return None if info is None else info.scale
    if not _is_positive(um_per_px):
        raise ConfigError(f"um_per_px is {um_per_px}; expected a number > 0, micrometers a pixel")
    return Scale(um_per_px, "measured") if info is None else replace(info.scale, um_per_px=um_per_px)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
