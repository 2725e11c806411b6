"""Transfer, the paper's future work: a network that saw rendered cells goes on with few labels."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.records import Assay, CellClass, Modality
from training.fitting import FitSettings, fit_network
from training.labeling import cell_samples
from training.rendered import RENDERED_SCALE, RenderSettings, rendered_fields

CLASSES = tuple(str(name) for name in (CellClass.LIVE, CellClass.ROUNDED, CellClass.LYSED, CellClass.OTHER))
"""All that the renderer knows apart: the trunk learns more from four than from two."""


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    """How a network sees rendered cells; each field one line: meaning, unit, range."""

    learner: str = "station"
    """Kind of network: a file of `training.learners`."""
    assay: Assay = "adherent"
    """Whose candidates are cut. The renderer draws adherent cells only; those of a chamber are no kin of
    them but by their optics."""
    modality: Modality = "brightfield"
    """Look of the rendered fields."""
    fields: int = 40
    """Rendered fields, > 0; about 60 cells each."""
    steps: int = 1000
    """Gradient steps, > 0."""
    seed: int = 0
    """Of fields, weights and order."""


@cache
def pretrain(settings: PretrainSettings) -> tuple[NDArray[np.float32], ...]:
    """Return the weights of a network fitted to rendered cells, for `fit_network(start=...)`.

    Equal settings give equal weights on one machine; a process draws and fits each once.
    """
    render = RenderSettings(train_fields=settings.fields, seed=settings.seed + 1)
    samples = cell_samples(
        rendered_fields(render, settings.modality, "train"),
        CLASSES,
        um_per_px=RENDERED_SCALE.um_per_px,
        assay=settings.assay,
        modality=settings.modality,
        split="train",
        source="rendered",
        seed=settings.seed,
    )
    fit = FitSettings(settings.learner, epochs=1, steps_per_epoch=settings.steps, seed=settings.seed)
    return tuple(fit_network(samples, None, fit).model.get_weights())


def keep_pretrained(settings: PretrainSettings, file: Path) -> tuple[NDArray[np.float32], ...]:
    """Return what `pretrain` gives, from a file where an earlier call with equal settings left it."""
    wanted = json.dumps(asdict(settings))
    if file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["settings"]) == wanted:
                return tuple(kept[f"weight{i}"] for i in range(len(kept.files) - 1))
    weights = pretrain(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"weight{i}": value for i, value in enumerate(weights)}
    part = file.with_suffix(".part.npz")  # cut short it would look whole
    np.savez(part, settings=np.array(wanted), **arrays)
    part.replace(file)
    return weights
