"""dataset.json: scale, modality and origin of a folder of images."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from device.errors import ConfigError
from device.plates.table import one_of
from device.records import Assay, Modality, Scale, ScaleSource

DATASET_FILE = "dataset.json"


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What dataset.json says of a folder of images."""

    scale: Scale
    modality: Modality
    origin: str
    """Where the images come from, in words."""
    licence: str
    assay: Assay | None = None
    """Null where the folder does not say it."""
    simulated: bool = False
    """True for rendered images; carried into every reading and verdict."""


def read_dataset_info(folder: Path) -> DatasetInfo:
    """Return what `folder`/dataset.json says.

    Raises
    ------
    ConfigError
        If the file is missing, is no JSON object, or lacks or misstates a key. Lists all faults.
    """
    path = folder / DATASET_FILE
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing; expected it to state um_per_px, modality, origin, licence"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; expected a JSON object") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    faults: list[str] = []

    def take(key: str, expected: str, fits: Callable[[Any], bool], default: object = None) -> Any:  # noqa: ANN401 - JSON
        value = content.get(key, default)
        if not fits(value):
            faults.append(f"{path}: {key} is {json.dumps(value)}; expected {expected}")
        return value

    um_per_px = take("um_per_px", "a number > 0, micrometers a pixel", _is_positive)
    source = take("um_per_px_source", one_of(ScaleSource), lambda v: v in get_args(ScaleSource))
    info = {
        "modality": take("modality", one_of(Modality), lambda v: v in get_args(Modality)),
        "origin": take("origin", "words", lambda v: isinstance(v, str)),
        "licence": take("licence", "words", lambda v: isinstance(v, str)),
        "assay": take("assay", one_of(Assay) + " or null", lambda v: v is None or v in get_args(Assay)),
        "simulated": take("simulated", "true or false", lambda v: isinstance(v, bool), default=False),
    }
    if faults:
        raise ConfigError(faults)
    return DatasetInfo(Scale(float(um_per_px), source), **info)


def write_dataset_info(folder: Path, info: DatasetInfo) -> None:
    """Write `info` as `folder`/dataset.json so that `read_dataset_info` gives it back."""
    content = {
        "um_per_px": info.scale.um_per_px,
        "um_per_px_source": info.scale.source,
        "modality": info.modality,
        "assay": info.assay,
        "origin": info.origin,
        "licence": info.licence,
        "simulated": info.simulated,
    }
    partial = folder / (DATASET_FILE + ".partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
    partial.replace(folder / DATASET_FILE)


def scale_of(info: DatasetInfo | None, um_per_px: float | None) -> Scale | None:
    """Return the scale of a folder's images: `um_per_px` overrides the value only, never how it is known.

    Returns
    -------
    Scale or None
        Source of `info`, else `measured`; None where neither says a value.

    Raises
    ------
    ConfigError
        If `um_per_px` is not a finite number above 0.
    """
    if um_per_px is None:
        return None if info is None else info.scale
    if not _is_positive(um_per_px):
        raise ConfigError(f"um_per_px is {um_per_px}; expected a number > 0, micrometers a pixel")
    return Scale(um_per_px, "measured") if info is None else replace(info.scale, um_per_px=um_per_px)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
