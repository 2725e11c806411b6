"""What tools/make-accuracy reads with the station's own analysis: fields, models, columns of figures."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from device.analysis.assess import AnalysisSettings, assess
from device.analysis.judgment import CellClassifier
from device.analysis.overlay import draw_overlay
from device.classifier import open_cell_classifier
from device.errors import ModelError
from device.images import write_png
from device.model_card import settings_from_card
from device.models import find_bundle
from device.records import CellClass, Frame, Scale
from training.dataset.folds import draw_folds
from training.export.acceptance import ANY, NO_TIME, FieldResult, Statistic, figure, read_fields
from training.labeling import LabeledField

N_SEEDS = 5
NOT_MADE = "not made"
T = TypeVar("T")
Columns = dict[str, Sequence[Sequence[FieldResult]]]
"""By heading of the column: the runs whose mean is shown, none where the bundle is not made."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An opened bundle, or a network fitted here."""

    classify: CellClassifier
    settings: AnalysisSettings
    origins: tuple[str, ...] = ()

    def read(self, fields: Iterable[LabeledField], scale: Scale) -> list[FieldResult]:
        """Return the fields as the station reads them, matched to their truth."""
        return read_fields(fields, self.classify, self.settings, scale)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def open_model(name: str | Path) -> Model | None:
    """Return a bundle by name or folder, None if it is not made."""
    try:
        bundle = find_bundle(str(name))
    except ModelError as error:
        tell(f"{name}: {error}")
        return None
    method = "hybrid" if CellClass.OTHER in bundle.card.classes else "paper"
    settings = settings_from_card(bundle.card, method=method)
    return Model(open_cell_classifier(bundle), settings, tuple(source.origin for source in bundle.card.data))


def open_seeds(name: str, folder: Path | None, kind: str = "") -> list[Model | None]:
    """Return the bundles NAME-0 to NAME-4, or NAME-fold0 to NAME-fold4, of a folder."""
    places = [folder / f"{name}-{kind}{seed}" for seed in range(N_SEEDS)] if folder else []
    return [open_model(place) if place.is_dir() else None for place in places] or [None] * N_SEEDS


def columns(name: str, seeds: Path | None, fields: Sequence[LabeledField], scale: Scale) -> Columns:
    """Return the readings of the shipped bundle and of its seeds."""
    made = [model for model in open_seeds(name, seeds) if model]
    shipped = open_model(name)
    tell(f"reading {len(fields)} fields with {name}, shipped and {len(made)} seeds")
    return {
        f"shipped `{name}`": [shipped.read(fields, scale)] if shipped else [],
        f"`{name}`, mean of {len(made)} seeds": [model.read(fields, scale) for model in made],
    }


