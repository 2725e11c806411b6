"""Wells of real chamber tiles for tools/check-verdicts."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from accuracy_reading import markdown, tell
from verdict_plates import FIELDS, OUTCOMES, Image, Judged, decided, is_right, judge, outcomes, reasons, share

from device.analysis.grading import VIABILITY
from device.records import PlateWell
from training.dataset import ImportOptions, read_dataset
from training.dataset.from_ldc import INFO, import_data
from training.export.acceptance import MOSAIC_TILES
from training.labeling import LabeledField, dataset_fields
from training.recipes.mosaics import count_dead, even_tiles, mosaic, tilt

SHARES = range(0, 61, 5)
"""Percent of dead cells that wells are drawn for."""


def check_mosaics(args: argparse.Namespace) -> bool:
    """Judge wells of mosaics beside three blanks; return whether both figures reach their goals."""
    tiles = read_tiles(args.shared, args.split)
    dead, cells = count_dead(tiles)
    tell(f"{len(tiles)} tiles, {dead.sum()} of {cells.sum()} cells dead")
    rng = np.random.default_rng(args.seed)
    plan = [PlateWell(f"B{i}", "medium", "blank", None, None, i) for i in (1, 2, 3)]
    plan += [
        PlateWell(f"T{percent:02d}-{i}", "cells", "test", percent, "% dead", i)
        for percent in SHARES
        for i in range(1, args.wells + 1)
    ]
    drawn = {
        well.well: rng.choice(len(tiles), (FIELDS, MOSAIC_TILES), p=tilt(dead, cells, (well.dose or 0) / 100))
        for well in plan
    }
    truths = {name: float(dead[index].sum() / cells[index].sum()) for name, index in drawn.items()}

    def images_of(well: PlateWell) -> Iterable[Image]:
        return (mosaic([tiles[i] for i in field], well.well).image for field in drawn[well.well])

    wells = [replace(well, dead_fraction=truths[well.well]) for well in plan]
    judged, _ = judge(wells, images_of, INFO, args.jobs, keep=args.write)
    rows = []
    for percent in SHARES:
        here = [item for item in judged if item["dose"] == percent]
        true = np.mean([item["truth"] for item in here])
        read = np.mean(
            [item["affected_corrected"] for item in here if item["affected_corrected"] is not None]
        )
        rows.append([f"{percent} %", f"{true:.3f}", f"{read:.3f}", *outcomes(here), reasons(here)])
    print(markdown(("asked for", "true dead share", "affected, corrected", *OUTCOMES, "reasons"), rows))
    return _report(judged)


def read_tiles(shared: Path, split: str) -> list[LabeledField]:
    """Return the tiles of a split in one size and at one level."""
    with TemporaryDirectory() as name:
        import_data(shared / "ldc", Path(name), ImportOptions())
        return even_tiles(dataset_fields(read_dataset(Path(name)), split))


def _report(judged: Judged) -> bool:
    limit, said, recalls = VIABILITY.limit, decided(judged), []
    for toxic in (True, False):
        side = [item for item in said if (item["truth"] > limit) is toxic]
        right = sum(is_right(item, limit) for item in side)
        recalls.append(right / len(side) if side else 0.0)
        print(
            f"- decided wells that are {'' if toxic else 'not '}toxic, called so: {share(right, len(side))}"
        )
    clear = [item for item in judged if abs(item["truth"] - limit) > 0.15]
    n_decided, accuracy = len(decided(clear)), sum(recalls) / 2
    print(f"- balanced accuracy over decided wells: {accuracy:.3f}; goal >= 0.95")
    print(f"- decided outside of 15 to 45 % dead: {share(n_decided, len(clear))}; goal >= 0.90")
    return accuracy >= 0.95 and n_decided >= 0.90 * len(clear)
