"""`nanotox bench`: how long the station's own analysis takes on this machine, stage by stage."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.cli.options import METHODS, Commands, add_json_option, positive_number, positive_whole

if TYPE_CHECKING:
    from device.analysis.assess import AnalysisSettings, CellClassifier
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
        "phase contrast or on an image of yours, beside the least that any analysis could take: copying the "
        "frame, and halving it once.",
        epilog="Example: nanotox bench --size 1332x990 --cells 200",
    )
    parser.add_argument("--size", type=_size, default=(990, 1332), metavar="WxH", help="px (1332x990)")
    parser.add_argument("--cells", type=positive_whole, default=200, metavar="N", help="in the frame (200)")
    parser.add_argument("--image", type=Path, metavar="FILE", help="an image instead of a rendered frame")
    parser.add_argument(
        "--um-per-px", type=positive_number, default=0.65, metavar="X", help="scale of the frame (0.65)"
    )
    parser.add_argument("--repeats", type=positive_whole, default=20, metavar="N", help="timed runs (20)")
    parser.add_argument("--method", choices=METHODS, default="hybrid")
    parser.add_argument("--model", default="phase-cell", metavar="NAME|DIR", help="model bundle (phase-cell)")
    parser.add_argument("--exact", action="store_true", help="time the slow reference instead")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time and print."""
    from dataclasses import replace

    import cv2

    from device.classifier import open_cell_classifier
    from device.model_card import settings_from_card
    from device.models import find_bundle

    cv2.setNumThreads(1)
    bundle = find_bundle(args.model)
    settings = replace(settings_from_card(bundle.card, method=args.method), exact=args.exact)
    frame = _frame(args)
    stages, reading, peak = time_stages(frame, open_cell_classifier(bundle), settings, args.repeats)
    row = {
        "frame": frame.source,
        "height_px": reading.height_px,
        "width_px": reading.width_px,
        "um_per_px": args.um_per_px,
        "method": args.method,
        "exact": args.exact,
        "model": bundle.name,
        "repeats": args.repeats,
        "stages": {name: _percentiles(times) for name, times in stages.items()},
        "floor": {name: _percentiles(times) for name, times in time_floor(frame, args.repeats).items()},
        "n_live": reading.n_live,
        "n_dead": reading.n_dead,
        "n_other": reading.n_other,
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
    import time
    from itertools import pairwise

    from device.analysis.assess import assess

    assess(frame, classify, settings)
    stages: Stages = {}
    marks: list[tuple[str, float, float]] = []

    def observe(stage: str, _picture: object) -> None:
        marks.append((stage, time.process_time(), time.perf_counter()))

    reset_peak()
    for _ in range(repeats):
        marks.clear()
        observe("", None)
        reading = assess(frame, classify, settings, observe=observe)
        observe("rest", None)
        for before, (stage, cpu, wall) in pairwise(marks):
            stages.setdefault(stage, []).append((1e3 * (cpu - before[1]), 1e3 * (wall - before[2])))
        (_, *first), (_, *last) = marks[0], marks[-1]
        whole = 1e3 * (last[0] - first[0]), 1e3 * (last[1] - first[1])
        stages.setdefault("total", []).append(whole)
    return stages, reading, peak_mib()


def time_floor(frame: "Frame", repeats: int) -> Stages:
    """Return the times of copying a frame and of halving it once: no analysis can be quicker."""
    import time

    import cv2

    rows, cols = frame.image.shape
    half = (max(1, cols // 2), max(1, rows // 2))
    floor: Stages = {"copy": [], "halving": []}
    for _ in range(repeats):
        for name, step in (
            ("copy", frame.image.copy),
            ("halving", lambda: cv2.resize(frame.image, half, interpolation=cv2.INTER_AREA)),
        ):
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            floor[name].append((1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)))
    return floor


def _frame(args: argparse.Namespace) -> "Frame":
    from datetime import UTC, datetime

    from device.analysis.phantom import render_field
    from device.errors import ConfigError
    from device.images import read_reduced
    from device.records import Frame, Scale

    scale = Scale(args.um_per_px, "measured")
    if args.image is not None:
        image, full_size = read_reduced(args.image, None if args.exact else args.um_per_px)
        return Frame(image, datetime.now(UTC), str(args.image), 0, scale, full_size=full_size)
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
    return Frame(phantom.image, datetime.now(UTC), "rendered", 0, scale, simulated=True)


def _percentiles(times: list[tuple[float, float]]) -> dict[str, float]:
    import numpy as np

    middle, high = np.percentile(np.array(times), (50, 99), axis=0)
    names = "cpu_p50_ms", "wall_p50_ms", "cpu_p99_ms", "wall_p99_ms"
    return {name: round(float(ms), 3) for name, ms in zip(names, (*middle, *high), strict=True)}


def _table(row: dict[str, Any]) -> str:
    how = f"{row['method']}{' exact' if row['exact'] else ''} with {row['model']}"
    what = f"{row['frame']}, {row['width_px']} x {row['height_px']} px at {row['um_per_px']} um/px"
    lines = [
        f"{what}: {how}, {row['repeats']} runs, one thread",
        f"{'ms':<14} {'CPU p50':>8} {'p99':>8} {'wall p50':>9} {'p99':>8}",
    ]
    for name, times in (*row["stages"].items(), *((f"floor: {n}", t) for n, t in row["floor"].items())):
        cpu = f"{times['cpu_p50_ms']:8.2f} {times['cpu_p99_ms']:8.2f}"
        lines.append(f"{name:<14} {cpu} {times['wall_p50_ms']:9.2f} {times['wall_p99_ms']:8.2f}")
    counted = f"{row['n_live']} live, {row['n_dead']} dead, {row['n_other']} other"
    return "\n".join([*lines, f"{counted}; peak memory {row['peak_mib']:.0f} MiB"])


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (positive_whole(side) for side in text.lower().split("x"))
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