def read_folds(name: str, seeds: Path | None, fields: Sequence[LabeledField], scale: Scale) -> Columns:
    """Return each field read by the model that has not learned from its fold, and all by the shipped one."""
    folds = draw_folds([field.group for field in fields])
    tell(f"reading {len(fields)} fields with {name}, shipped and by folds")
    results = []
    models = open_seeds(name, seeds, "fold")
    for fold, model in enumerate(models):
        if model:
            results += model.read([field for field in fields if folds[field.group] == fold], scale)
    shipped = open_model(name)
    seen = shipped is not None and any("Usiigaci" in origin for origin in shipped.origins)
    note = " (has learned from some of these fields)" if seen else ""
    return {
        f"shipped `{name}`{note}": [shipped.read(fields, scale)] if shipped else [],
        f"`{name}`, cross-validated in {sum(m is not None for m in models)} folds": [results]
        if results
        else [],
    }


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: what it says, the goal, the statistic, and what its n counts."""

    what: str
    goal: str
    statistic: Statistic
    counted: str = ANY
    unit: str = "cells"
    digits: int = 3


def table(lines: Sequence[Line], found: Columns) -> str:
    """Return a Markdown table of figures, a column a model; refused fields first."""
    heads = ["figure", "goal", *found]
    rows = [[f"fields, refused by the gate ({_n_fields(found)} fields)", "", *map(_refused, found.values())]]
    for line in lines:
        cells = []
        for runs in found.values():
            if not runs:
                cells.append(NOT_MADE)
                continue
            n = len(runs[0]) if not line.counted else sum(r.matches[line.counted].n_true for r in runs[0])
            cells.append(str(figure(runs, line.statistic, n=n, what=line.unit, digits=line.digits)))
        rows.append([line.what, line.goal, *cells])
    return markdown(heads, rows)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    shown = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in shown)


def cut(items: Iterable[T], limit: int | None) -> list[T]:
    """Return all items, or as many as `limit`, evenly spread."""
    every = list(items)
    if not limit or len(every) <= limit:
        return every
    return [every[i] for i in np.linspace(0, len(every) - 1, limit).astype(int)]


def _n_fields(found: Columns) -> int:
    return max((len(run) for runs in found.values() for run in runs), default=0)


def _refused(runs: Sequence[Sequence[FieldResult]]) -> str:
    if not runs:
        return NOT_MADE
    return f"{np.mean([sum(not r.reading.quality.passed for r in run) for run in runs]):.3g}"


CHANGES: tuple[tuple[str, float, Callable[[np.ndarray, float], tuple[np.ndarray, float]]], ...] = (
    ("turned by 90 degrees", 0.02, lambda image, um: (np.ascontiguousarray(np.rot90(image)), um)),
    ("mirrored", 0.02, lambda image, um: (np.ascontiguousarray(image[:, ::-1]), um)),
    ("brightness x 0.8", 0.03, lambda image, um: (_brighten(image, 0.8), um)),
    ("brightness x 1.2", 0.03, lambda image, um: (_brighten(image, 1.2), um)),
    ("resampled to 0.5 um/px", 0.05, lambda image, um: (_resample(image, um / 0.5), 0.5)),
    ("resampled to 1.0 um/px", 0.05, lambda image, um: (_resample(image, um / 1.0), 1.0)),
)
"""The invariances of SCIENCE.md 9: change, largest change of the count, and how an image is changed."""


def invariances(model: Model, fields: Sequence[LabeledField], scale: Scale) -> list[str]:
    """Return for each change how far the total count moves, and a field's on average."""
    base = [_count(model, field.image, scale) for field in fields]
    shown = []
    for _, limit, change in CHANGES:
        counts = []
        for field in fields:
            image, um_per_px = change(field.image, scale.um_per_px)
            counts.append(_count(model, image, replace(scale, um_per_px=um_per_px)))
        total = abs(sum(counts) / max(sum(base), 1) - 1)
        each = sum(abs(a - b) for a, b in zip(base, counts, strict=True)) / max(sum(base), 1)
        mark = "" if total <= limit else " **over**"
        shown.append(f"{100 * total:.1f} % ({100 * each:.1f} %){mark}")
    return [f"{sum(base)} cells in {len(fields)} fields", *shown]


def _count(model: Model, image: np.ndarray, scale: Scale) -> int:
    reading = assess(Frame(image, NO_TIME, "accuracy", 0, scale), model.classify, model.settings)
    return len(reading.cells)


def _brighten(image: np.ndarray, factor: float) -> np.ndarray:
    return np.rint(np.clip(image * factor, 0, 255)).astype(np.uint8)


def _resample(image: np.ndarray, zoom: float) -> np.ndarray:
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=how))


def draw_worst(
    folder: Path | None, name: str, bundle: str, fields: Sequence[LabeledField], scale: Scale, found: Columns
) -> None:
    """Write overlays of the ten fields that a shipped bundle, the first column, got most wrong, and a sheet.

    True live cells have a white dot, others a black one.
    """
    model, (results,) = open_model(bundle), next(iter(found.values())) or ([],)
    if folder is None or model is None:
        return
    wrong = [sum(r.matches[k].fp + r.matches[k].fn for k in ("live", "dead")) for r in results]
    (folder / name).mkdir(parents=True, exist_ok=True)
    tiles = []
    for rank, index in enumerate(np.argsort(wrong, kind="stable")[::-1][:10].tolist()):
        field = fields[index]
        reading = assess(Frame(field.image, NO_TIME, name, index, scale), model.classify, model.settings)
        picture = draw_overlay(field.image, reading)
        for cell in field.cells:
            color = (255, 255, 255) if cell.label == "live" else (0, 0, 0)
            cv2.circle(picture, (round(cell.col), round(cell.row)), 2, color, cv2.FILLED)
        write_png(folder / name / f"{rank + 1:02d}-{wrong[index]}-errors-{index}.png", picture)
        zoom = 480 / max(picture.shape[:2])
        tile = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        tiles.append(np.pad(tile, ((0, 480 - tile.shape[0]), (0, 480 - tile.shape[1]), (0, 0))))
    tiles += [np.zeros((480, 480, 3), np.uint8)] * (-len(tiles) % 5)
    write_png(
        folder / f"{name}.png", np.vstack([np.hstack(tiles[i : i + 5]) for i in range(0, len(tiles), 5)])
    )
