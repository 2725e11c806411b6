"""What an experiment's results say: a row for each arm, budget and ratio, compared with the control arm."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.plates import write_table, write_whole
from device.records import Interval
from training.evaluation.resampling import holm_adjusted, paired_difference

MEASURES = ("balanced_accuracy", "f1_dead", "auc", "nll", "brier", "ece")
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One arm at one budget; means and standard deviations are over seeds, None where a figure is not."""

    ratio: str
    budget: str
    n_labels: int
    arm: str
    n_seeds: int
    balanced_accuracy: float | None
    balanced_accuracy_sd: float | None
    f1_dead: float | None
    f1_dead_sd: float | None
    auc: float | None
    auc_sd: float | None
    nll: float | None
    nll_sd: float | None
    brier: float | None
    brier_sd: float | None
    ece: float | None
    ece_sd: float | None
    wall_s: float
    """Mean of a task, seconds."""
    difference: float | None = None
    """F1 dead less that of the control, mean over seeds; None for the control itself."""
    low: float | None = None
    """95 % interval of the difference over groups of judged samples."""
    high: float | None = None
    p_holm: float | None = None
    """Against no difference, corrected over the arms of one ratio and budget."""
    differs: bool | None = None
    """The interval excludes 0 and `p_holm` is under 0.05."""


def summarize(results: Mapping[str, Any]) -> list[Row]:
    """Return the rows of `results.json`, in the order of its options; equal results give equal rows."""
    cells: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for reading in list_readings(results):
        place = (reading["ratio"], str(reading["budget"] or "all"))
        cells.setdefault(place, {}).setdefault(reading["arm"], []).append(reading)
    return [row for place, arms in cells.items() for row in _compare(place, arms, results)]


def list_readings(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each task once for each arm that was asked for and reads its fit, with `p` and `scores`."""
    return [
        task | reading | {"arm": arm}
        for task in results["tasks"].values()
        for arm, reading in task["readings"].items()
        if arm in results["options"]["arms"]
    ]


def f1_dead(called: NDArray[np.bool_], dead: NDArray[np.bool_]) -> float | None:
    """Return the mean F1 of (S, N) calls of S seeds against (N,) truth; None if nothing is or is called."""
    tp = (called & dead).sum(axis=1)
    whole = called.sum(axis=1) + dead.sum()
    return float(np.mean(2 * tp / whole)) if (whole > 0).all() else None


def write_summary(out: Path, results: Mapping[str, Any], rows: list[Row], note: str = "") -> None:
    """Write `summary.csv`, and `summary.md` with its tables and a note under them."""
    names = [field.name for field in fields(Row)]
    table = [
        ["" if v is None else f"{v:.5g}" if isinstance(v, float) else v for v in asdict(r).values()]
        for r in rows
    ]
    write_table(out / "summary.csv", [names, *table])
    write_whole(out / "summary.md", [_markdown(results, rows), note and f"\n{note}\n"])


def _compare(
    place: tuple[str, str], arms: Mapping[str, list[dict[str, Any]]], results: Mapping[str, Any]
) -> list[Row]:
    dead = np.array(results["judged"]["y"]) == 1
    called = {arm: np.array([task["p"] for task in tasks]) >= 0.5 for arm, tasks in arms.items()}
    control = called.get(results["options"]["control"])
    found: dict[str, tuple[float, Interval, float]] = {}
    for arm, calls in called.items():
        if control is not None and calls is not control:
            difference = _difference(calls, control, dead)
            interval = paired_difference(results["judged"]["group"], difference)
            whole = difference(np.arange(len(dead)))
            if interval is not None and whole is not None:
                found[arm] = (whole, *interval)
    holm = dict(zip(found, holm_adjusted([p for _, _, p in found.values()]), strict=True))
    rows = []
    for arm, tasks in arms.items():
        compared: dict[str, Any] = {}
        if arm in found:
            whole, sure, _ = found[arm]
            apart = not sure.low <= 0 <= sure.high
            compared = {"difference": whole, "low": sure.low, "high": sure.high}
            compared |= {"p_holm": holm[arm], "differs": apart and holm[arm] < ALPHA}
        rows.append(_row(place, arm, tasks, compared))
    return rows


def _difference(
    calls: NDArray[np.bool_], control: NDArray[np.bool_], dead: NDArray[np.bool_]
) -> Callable[[NDArray[np.intp]], float | None]:
    def difference(index: NDArray[np.intp]) -> float | None:
        one, other = f1_dead(calls[:, index], dead[index]), f1_dead(control[:, index], dead[index])
        return None if one is None or other is None else one - other

    return difference


def _row(place: tuple[str, str], arm: str, tasks: list[dict[str, Any]], compared: Mapping[str, Any]) -> Row:
    measured: dict[str, Any] = {}
    for name in MEASURES:
        values = [task["scores"][name] for task in tasks]
        known = None not in values
        measured[name] = float(np.mean(values)) if known else None
        measured[f"{name}_sd"] = float(np.std(values, ddof=1)) if known and len(values) > 1 else None
    return Row(
        ratio=place[0],
        budget=place[1],
        n_labels=sum(tasks[0]["n_labels"].values()),
        arm=arm,
        n_seeds=len(tasks),
        wall_s=float(np.mean([task["wall_s"] for task in tasks])),
        **measured,
        **compared,
    )


def _markdown(results: Mapping[str, Any], rows: list[Row]) -> str:
    judged, control = results["judged"], results["options"]["control"]
    dead = judged["classes"][1]
    head = (
        f"Split {judged['split']} of {results['data']['folder']}: {len(judged['y'])} samples of "
        f"{len(set(judged['group']))} groups, {sum(judged['y'])} {dead}. Mean (sd) over seeds, each with "
        f"labels of its own. The last column is F1 {dead} less that of {control}, with its 95 % interval "
        "over groups of judged samples; bold where that excludes 0 after Holm's correction over the arms of "
        "a budget. The interval does not cover what other labels would change: for that see the sd."
    )
    lines = [head]
    for ratio in dict.fromkeys(results["options"]["ratios"]):
        lines += ["", f"Labels drawn in {ratio} class ratio:", ""]
        columns = ("labels", "arm", "balanced accuracy", f"F1 {dead}", "AUC", "NLL", f"against {control}")
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [_line(row) for row in rows if row.ratio == ratio or row.budget == "all"]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    against = ""
    if row.difference is not None:
        against = f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
        against = f"**{against}**" if row.differs else against
    pairs = [(getattr(row, name), getattr(row, f"{name}_sd")) for name in MEASURES[:4]]
    told = [
        "-" if mean is None else f"{mean:.3f}" + (f" ({sd:.3f})" if sd is not None else "")
        for mean, sd in pairs
    ]
    return f"| {row.budget} | {row.arm} | {' | '.join(told)} | {against} |"
