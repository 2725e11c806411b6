"""Makes shipped bundles again: recipe, fit, export, threshold and scores on validation fields, trust list."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from device.classifier import open_cell_classifier
from device.errors import ModelError
from device.model_card import Bundle, Card, settings_from_card
from device.model_card.opinions import Metric
from device.models import TRUST_FILE, find_bundle, write_bundle
from device.records import CellClass, Method, Scale
from training.dataset import Dataset, read_dataset
from training.export.acceptance import ANY, StationScores, read_fields, score_station
from training.export.bundle import export_run
from training.labeling import LabeledField
from training.recipes import Recipe
from training.recipes.field import RealImages, field_material
from training.recipes.make import fit_recipe, prepare, recipe_fields
from training.recipes.opinions import with_opinions

Progress = Callable[[str], None]
ACCEPT_MIN = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Thresholds tried on validation fields: a candidate is a cell when 1 - p(other) reaches it. High ones pay:
training draws classes equally often, while most candidates of a field are `other`."""
DEAD_MIN = (0.4, 0.5, 0.6, 0.7, 0.85)
"""Tried with each: a cell is dead when p(dead | cell) reaches it."""


def make_bundle(
    recipe: Recipe,
    source: Path | None,
    run: Path,
    models: Path,
    progress: Progress,
    *,
    healthy: Path | None = None,
) -> Bundle:
    """Return the bundle of a recipe, made again in `models / recipe.name` and listed in its trust list.

    Parameters
    ----------
    recipe : Recipe
        A shipped one.
    source : Path or None
        Dataset folder, for a recipe that does not render its images. Split test stays closed.
    run : Path
        Run folder to write.
    models : Path
        Folder of the shipped bundles.
    progress : callable
        Called with one line of text at a time.
    healthy : Path, optional
        Dataset folder of a healthy culture, for a field recipe that names one.

    Raises
    ------
    ModelError
        If the parity gate does not pass.
    """
    progress(f"making {recipe.name}")
    dataset = read_dataset(source) if source and recipe.source != "rendered" else None
    real = RealImages(dataset, read_dataset(healthy) if healthy else None)
    material = field_material(recipe, real, progress) if recipe.field else prepare(recipe, dataset, progress)
    fit_recipe(recipe, material, run, progress)
    return finish_bundle(recipe, real, run, models, progress)


def finish_bundle(recipe: Recipe, real: RealImages, run: Path, models: Path, progress: Progress) -> Bundle:
    """Return the bundle made from the run of a recipe; otherwise as `make_bundle`."""
    folder = models / recipe.name
    bundle = export_run(run, run / "bundle", name=recipe.name, progress=progress)
    if not bundle.card.parity or not bundle.card.parity["passed"]:
        raise ModelError(
            f"{recipe.name} does not pass the parity gate: {bundle.card.parity}; change its recipe"
        )
    if recipe.field is not None:
        card = with_opinions(bundle, recipe, real, progress)
    else:
        card = with_thresholds(bundle, recipe, real.chamber, progress)
    write_bundle(folder, card=card, model=bundle.model, golden=bundle.golden)
    bundle = find_bundle(folder)
    list_as_trusted(models / TRUST_FILE, bundle)
    progress(f"{folder}: SHA-256 of SHA256SUMS {bundle.id.sha256}")
    return bundle


def with_thresholds(bundle: Bundle, recipe: Recipe, dataset: Dataset | None, progress: Progress) -> Card:
    """Return the card of a cell model with thresholds chosen on validation fields, and its scores there."""
    several = list(recipe_fields(recipe, dataset, "val", progress))
    thresholds, scores = choose_thresholds(bundle, several, progress)
    thresholds = {**bundle.card.thresholds, **thresholds}
    metrics: dict[str, Metric] = {}
    for (name, _, _), found in zip(several, scores, strict=True):
        kind = "synthetic" if name == "rendered" else "semi-synthetic" if recipe.blend else "real"
        suffix = "_rendered" if name == "rendered" and len(several) > 1 else ""
        data = f"{kind}: {name}, val (thresholds were chosen on it)"
        metrics |= {f"{key}{suffix}": value for key, value in station_metrics(found, data).items()}
    return replace(bundle.card, thresholds=thresholds, metrics=metrics)


def choose_thresholds(
    bundle: Bundle, several: list[tuple[str, list[LabeledField], Scale]], progress: Progress
) -> tuple[dict[str, float], list[StationScores]]:
    """Return the thresholds with the best mean F1 over the path of the station, and each set's scores."""
    method: Method = "hybrid" if CellClass.OTHER in bundle.card.classes else "paper"
    classify = open_cell_classifier(bundle)

    def score(thresholds: dict[str, float], n_resamples: int) -> list[StationScores]:
        settings = settings_from_card(replace(bundle.card, thresholds=thresholds), method=method)
        results = (read_fields(fields, classify, settings, scale) for _, fields, scale in several)
        return [score_station(result, n_resamples=n_resamples) for result in results]

    best, chosen = -1.0, dict[str, float]()
    for accept_min in ACCEPT_MIN if method == "hybrid" else (None,):
        for dead_min in DEAD_MIN:
            thresholds = {"dead_min": dead_min} | ({} if accept_min is None else {"accept_min": accept_min})
            found = score(thresholds, 1)
            f1 = [scores.detection[name].f1 or 0.0 for scores in found for name in ("live", "dead")]
            progress(f"{thresholds}: F1 live, dead {', '.join(f'{value:.3f}' for value in f1)}")
            if np.mean(f1) > best:
                best, chosen = float(np.mean(f1)), thresholds
    return chosen, score(chosen, 500)


def station_metrics(scores: StationScores, data: str) -> dict[str, Metric]:
    """Return the figures of a card: F1 by class with its interval, over how many true cells."""
    metrics = {}
    for name in ("dead", "live", ANY):
        detection, interval = scores.detection[name], scores.f1_ci95[name]
        if detection.f1 is not None:
            low, high = (interval.low, interval.high) if interval else (None, None)
            metrics[f"f1_{name}"] = Metric(detection.f1, low, high, detection.tp + detection.fn, data)
    return metrics


def list_as_trusted(path: Path, bundle: Bundle) -> None:
    """Write the bundle's checksum into a trust list, in place of an earlier one of the same name."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if line.split("#", 1)[0].split()[1:2] != [bundle.name]]
    path.write_text("\n".join([*kept, f"{bundle.id.sha256}  {bundle.name}"]) + "\n", encoding="utf-8")
