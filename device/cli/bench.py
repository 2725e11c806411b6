"""`nanotox bench`: how long the station's own analysis takes on this machine, stage by stage."""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.options import METHODS, Commands, add_json_option, positive_number, positive_whole

if TYPE_CHECKING:
    from device.analysis.assess import AnalysisSettings
    from device.analysis.judgment import CellClassifier
    from device.records import Frame, Reading

Stages = dict[str, list[tuple[float, float]]]
"""CPU and wall time of each stage, ms, one pair a repeat."""
_SEED, _DEAD_FRACTION = 1, 0.3


def add_parser(commands: Commands) -> None:
    """Add `nanotox bench` to the commands."""
    parser = commands.add_parser(
        "bench",
        help="time the analysis of a frame on this machine",
        description="Time each stage of the station's own analysis, with one thread, on a rendered frame of "
        "phase contrast, beside the least that any analysis could take: copying the frame, and halving it "
        "once. `nanotox count --json` times your own images.",
        epilog="Example: nanotox bench --size 1332x990 --cells 200",
    )
    parser.add_argument("--size", type=_size, default=(990, 1332), metavar="WxH", help="px (1332x990)")
    parser.add_argument("--cells", type=positive_whole, default=200, metavar="N", help="in the frame (200)")
    parser.add_argument(
        "--um-per-px", type=positive_number, default=0.65, metavar="X", help="scale of the frame (0.65)"
    )
    parser.add_argument("--repeats", type=positive_whole, default=20, metavar="N", help="timed runs (20)")
    parser.add_argument("--method", choices=METHODS, default="hybrid")
    parser.add_argument("--model", default="phase-cell", metavar="NAME|DIR", help="model bundle (phase-cell)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time and print."""
    import cv2

    from device.classifier import open_cell_classifier
    from device.model_card import settings_from_card
    from device.models import find_bundle

    cv2.setNumThreads(1)
    bundle = find_bundle(args.model)
    settings = settings_from_card(bundle.card, method=args.method)
    frame = _render(args)
    stages, reading, peak = time_stages(frame, open_cell_classifier(bundle), settings, args.repeats)
    found = ("height_px", "width_px", "n_live", "n_dead", "n_other")
    row = {
        **{name: getattr(reading, name) for name in found},
        "um_per_px": args.um_per_px,
        "method": args.method,
        "model": bundle.name,
        "repeats": args.repeats,
        "stages": {name: _percentiles(times) for name, times in stages.items()},
        "floor": {name: _percentiles(times) for name, times in time_floor(frame, args.repeats).items()},
        "peak_mib": round(peak, 1),
    }
    print(json.dumps(row) if args.json else _table(row))
    return 0


def time_stages(
    frame: "Frame", classify: "CellClassifier | None", settings: "AnalysisSettings", repeats: int
) -> tuple[Stages, "Reading", float]:
    """Return the times of each stage of `assess` and of the `total`, its reading, and the peak memory in MiB.

    A run beforehand is not counted. The memory is that of the whole process during the runs.
    """
    from device.analysis.assess import assess

    assess(frame, classify, settings)
    stages: Stages = {}
    marks: list[tuple[str, float, float]] = []

    def observe(stage: str, _picture: object) -> None:
        marks.append((stage, *_clocks_ms()))

    reset_peak()
    for _ in range(repeats):
        marks.clear()
        observe("", None)
        reading = assess(frame, classify, settings, observe=observe)
        observe("rest", None)
        whole = marks[0], ("total", *marks[-1][1:])
        for (_, cpu_before, wall_before), (stage, cpu, wall) in (*pairwise(marks), whole):
            stages.setdefault(stage, []).append((cpu - cpu_before, wall - wall_before))
    return stages, reading, peak_mib()


def time_floor(frame: "Frame", repeats: int) -> Stages:
    """Return the times of copying a frame and of halving it once: no analysis can be quicker."""
    from device.analysis.pyramid import halve

    steps: dict[str, Callable[[], object]] = {
        "copy": frame.image.copy,
        "halving": lambda: halve(frame.image),
    }
    floor: Stages = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            cpu, wall = _clocks_ms()
            step()
            cpu_after, wall_after = _clocks_ms()
            floor[name].append((cpu_after - cpu, wall_after - wall))
    return floor


def _clocks_ms() -> tuple[float, float]:
    return 1e3 * time.process_time(), 1e3 * time.perf_counter()


def _render(args: argparse.Namespace) -> "Frame":
    from device.analysis.phantom import render_field
    from device.errors import ConfigError
    from device.records import Frame, Scale

    try:
        phantom = render_field(
            modality="phase",
            seed=_SEED,
            size=args.size,
            um_per_px=args.um_per_px,
            n_cells=args.cells,
            dead_fraction=_DEAD_FRACTION,
        )
    except ValueError as error:
        raise ConfigError(f"the frame cannot be rendered: {error}") from error
    scale = Scale(args.um_per_px, "measured")
    return Frame(phantom.image, datetime.now(UTC), "rendered", 0, scale, simulated=True)


def _percentiles(times: list[tuple[float, float]]) -> dict[str, float]:
    import numpy as np

    middle, high = np.percentile(np.array(times), (50, 99), axis=0)
    names = "cpu_p50_ms", "wall_p50_ms", "cpu_p99_ms", "wall_p99_ms"
    return {name: round(float(ms), 3) for name, ms in zip(names, (*middle, *high), strict=True)}


def _table(row: dict[str, Any]) -> str:
    what = "rendered, {width_px} x {height_px} px at {um_per_px} um/px: {method} with {model}, {repeats} runs"
    lines = [
        what.format(**row) + ", one thread",
        f"{'ms':<14} {'CPU p50':>8} {'p99':>8} {'wall p50':>9} {'p99':>8}",
    ]
    line = "{name:<14} {cpu_p50_ms:8.2f} {cpu_p99_ms:8.2f} {wall_p50_ms:9.2f} {wall_p99_ms:8.2f}"
    lines += [line.format(name=name, **times) for name, times in row["stages"].items()]
    lines += [line.format(name=f"floor: {name}", **times) for name, times in row["floor"].items()]
    lines.append(
        "{n_live} live, {n_dead} dead, {n_other} other; peak memory {peak_mib:.0f} MiB".format(**row)
    )
    return "\n".join(lines)


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(positive_whole, text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no size; expected such as 1332x990") from error
    return height, width


def reset_peak() -> None:
    """Begin the peak of this process's memory anew, where the kernel lets a process do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mib() -> float:
    """Return the largest memory that this process had since, MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
