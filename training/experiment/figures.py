"""Figures of an experiment: learning curves, reliability, confusion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from device.errors import ConfigError
from training.evaluation.binary import BINS
from training.experiment.arms import plain_arm
from training.experiment.summary import Row, list_readings

_MARKERS = "osD^v<>PX*h"
"""An arm is told by marker and color, so that it is told in print too."""


def draw_figures(out: Path, results: Mapping[str, Any], rows: list[Row]) -> None:
    """Write `curves-RATIO.png`, `reliability-RATIO.png` and `confusion-RATIO.png` for each class ratio."""
    for ratio in dict.fromkeys(results["options"]["ratios"]):
        shown = [row for row in rows if row.ratio == ratio or row.budget == "all"]
        pooled = _pool(results, ratio)
        figures = {
            "curves": _draw_curves(shown, results),
            "reliability": _draw_reliability(pooled, results),
            "confusion": _draw_confusion(pooled, results),
        }
        for name, figure in figures.items():
            path = out / f"{name}-{ratio}.png"
            try:
                figure.savefig(path, dpi=120)
            except OSError as error:
                raise ConfigError(
                    f"{path} cannot be written ({error.strerror}); expected room and the right to write; "
                    "give the same command again: finished tasks are kept"
                ) from error


def _pool(results: Mapping[str, Any], ratio: str) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Return (S, N) probabilities by arm and budget."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for task in list_readings(results):
        if task["ratio"] == ratio or not task["budget"]:
            found.setdefault((task["arm"], str(task["budget"] or "all")), []).append(task["p"])
    return {key: np.array(several) for key, several in found.items()}


def _draw_curves(rows: list[Row], results: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    arms = results["options"]["arms"]
    if len(arms) > len(_MARKERS):  # of too many to tell apart, those that are fits of their own
        arms = [arm for arm in arms if arm == plain_arm(arm)]
    arms = [arm for arm in arms if arm != "majority"] or arms  # the floor would press all else into a corner
    budgets = sorted({row.n_labels for row in rows})
    names = {row.n_labels: row.budget for row in rows}
    for axes, measure in zip(figure.subplots(1, 2), ("f1_dead", "balanced_accuracy"), strict=True):
        for i, arm in enumerate(arms):
            mine = [r for r in rows if r.arm == arm and getattr(r, measure) is not None]
            mine.sort(key=lambda row: row.n_labels)
            beside = 1 + 0.02 * (i - (len(arms) - 1) / 2)  # bars of equal budgets do not cover each other
            axes.errorbar(
                [row.n_labels * beside for row in mine],
                [getattr(row, measure) for row in mine],
                yerr=[getattr(row, f"{measure}_sd") or 0 for row in mine],
                marker=_MARKERS[i % len(_MARKERS)],
                capsize=2,
                linewidth=1,
                label=arm,
            )
        axes.set_xscale("log")
        axes.set_xticks(budgets, [names[n] for n in budgets])
        axes.minorticks_off()
        axes.set(xlabel="labels", ylabel=_named(measure, results), title="mean and sd over seeds")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return figure


def _named(measure: str, results: Mapping[str, Any]) -> str:
    return {"f1_dead": f"F1 {results['judged']['classes'][1]}"}.get(measure, measure.replace("_", " "))


def _draw_reliability(
    pooled: Mapping[tuple[str, str], NDArray[np.float64]], results: Mapping[str, Any]
) -> Figure:
    dead = np.array(results["judged"]["y"]) == 1
    budgets, arms = _axes_of(pooled)
    figure = Figure(figsize=(1.5 + 3.2 * len(budgets), 3.8), layout="constrained")
    handles: dict[str, Any] = {}
    for axes, budget in zip(np.ravel(figure.subplots(1, len(budgets), sharey=True)), budgets, strict=True):
        axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
        for i, arm in enumerate(arms):
            if (arm, budget) in pooled:
                p = pooled[arm, budget]
                stated, seen = _bins(p.ravel(), np.tile(dead, len(p)))
                handles[arm] = axes.plot(stated, seen, marker=_MARKERS[i % len(_MARKERS)], linewidth=1)[0]
        axes.set(title=f"{budget} labels", xlabel="stated probability", xlim=(0, 1), ylim=(0, 1))
    figure.axes[0].set_ylabel(f"share {results['judged']['classes'][1]}, {BINS} bins of equal size")
    figure.legend(list(handles.values()), list(handles), loc="outside right center")
    return figure


def _bins(p: NDArray[np.float64], dead: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    parts = np.array_split(np.argsort(p, kind="stable"), min(BINS, len(p)))
    return [float(p[part].mean()) for part in parts], [float(dead[part].mean()) for part in parts]


def _draw_confusion(
    pooled: Mapping[tuple[str, str], NDArray[np.float64]], results: Mapping[str, Any]
) -> Figure:
    dead, classes = np.array(results["judged"]["y"]) == 1, results["judged"]["classes"]
    budgets, arms = _axes_of(pooled)
    figure = Figure(figsize=(1 + 2 * len(budgets), 0.6 + 2 * len(arms)), layout="constrained")
    grid = figure.subplots(len(arms), len(budgets), squeeze=False)
    for row, arm in zip(grid, arms, strict=True):
        for axes, budget in zip(row, budgets, strict=True):
            if (arm, budget) in pooled:
                _draw_counts(axes, pooled[arm, budget] >= 0.5, dead, classes)
                axes.set_title(f"{arm}, {budget}", fontsize=9)
            else:
                axes.set_axis_off()
    figure.supxlabel("called", fontsize=9)
    figure.supylabel("labeled, mean count over seeds", fontsize=9)
    return figure


def _draw_counts(axes: Axes, called: NDArray[np.bool_], dead: NDArray[np.bool_], classes: list[str]) -> None:
    table = np.array([[(called == c)[:, dead == d].sum(axis=1).mean() for c in (0, 1)] for d in (0, 1)])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(table):
        axes.text(j, i, f"{count:.1f}", ha="center", va="center", color="w" if share[i, j] > 0.5 else "k")
    axes.set_xticks((0, 1), classes, fontsize=8)
    axes.set_yticks((0, 1), classes, fontsize=8, rotation=90, va="center")


def _axes_of(pooled: Mapping[tuple[str, str], object]) -> tuple[list[str], list[str]]:
    """Return budgets and arms, each in the order of the tasks."""
    return list(dict.fromkeys(b for _, b in pooled)), list(dict.fromkeys(a for a, _ in pooled))
