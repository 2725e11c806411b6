"""The page that tools/bench writes: its words, its tables and its plot; nothing is measured here."""

import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from bench_frames import cell_width_px
from bench_wire import Wire

HEAD = "| frame, cells | method | CPU ms | times `paper` (range) | found | F1 |"
OPENING = """# How fast it is

Written by `tools/bench` on {day}; `.venv/bin/python tools/bench` writes it again. Machine: {machine}, {cores}
cores, one thread used. {versions}.

Times are CPU time, medians of {rounds} rounds in one run; in each round every method has its turn, after a
run that is not counted. A ratio is the median over the rounds of "their time by that of `paper`", with the
lowest and the highest. What takes over {slow:g} s ran once. F1 is by `training.evaluation` on the same
frames: a found cell matches a true one within 6 um.

The frames are drawn and EASY: bright round cells with a dark rim, half of them touching a neighbor, weak
debris, slow shading, noise. Cells are 13 um wide, which is {width} px of 640 (1000 cells: {narrow} px), so
um_per_px is 13 by their width in px. Every sound method finds all of them: this page compares speed, and
[accuracy.md](accuracy.md) says how right `hybrid` is.

- `paper`, counting only: the frame brought to 0.65 um/px, the paper's chain, labels and centers. No quality
  gate, no classification.
- `hybrid`: all that the station does with a frame by default: pyramid, background, quality gate, candidates,
  each classified by `{model}` (int8, {runtime}), regions, confluence, the reading.
- Rivals: the paper's recipe with the same sizes in OpenCV, step by step over the whole image; in scikit-image
  and scipy.ndimage as their documentation puts them together; CellProfiler's IdentifyPrimaryObjects (Otsu,
  declumping by shape) rebuilt on its library centrosome. They only count.{missing}

![CPU time of each method](images/benchmarks.png)

## At equal working scale

Rivals get the working image (0.65 um/px, a cell is 20 px wide) for nothing; `paper` and `hybrid` begin with
the frame.
"""
FULL = """
## At full resolution

Rivals work on the frame as it comes. The ratios are larger because of the choice of the working scale:
nothing that counts cells 13 um wide needs more than 20 px across, but the areas that the steps sweep grow
with the square of the resolution, and their footprints with it once more. `paper --exact` is our own chain
without that choice or any other shortcut; `paper` has to find what it finds, within 1 or 1 %.
"""
READING = """
## From frame to reading

{size} px with 200 cells, `hybrid`, everything included, by the code of `nanotox bench` ({repeats} runs).

| ms | CPU p50 | p99 | wall p50 | p99 | Pi 4: not measured | Pi 5: not measured | Jetson: not measured |
|---|---|---|---|---|---|---|---|
{stages}

Classifying 200 crops in one thread with `{model}`: {classify:.1f} ms.

## The station around it

{wire}

## Memory

Peak of a fresh process that loads a frame of {big} px with 200 cells and runs the method once; imports and
the frame itself (12 MiB) are included.

| method | peak MiB |
|---|---|
{peaks}

## Floor and growth

No analysis can be quicker than a pass over the frame. CPU ms, medians: {floor}.

1000 cells take this many times as long as 200 of the same width in the same frame of {big} px: {growth}.
"""


