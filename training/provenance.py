"""Run folders: a fitted network with everything that the export and a reader of its card need.

`run.json` (what and from what), `network.keras`, `samples.npz` (representative and validation crops), and
`provenance.json`: the command with its options, the code, the data, the machine.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from device.analysis.quality import FocusReference
from device.errors import ConfigError
from device.model_card import DataSource, Recipe, Scalar
from device.model_card.opinions import Metric
from device.plates import DATASET_FILE, file_sha256
from device.records import Assay, Modality, ScaleSource

if TYPE_CHECKING:
    import keras

RUN_FILE = "run.json"
NETWORK_FILE = "network.keras"
SAMPLES_FILE = "samples.npz"
PROVENANCE_FILE = "provenance.json"


SIMULATED, RENDERED = "simulated", "rendered by device.analysis.phantom"
"""What `DataSource.origin` begins with where no image is real: of a dataset, and of a recipe."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder holds, as the model card will say it."""

    kind: Literal["cell", "field"]
    learner: str
    classes: tuple[str, ...]
    scope: str
    assay: Assay
    modality: Modality
    um_per_px: float
    um_per_px_source: ScaleSource
    temperature: float
    """Fitted on the float logits of the validation split; the export fits it again on the int8 ones."""
    seed: int
    reference_quality: FocusReference | None
    data: tuple[DataSource, ...]
    recipe: Recipe | None
    metrics: Mapping[str, Metric]
    gan_gate: Mapping[str, Scalar] | None
    limits: tuple[str, ...]
    attribution: tuple[str, ...]
    history: tuple[Mapping[str, float | None], ...]
    """An epoch each: loss and nll; null where there was no validation."""
    made_with: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class RunSamples:
    """Crops that travel with a run, so that the export needs no dataset."""

    representative: NDArray[np.uint8]
    """(R, 28, 28) real training crops that the int8 ranges are measured on, classes in balance."""
    val_x: NDArray[np.uint8]
    """(V, 28, 28) validation crops, for parity, temperature and golden inputs."""
    val_y: NDArray[np.intp]
    val_whole: NDArray[np.intp] | None = None
    """(V, 2) number and class of the field that each is a tile of; None where each is a whole."""


def write_run(folder: Path, run: Run, samples: RunSamples, network: "keras.Model") -> None:
    """Write a run folder; an earlier run there stays whole until all of the new one is on disk."""
    staged = folder / ".unfinished"
    staged.mkdir(parents=True, exist_ok=True)
    try:
        network.save(staged / NETWORK_FILE)
        np.savez_compressed(
            staged / SAMPLES_FILE,
            representative=samples.representative,
            val_x=samples.val_x,
            val_y=samples.val_y,
            val_whole=np.zeros((0, 2), np.intp) if samples.val_whole is None else samples.val_whole,
        )
        document = json.dumps(asdict(run), indent=2, ensure_ascii=False, allow_nan=False)
        (staged / RUN_FILE).write_text(document + "\n", encoding="utf-8")
        (folder / RUN_FILE).unlink(missing_ok=True)  # what is half of each run is none
        for name in (NETWORK_FILE, SAMPLES_FILE, RUN_FILE):
            (staged / name).replace(folder / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def read_run(folder: Path) -> tuple[Run, RunSamples]:
    """Return what `write_run` wrote, without the network (`folder / NETWORK_FILE`).

    Raises
    ------
    ConfigError
        If a file is missing or damaged.
    """
    missing = [name for name in (RUN_FILE, NETWORK_FILE, SAMPLES_FILE) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{folder} has no {', '.join(missing)}; expected the --out folder of a finished "
            "`nanotox-train fit`, `cotrain` or `paper` (if it was interrupted, run the same command again)"
        )
    try:
        document = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        with np.load(folder / SAMPLES_FILE, allow_pickle=False) as arrays:
            x, y, whole = (arrays[name] for name in ("val_x", "val_y", "val_whole"))
            samples = RunSamples(arrays["representative"], x, y, whole if len(whole) else None)
        focus, recipe = document["reference_quality"], document["recipe"]
        document |= {
            "reference_quality": FocusReference(**focus) if focus else None,
            "recipe": Recipe(**recipe) if recipe else None,
            "data": tuple(DataSource(**item) for item in document["data"]),
            "metrics": {name: Metric(**item) for name, item in document["metrics"].items()},
        }
        for name in ("classes", "limits", "attribution", "history"):
            document[name] = tuple(document[name])
        return Run(**document), samples
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(
            f"{folder} is no run of this version ({error}); fit it again with `nanotox-train fit`"
        ) from error


def tool_versions() -> dict[str, str]:
    """Return the versions of the libraries that train and convert, by distribution."""
    found = {}
    for name in ("nanotox", "tensorflow", "keras", "numpy", "ai-edge-litert", "opencv-python-headless"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_provenance(folder: Path, options: Mapping[str, object], data: Path, images: Iterable[str]) -> None:
    """Write what the files of `folder` were made by, last of all: so it also says that they are complete.

    Parameters
    ----------
    folder : Path
        Exists.
    options : mapping of str to object
        Of the command; functions among them are left out.
    data : Path
        Dataset folder.
    images : iterable of str
        Its images, relative to it.
    """
    tables = [data / name for name in ("manifest.csv", "cells.csv", DATASET_FILE)]
    document = {
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in options.items() if not callable(v)},
        "code": {"version": tool_versions().get("nanotox"), "sha256": code_sha256()},
        "data": {
            **{path.name: file_sha256(path) for path in tables if path.is_file()},
            "images": _hash_files(data / name for name in images),
        },
        "environment": {
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            **tool_versions(),
        },
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    (folder / PROVENANCE_FILE).write_text(text + "\n", encoding="utf-8")


def code_sha256() -> str:
    """Return the hash of all modules of `training` and `device`: a checkout may be ahead of its version."""
    root = Path(__file__).parents[1]
    return _hash_files(
        sorted(path for name in ("device", "training") for path in (root / name).rglob("*.py"))
    )


def _hash_files(paths: Iterable[Path]) -> str:
    return hashlib.sha256("".join(file_sha256(path) for path in paths).encode()).hexdigest()
