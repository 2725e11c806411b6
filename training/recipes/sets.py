"""Rendered fields that models are judged on, as `training/evaluation/sets.toml` describes them."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import training.evaluation
from device.analysis.phantom import Culture, Optics, default_optics, render_field
from device.analysis.pyramid import WORKING_UM_PER_PX
from training.labeling import LabeledField
from training.rendered import true_cells

_FILE = tomllib.loads((Path(training.evaluation.__file__).parent / "sets.toml").read_text(encoding="utf-8"))
SETS: dict[str, dict[str, Any]] = _FILE["sets"]


def evaluation_ranges(name: str) -> dict[str, list[list[float]]]:
    """Return the ranges that a set draws each property of microscope and dish from; others are default."""
    return {
        key: value for table in SETS[name].get("ranges", ()) for key, value in _FILE["ranges"][table].items()
    }


def evaluation_fields(name: str) -> Iterator[LabeledField]:
    """Yield the fields of one of `SETS`, 480x640 px at working scale, always the same."""
    chosen = SETS[name]
    for index in range(chosen.get("fields") or len(chosen["n_dead"])):
        rng = np.random.default_rng((chosen.get("seed", 0), index))
        drawn = _draw(rng, evaluation_ranges(name))
        if "n_dead" in chosen:
            n_dead, seed = chosen["n_dead"][index], index + 1
            n_cells = n_dead + chosen["n_live"]
            dead_fraction = n_dead / n_cells
        else:
            low, high = chosen["n_cells"]
            n_cells, seed = int(rng.integers(low, high + 1)), int(rng.integers(2**31))
            dead_fraction = float(rng.uniform(*chosen["dead_fraction"]))
        phantom = render_field(
            modality=chosen["modality"],
            seed=seed,
            um_per_px=WORKING_UM_PER_PX,
            n_cells=n_cells,
            dead_fraction=dead_fraction,
            optics=replace(default_optics(chosen["modality"]), **_of(Optics, drawn)),
            culture=Culture(**_of(Culture, drawn)),
        )
        yield LabeledField(phantom.image, true_cells(phantom), f"{name}-{index}")


def _draw(rng: np.random.Generator, ranges: Mapping[str, list[list[float]]]) -> dict[str, float]:
    drawn = {}
    for name, several in ranges.items():
        low, high = several[rng.integers(len(several))]
        drawn[name] = float(rng.uniform(low, high))
    return drawn


def _of(record: type[Optics | Culture], drawn: Mapping[str, float]) -> dict[str, Any]:
    return {item.name: drawn[item.name] for item in fields(record) if item.name in drawn}