def page(
    equal: dict,
    full: dict,
    *,
    rounds: int,
    slow_s: float,
    model: str,
    runtime: str,
    missing: dict[str, str],
    size: str,
    big: str,
    repeats: int,
    stages: dict,
    classify_ms: float,
    peaks: dict[str, float],
    floors: dict[str, dict],
    grown: dict[str, str],
    wire: Wire,
) -> str:
    """Return the text of the page."""
    lines = []
    for name, times in stages.items():
        (cpu, wall), (cpu_high, wall_high) = np.percentile(np.array(times), (50, 99), axis=0)
        lines.append(f"| {name} | {cpu:.2f} | {cpu_high:.2f} | {wall:.2f} | {wall_high:.2f} | | | |")
    told = []
    for name, floor in floors.items():
        steps = (f"{step} {statistics.median(cpu for cpu, _ in times):.2f}" for step, times in floor.items())
        told.append(f"{name}: {', '.join(steps)}")
    without = "".join(f" {name} did not run: {module} is not installed." for name, module in missing.items())
    opening = OPENING.format(
        day=datetime.now(UTC).date().isoformat(),
        machine=platform.machine().replace("_", "-"),
        cores=os.cpu_count(),
        versions=versions(),
        rounds=rounds,
        slow=slow_s,
        width=f"{cell_width_px(200):g}",
        narrow=f"{cell_width_px(1000):g}",
        model=model,
        runtime=runtime,
        missing=without,
    )
    reading = READING.format(
        size=size,
        big=big,
        repeats=repeats,
        stages="\n".join(lines),
        model=model,
        classify=classify_ms,
        peaks="\n".join(f"| {name} | {peak:.0f} |" for name, peak in peaks.items()),
        floor="; ".join(told),
        growth=", ".join(f"{name}: {ratio}" for name, ratio in grown.items()),
        wire=wire_rows(wire),
    )
    return "\n".join([opening, *rows_of(equal), FULL, *rows_of(full), reading])


def wire_rows(wire: Wire) -> str:
    """Return what was measured of a running station."""
    way, way_p90, way_p99 = np.percentile(wire.ways_ms, (50, 90, 99))
    return f"""A running station, its journal on the disk, a Mosquitto on loopback, a subscriber in another process;
{len(wire.ways_ms)} records of frames of 1332x990 px with 200 cells, the load of the machine {os.getloadavg()[0]:.0f}.

| figure | goal | result |
|---|---|---|
| a record from the journal's commit to `on_message` of the subscriber, p50 | <= 1.5 ms | {way:.2f} ms (p90 {way_p90:.2f}, p99 {way_p99:.2f}) |
| processor time of the capture thread outside grab, by that of counting and inference | <= 5 % | {100 * wire.outside_share:.1f} % |
| resident memory of `nanotox run`, steady | <= 130 MiB | {wire.resident_mib:.0f} MiB |"""  # noqa: E501 - rows of a table


def rows_of(table: dict) -> list[str]:
    """Return a table as Markdown; the first method of each frame is ours."""
    lines = [HEAD, "|" + "---|" * 6]
    for (size, n_cells), rows in table.items():
        ours = rows[0]
        for row in rows:
            times = f"{row.ms:.3g}" + ("" if len(row.times_ms) > 1 else " (one run)")
            score = "none" if row.f1 is None else f"{row.f1:.3f}"
            ratio = "" if row is ours else row.ratio(ours)
            lines.append(
                f"| {size}, {n_cells} | {row.method} | {times} | {ratio} | {row.n_found} | {score} |"
            )
    return lines


def draw_plot(tables: dict[str, dict], path: Path) -> None:
    """Draw the CPU time of each method over the frames, a panel a table, where matplotlib is installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("matplotlib is not installed (extra training): the plot is left as it is", file=sys.stderr)
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(tables), figsize=(6 * len(tables), 4.5), sharey=True)
    for panel, (title, table) in zip(np.atleast_1d(panels), tables.items(), strict=True):
        names = [row.method for row in next(iter(table.values()))]
        for name in names:
            times = [row.ms for rows in table.values() for row in rows if row.method == name]
            panel.plot(range(len(times)), times, marker="o", label=name.replace("`", ""))
        panel.set_xticks(range(len(table)), [f"{size}\n{n}" for size, n in table], fontsize=7)
        panel.set(title=title, yscale="log", xlabel="frame in px, cells")
        panel.legend(fontsize=7)
    np.atleast_1d(panels)[0].set_ylabel("CPU time, ms")
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def versions() -> str:
    """Return what is installed, as text."""
    found = [f"Python {platform.python_version()}"]
    for name in ("numpy", "opencv-python-headless", "scipy", "scikit-image", "centrosome"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
