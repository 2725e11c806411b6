"""The paper's recipe from labels by counting to the int8 model, each of its figures beside ours."""

import json
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from device.analysis.assess import AnalysisSettings
from device.analysis.crops import CROP_PX, cut_crops
from device.analysis.judgment import CellClassifier
from device.classifier import softmax
from device.errors import ConfigError
from device.model_card import Bundle
from training.cotraining.paper import PaperRun, PaperSettings, choose_labeled, run_paper
from training.dataset import FIELD_LABELS, Dataset
from training.dataset.samples import Samples, join_samples
from training.evaluation.binary import BinaryScores
from training.export.acceptance import ANY, FieldResult, read_fields, score_crops
from training.export.bundle import export_run
from training.fields import TOXIC_ABOVE, bundle_samples, field_input
from training.fitting import FitSettings
from training.gan import GanSettings
from training.labeling import LabeledField, dataset_fields, find_candidates
from training.recipes import Recipe
from training.recipes.generated import Generation, write_quality
from training.recipes.make import (
    Material,
    Progress,
    describe_source,
    drop_copies,
    improvise,
    measure_reference,
    require_classes,
    write_fit,
)
from training.recipes.report import write_report


@dataclass(frozen=True, slots=True)
class RecipeSettings:
    """How much of the paper's recipe is done; each field one line: meaning, unit, range."""

    unit: Literal["field", "cell"] = "cell"
    """What Algorithm 1 labels: whole fields at 28x28 as the paper, or single cells."""
    max_images: int = 0
    """Images counted at most, 0 for all."""
    max_unlabeled: int = 300
    """Unlabeled samples at most, > 0."""
    paper: PaperSettings = field(default_factory=PaperSettings)
    """Of Algorithm 1."""


SMOKE = RecipeSettings(
    max_images=40,
    max_unlabeled=40,
    paper=PaperSettings(
        n_generated=8,
        max_rounds=1,
        refit_steps=2,
        gan=GanSettings(steps=6, log_every=2, grid_at=(2, 4, 6)),
        fit=FitSettings("table2", epochs=2, batch=32, balanced=False),
    ),
)
"""Everything once, in a minute: its figures mean nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class PaperOutcome:
    """What the recipe gave, for the report."""

    settings: RecipeSettings
    results: list[FieldResult]
    """Each image by the paper's chain, matched to its truth."""
    files: list[str]
    label_rule: str
    labeled: Samples
    n_unlabeled: int
    run: PaperRun
    judged: BinaryScores | None
    """TC on the true labels of split val, none of which it saw; None without such."""
    pseudo_right: float | None
    """Share of pseudo-labels that agree with the labels by counting."""
    bundle: Bundle
    quality: list[str]
    """What the generated images are worth beside real ones, a line a class; empty where there are none."""


def run_recipe(
    dataset: Dataset, out: Path, settings: RecipeSettings, classify: CellClassifier | None, progress: Progress
) -> PaperOutcome:
    """Return what the paper's recipe gives on a dataset and write run, bundle, report and figures to `out`.

    Parameters
    ----------
    dataset : Dataset
        Split train is counted and learned from, split val judges.
    out : Path
        Run folder; the bundle goes to `out/bundle`.
    settings : RecipeSettings
        How much of it is done.
    classify : CellClassifier or None
        Tells dead from live among the regions that the chain counts; None is the paper as printed, where
        every region counts as dead.
    progress : callable
        Called with one line of text at a time.

    Raises
    ------
    ConfigError
        If the labels by counting are of one class only.
    """
    recipe = improvise(dataset, unit=settings.unit, classes="live,dead", assay=None, fit=settings.paper.fit)
    recipe = replace(recipe, scope=f"{settings.unit} model of the paper's recipe; it never decides alone")
    analysis = AnalysisSettings(recipe.assay, recipe.modality, "paper")
    limit = settings.max_images or None
    files = [entry.file for entry in dataset.in_split("train")[:limit]]
    images = list(islice(dataset_fields(dataset, "train"), limit))
    progress(f"counting {len(files)} images by the paper's chain")
    results = read_fields(images, classify, analysis, dataset.info.scale)
    samples, rule = _label_by_counting(dataset, recipe, images, results)
    progress(f"labels by counting: {samples.count()} ({rule})")
    if len(np.unique(samples.y)) < 2:
        raise ConfigError(
            f"labels by counting of {dataset.folder}, split train, are {samples.count()}; expected both "
            "classes; add fields of blank and of positive wells to that split"
        )
    labeled, rest = choose_labeled(samples, settings.paper.n_labeled, settings.paper.seed)
    unlabeled = draw_samples(rest, settings.max_unlabeled, settings.paper.seed)
    held_out = bundle_samples(recipe.kind, recipe.classes, dataset, "val")
    held_out = drop_copies(samples, held_out, progress)
    if not len(held_out) and len(np.unique(labeled.group)) < 2:
        raise ConfigError(
            f"split val of {dataset.folder} has no labels and the {len(labeled)} labeled images are of one "
            "group; expected some to validate on; add a split val or images of another well"
        )
    run = run_paper(labeled, unlabeled, settings.paper, progress)
    judged = None
    if len(held_out):
        judged = score_crops(lambda x: softmax(run.fitted.logits(x), run.fitted.temperature), held_out)
    reference = measure_reference(recipe, images, dataset.info.scale)
    val = held_out if len(held_out) else run.val
    source = describe_source(dataset, len(run.train))
    material = Material(run.train, val, dataset.info.scale, (source,), reference)
    write_fit(recipe, material, run.fitted, out, gan_gate=_not_gated(run))
    bundle = export_run(out, out / "bundle", name=f"paper-{recipe.kind}", progress=progress)
    right = [run.co_training.pseudo[i] == run.unlabeled.y[i] for i in run.co_training.pseudo]
    outcome = PaperOutcome(
        settings,
        results,
        files,
        rule,
        labeled,
        len(run.unlabeled),
        run,
        judged,
        float(np.mean(right)) if right else None,
        bundle,
        _judge_generated(out, run, val, settings.paper.fit, progress),
    )
    write_report(out, outcome, dataset)
    return outcome


