"""Run folders: a fitted network with everything that the export and a reader of its card need.

`run.json` (what and from what), `network.keras`, and `samples.npz` (representative and validation crops).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from device.analysis.quality import FocusReference
from device.errors import ConfigError
from device.model_card import DataSource, Metric, Recipe, Scalar
from device.records import Assay, Modality, ScaleSource

if TYPE_CHECKING:
    import keras

RUN_FILE = "run.json"
NETWORK_FILE = "network.keras"
SAMPLES_FILE = "samples.npz"


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


def write_run(folder: Path, run: Run, samples: RunSamples, network: "keras.Model") -> None:
    """Write a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    network.save(folder / NETWORK_FILE)
    np.savez_compressed(
        folder / SAMPLES_FILE, representative=samples.representative, val_x=samples.val_x, val_y=samples.val_y
    )
    document = json.dumps(asdict(run), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RUN_FILE).write_text(document + "\n", encoding="utf-8")


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
            f"{folder} has no {', '.join(missing)}; expected the --out folder of `nanotox-train fit`"
        )
    try:
        document = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        with np.load(folder / SAMPLES_FILE, allow_pickle=False) as arrays:
            samples = RunSamples(arrays["representative"], arrays["val_x"], arrays["val_y"])
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
