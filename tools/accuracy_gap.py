"""The domain gap for docs/accuracy.md: whether real and rendered can be told apart, and what that costs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from accuracy_reading import Model, tell

from device.analysis.assess import AnalysisSettings
from device.analysis.judgment import Judgment
from device.analysis.phantom import render_field, vary, vary_culture
from device.classifier import softmax
from device.records import CellClass, Modality, ModelId, Scale
from training.evaluation.domain_gap import c2st_auc, draw_patches
from training.export.acceptance import ANY, Figure, f1_of, figure
from training.fitting import FitSettings, Fitted, fit_network
from training.labeling import LabeledField, LabelSettings, cell_samples
from training.rendered import RENDERED_SCALE, true_cells

SEED = 77
N_RENDERED = 60
ACCEPT_MIN = (0.5, 0.7, 0.9, 0.98)
FITTED = ModelId("fitted-here", "0" * 64, trusted=False)
CHAMBER = {"rounded": "live", "lysed": "dead"}
"""The renderer knows no chamber: its round cells stand for live ones in suspension, its ghosts for dead."""


def rendered(modality: Modality, n: int, seed: int, *, chamber: bool) -> list[LabeledField]:
    """Return fields from the ranges of training; of a chamber with round cells and ghosts only."""
    fields = []
    for index in range(n):
        rng = np.random.default_rng((seed, index))
        n_cells, share = int(rng.integers(10, 110)), float(rng.uniform())
        phantom = render_field(
            modality=modality,
            rng=rng,
            optics=vary(rng, modality),
            culture=vary_culture(rng),
            n_cells=n_cells,
            dead_fraction=share,
            numbers=(0, n_cells, round(n_cells * share / 3)) if chamber else None,
        )
        cells = true_cells(phantom)
        if chamber:
            cells = tuple(replace(cell, label=CHAMBER.get(cell.label, cell.label)) for cell in cells)
        fields.append(LabeledField(phantom.image, cells, f"rendered-{index}"))
    return fields


def told_apart(real: Sequence[LabeledField], rendered: Sequence[LabeledField], scale: Scale) -> str:
    """Return the AUC of real against rendered patches with its interval."""
    rng = np.random.default_rng(SEED)
    n = max(1, round(1200 / len(real))), max(1, round(1200 / len(rendered)))
    sides = [
        draw_patches(((f.image, f.group) for f in fields), um, n=k, rng=rng)
        for fields, um, k in ((real, scale.um_per_px, n[0]), (rendered, RENDERED_SCALE.um_per_px, n[1]))
    ]
    (a, a_groups), (b, b_groups) = sides
    auc, interval = c2st_auc(a, b, a_groups, b_groups)
    n_groups = f"{len(set(a_groups))} and {len(set(b_groups))} groups"
    return str(Figure(auc, interval, len(a) + len(b), f"patches of {n_groups}", digits=3))


@dataclass(frozen=True, slots=True, eq=False)
class _Float:
    """A network as it was fitted, for the cell model of `assess`: no export, both arms alike."""

    fitted: Fitted
    classes: tuple[CellClass, ...]
    id: ModelId

    def __call__(self, crops: np.ndarray) -> Judgment:
        return Judgment(softmax(self.fitted.logits(crops), self.fitted.temperature))


def fit_model(
    train: Iterable[LabeledField],
    val: Sequence[LabeledField],
    scale: Scale,
    classes: tuple[str, ...],
    settings: AnalysisSettings,
) -> Model:
    """Return a cell model fitted to fields, its threshold chosen on `val` of the same kind."""
    label = LabelSettings(clear=0.65 if settings.assay == "adherent" else 1.1, other_per_cell=4.0)
    parts = [
        cell_samples(
            fields,
            classes,
            um_per_px=scale.um_per_px,
            assay=settings.assay,
            modality=settings.modality,
            split=split,
            source="accuracy",
            settings=label,
            seed=SEED,
        )
        for split, fields in (("train", train), ("val", val))
    ]
    fit = FitSettings(epochs=6, steps_per_epoch=60, noise=0.06, seed=SEED)
    tell(f"fitting {parts[0].count()}")
    classify = _Float(fit_network(*parts, fit), tuple(CellClass(name) for name in classes), FITTED)
    models = [Model(classify, replace(settings, accept_min=accept_min)) for accept_min in ACCEPT_MIN]
    return max(models, key=lambda model: f1_of(ANY)(model.read(val, scale)) or 0.0)


def transfer(model: Model, fields: Sequence[LabeledField], scale: Scale, name: str, unit: str) -> str:
    """Return the F1 of a model on real fields."""
    results = model.read(fields, scale)
    n = sum(result.matches[name].n_true for result in results)
    return str(figure([results], f1_of(name), n=n, what=unit))