def co_train_material(
    recipe: Recipe,
    material: Material,
    settings: PaperSettings,
    max_unlabeled: int,
    out: Path,
    progress: Progress,
    *,
    unlabeled: Samples | None = None,
) -> PaperRun:
    """Keep the labels of some samples, run Algorithm 1 on the others and write the run of TC to `out`.

    `unlabeled` are samples that nobody labeled; they join those whose labels are forgotten.
    """
    require_classes(material.train, material.val)
    labeled, rest = choose_labeled(material.train, settings.n_labeled, settings.seed)
    rest = rest if unlabeled is None else join_samples([rest, unlabeled])
    run = run_paper(labeled, draw_samples(rest, max_unlabeled, settings.seed), settings, progress)
    write_fit(recipe, replace(material, train=run.train), run.fitted, out, gan_gate=_not_gated(run))
    _judge_generated(out, run, material.val, settings.fit, progress)
    rounds = [asdict(step) for step in run.co_training.rounds]
    (out / "rounds.json").write_text(json.dumps(rounds, indent=2) + "\n", encoding="utf-8")
    return run


def _label_by_counting(
    dataset: Dataset, recipe: Recipe, fields: list[LabeledField], results: list[FieldResult]
) -> tuple[Samples, str]:
    if recipe.kind == "cell":
        return _counted_cells(
            dataset, recipe, fields, results
        ), "each counted region has the label of its true cell"
    x = [field_input(field.image, dataset.info.scale.um_per_px)[0] for field in fields]
    if any(result.reading.n_live for result in results):
        limit = TOXIC_ABOVE[recipe.assay]
        toxic = [(result.reading.affected or 0.0) > limit for result in results]
        rule = f"toxic where more than {limit:.0%} of the counted cells are dead"
    else:
        counts = [result.reading.n_dead for result in results]
        limit = float(np.median(counts))
        toxic = [count > limit for count in counts]
        rule = (
            f"toxic where more dead cells are counted than the median, {limit:g}: the paper states no limit"
        )
    group = np.array([field.group for field in fields], np.str_)
    y = np.array(toxic, np.intp)
    return Samples(np.array(x, np.uint8), y, group, "train", dataset.folder.name, FIELD_LABELS), rule


def _counted_cells(
    dataset: Dataset, recipe: Recipe, fields: list[LabeledField], results: list[FieldResult]
) -> Samples:
    """Return the crop of each counted region that matches a true cell, with that cell's label."""
    um_per_px = dataset.info.scale.um_per_px
    x, y, group = [np.zeros((0, CROP_PX, CROP_PX), np.uint8)], [], []
    for field_, result in zip(fields, results, strict=True):
        candidates = find_candidates(field_.image, um_per_px, assay=recipe.assay, modality=recipe.modality)
        told = [cell for cell in field_.cells if cell.label]
        for true, found in result.matches[ANY].pairs:
            cell = result.reading.cells[found]
            center = candidates.pyramid.from_frame(np.array([[cell.row, cell.col]]))
            x.append(cut_crops(candidates.relative, center))
            y.append(int(told[true].label != "live"))
            group.append(field_.group)
    return Samples(
        np.concatenate(x),
        np.array(y, np.intp),
        np.array(group, np.str_),
        "train",
        dataset.folder.name,
        recipe.classes,
    )


def draw_samples(samples: Samples, limit: int, seed: int) -> Samples:
    """Return at most `limit` of the samples, chosen at random, in their order."""
    order = np.random.default_rng(seed).permutation(len(samples))
    return samples.take(np.sort(order[:limit]))


def _judge_generated(
    out: Path, run: PaperRun, held_out: Samples, fit: FitSettings, progress: Progress
) -> list[str]:
    if not len(run.generated):
        return []
    return write_quality(out, Generation(run.generated, run.train, run.gans), held_out, fit, progress)


def _not_gated(run: PaperRun) -> dict[str, str | bool | int | float]:
    return {
        "used": len(run.generated) > 0,
        "passed": False,
        "n_generated": len(run.generated),
        "note": "the paper's recipe adds generated images without a gate",
    }
