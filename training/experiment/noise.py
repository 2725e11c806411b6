"""The report on label noise: cross-validated disagreement, the worst labels to look at, the ceiling."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from device.classifier import softmax
from device.images import write_png
from device.plates import write_table, write_whole
from training.dataset.folds import group_folds
from training.dataset.samples import Samples
from training.evaluation.noise import estimate_noise, f1_ceiling
from training.experiment.fits import fit_forest
from training.gan import tile_images
from training.learners.features import fit_features

LEARNERS = {"features": fit_features, "forest": fit_forest}
"""Learners whose mean probability judges the labels, each class by its own mean: they need no calibration."""
N_FOLDS = 5
N_SHOWN, COLUMNS, MAGNIFIED = 60, 10, 4


def report_noise(out: Path, samples: Samples, n_judged: int) -> str:
    """Write `noise.json`, `noise.csv` and `noise-worst.png` on the labels of `samples`; return a line on it.

    Parameters
    ----------
    out : Path
        Folder that is there.
    samples : Samples
        All that may be looked at, both classes in it; never split test.
    n_judged : int
        Size of the set that the ceiling is given for, > 0.
    """
    fold = group_folds(samples, N_FOLDS, seed=0)
    p = np.zeros((len(samples), len(samples.classes)))
    for k in range(N_FOLDS):
        known = samples.take(fold != k)
        for fit in LEARNERS.values():
            logits = fit(known, 0)
            p[fold == k] += softmax(logits(samples.x[fold == k]), 1.0) / len(LEARNERS)
    found = estimate_noise(p, samples.y)
    ceiling, interval = f1_ceiling(found.joint, n_judged)
    document = asdict(found) | {
        "classes": samples.classes,
        "learners": list(LEARNERS),
        "f1_ceiling": ceiling,
        "f1_ceiling_interval": asdict(interval),
        "n_judged": n_judged,
    }
    write_whole(out / "noise.json", [json.dumps(document, indent=1), "\n"])
    worst = np.array(found.suspects, np.intp)[:N_SHOWN]
    rows = [(i, samples.group[j], samples.classes[samples.y[j]], *p[j].round(3)) for i, j in enumerate(worst)]
    write_table(out / "noise.csv", [("place", "group", "label", *(f"p_{c}" for c in samples.classes)), *rows])
    if len(worst):
        sheet = tile_images(np.pad(samples.x[worst], ((0, 0), (1, 1), (1, 1))), COLUMNS)
        large = sheet.repeat(MAGNIFIED, axis=0).repeat(MAGNIFIED, axis=1)
        write_png(out / "noise-worst.png", np.ascontiguousarray(large))
    wrong = ", ".join(f"{share:.1%} of {c}" for c, share in zip(samples.classes, found.wrong, strict=True))
    return (
        f"Labels of {found.n}: {found.disagreement:.1%} called otherwise, at most {wrong} wrong; a perfect "
        f"classifier would reach F1 {ceiling:.3f} ({interval.low:.3f} to {interval.high:.3f})."
    )
