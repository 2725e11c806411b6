"""Arms times label budgets times seeds, with one step budget, judged on samples that none of them saw.

`arms` says what can be compared, `draws` what each may learn from, `summary` and `figures` what came of it,
`noise` what the labels themselves are worth. Each (arm, ratio, budget, seed) is one task of `training.pool`.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device.classifier import softmax
from device.plates import file_sha256, write_whole
from training.dataset import CELLS, MANIFEST
from training.dataset.samples import join_samples
from training.evaluation.binary import binary_scores
from training.experiment.arms import ARMS, PRIOR, STATED, check_arms, plain_arm
from training.experiment.draws import Ratio, draw_labels, read_material
from training.experiment.figures import draw_figures
from training.experiment.fits import Draw, find_shares, shift_to
from training.experiment.noise import report_noise
from training.experiment.summary import summarize, write_summary
from training.learners import open_learner
from training.pool import run_tasks
from training.provenance import code_sha256, tool_versions

STEPS, STEPS_ALL = 500, 1500
"""Gradient steps of the final fit of every arm; with all labels."""


@dataclass(frozen=True, slots=True)
class ExperimentOptions:
    """What an experiment compares; each field one line: meaning, unit, range."""

    arms: tuple[str, ...]
    """Names of `arms.ARMS`, each with or without `+prior` or `+shares`, which cost no fit; at least one."""
    labels: tuple[int | None, ...]
    """Label budgets, > 3; None is all labels."""
    n_seeds: int = 5
    """Draws of each budget, seeds 0 to n - 1, > 0."""
    ratios: tuple[Ratio, ...] = ("equal",)
    """Class ratios of the draws; all labels have their natural one whatever is asked for."""
    unit: str = "cell"
    """What one sample is: `cell` or `field`."""
    split: str = "val"
    """What judges: `val` or `test`."""
    control: str = "cnn"
    """Arm that the others are compared with, where it is among them."""
    learner: str = "table2"
    """Network of the arms that fit one: `table2`, the paper's, or `station`, a sixteenth of its work."""
    steps: int | None = None
    """Gradient steps of the final fit, > 0; None is 500, with all labels 1500."""
    noise: bool = False
    """Estimate the noise of the labels too."""


@dataclass(frozen=True, slots=True)
class Task:
    """One fit of an experiment, as plain values: a worker reads the rest from the dataset folder."""

    folder: str
    data: dict[str, str]
    """SHA-256 of the tables of the folder: other data are another task."""
    code: str
    """SHA-256 of all modules: code that changed may give other numbers, and one table has only one."""
    unit: str
    split: str
    arm: str
    learner: str
    ratio: Ratio
    budget: int | None
    steps: int
    seed: int

    @property
    def key(self) -> str:
        """Its name, such as `cnn-equal-20-0`."""
        return f"{self.arm}-{self.ratio}-{self.budget or 'all'}-{self.seed}"


def run_experiment(
    folder: Path, out: Path, options: ExperimentOptions, *, workers: int = 0, scheduler: str | None = None
) -> dict[str, Any]:
    """Do what is left of an experiment, write its results to `out` and return them.

    Parameters
    ----------
    folder : Path
        Dataset folder; on a cluster every worker needs it at this path.
    out : Path
        `tasks/` keeps each finished task, so that the same command goes on after an interruption, and more
        arms, budgets or seeds cost only themselves. `results.json`, `summary.csv`, `summary.md`, figures.
    options : ExperimentOptions
        What is compared.
    workers, scheduler
        As in `training.pool.run_tasks`. The numbers do not depend on them.

    Raises
    ------
    ConfigError
        For what cannot be asked for, before the first task; for tasks that failed, after the last.
    """
    check_arms((*options.arms, options.control))
    open_learner(options.learner)  # names those there are
    folder = folder.resolve()
    material = read_material(folder, options.unit, options.split)
    judged = material.judged
    for budget, ratio in _draws(options):
        draw_labels(material.train, budget, 0, ratio)  # too large a budget is an error now, not in an hour
    tasks = {task.key: task for task in _tasks(folder, options)}
    found = run_tasks(tasks, run_task, folder=out / "tasks", workers=workers, scheduler=scheduler)
    results: dict[str, Any] = {
        "options": asdict(options),
        "made_with": tool_versions() | {"code_sha256": code_sha256()},
        "data": {"folder": folder.name, "sha256": _hashes(folder)},
        "judged": {
            "split": options.split,
            "classes": list(judged.classes),
            "y": judged.y.tolist(),
            "group": judged.group.tolist(),
        },
        "tasks": found,
    }
    write_whole(out / "results.json", [json.dumps(results, indent=1, allow_nan=False), "\n"])
    note = ""
    if options.noise:
        # whatever judges, the labels of split test are not looked at here
        known = read_material(folder, options.unit, "val")
        note = report_noise(out, join_samples([known.train, known.judged]), len(judged))
    rows = summarize(results)
    write_summary(out, results, rows, note)
    draw_figures(out, results, rows)
    return results


def run_task(task: Task) -> dict[str, Any]:
    """Return how one arm does on one draw of labels, by reading: as it is, and with each suffix."""
    start = time.perf_counter()
    material = read_material(Path(task.folder), task.unit, task.split)
    judged = material.judged
    there = material.train if task.budget else material.everything
    labeled, unlabeled = draw_labels(there, task.budget, task.seed, task.ratio)
    stated = np.bincount(there.y, minlength=len(there.classes)) / len(there)
    draw = Draw(labeled, unlabeled, task.steps, task.seed, stated, task.learner)
    logits = ARMS[task.arm](draw)
    found = find_shares(draw)
    on_judged, on_unlabeled = logits(judged.x), logits(unlabeled.x)
    shifts = {
        "": np.zeros(2, np.float32),
        PRIOR: shift_to(found, on_unlabeled),
        STATED: shift_to(stated, on_unlabeled),
    }
    readings = {}
    for suffix, shift in shifts.items():
        p = softmax(on_judged + shift, 1.0)[:, 1].astype(float)
        readings[task.arm + suffix] = {
            "scores": asdict(binary_scores(p, judged.y == 1)),
            "p": [round(float(value), 6) for value in p],
        }
    return {
        "arm": task.arm,
        "ratio": task.ratio,
        "budget": task.budget,
        "seed": task.seed,
        "n_labels": labeled.count(),
        "n_groups": len(set(labeled.group.tolist())),
        "n_unlabeled": len(unlabeled),
        "shares": {"found": found.round(4).tolist(), "stated": stated.round(4).tolist()},
        "wall_s": round(time.perf_counter() - start, 2),
        "readings": readings,
    }


def _draws(options: ExperimentOptions) -> Iterator[tuple[int | None, Ratio]]:
    for budget in options.labels:
        for ratio in options.ratios if budget else ("natural",):
            yield budget, ratio


def _tasks(folder: Path, options: ExperimentOptions) -> Iterator[Task]:
    data, code = _hashes(folder), code_sha256()
    for budget, ratio in _draws(options):
        steps = options.steps or (STEPS if budget else STEPS_ALL)
        for seed in range(options.n_seeds):
            for arm in dict.fromkeys(plain_arm(name) for name in options.arms):
                yield Task(
                    str(folder),
                    data,
                    code,
                    options.unit,
                    options.split,
                    arm,
                    options.learner,
                    ratio,
                    budget,
                    steps,
                    seed,
                )


def _hashes(folder: Path) -> dict[str, str]:
    tables = [folder / name for name in (MANIFEST, CELLS) if (folder / name).is_file()]
    return {table.name: file_sha256(table) for table in tables}
