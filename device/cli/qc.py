"""`nanotox qc`: whether the microscope still sees what it saw when all was well."""

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from device.options import Commands, add_config_option, add_json_option, positive_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device.baseline import QcState
    from device.config import Config
    from device.records import Reading


def add_parser(commands: Commands) -> None:
    """Add `nanotox qc` to the commands."""
    parser = commands.add_parser(
        "qc",
        help="control run: learn the station's baseline, then compare with it",
        description="See on a healthy control well whether light, focus and cells are as ever.",
        epilog="Example: nanotox qc run --config /etc/nanotox/station.toml",
    )
    run_parser = parser.add_subparsers(metavar="ACTION", required=True).add_parser(
        "run",
        help="read fields, compare them with the baseline, draw the control chart",
        description="Read fields of a control well by the station's camera. The first 30 accepted fields, of "
        "one run or several, become the baseline, whose focus the station's gate uses from then on; later "
        "runs are compared with it. Move the stage between fields. The station must not run meanwhile. Exit "
        "0 in control or while learning, 3 out of control.",
        epilog="Example: nanotox qc run --config station.toml --fields 10",
    )
    run_parser.add_argument(
        "--fields", type=positive_whole, default=10, metavar="N", help="frames that are read (10)"
    )
    run_parser.add_argument("--relearn", action="store_true", help="forget the baseline and learn it anew")
    add_config_option(run_parser)
    add_json_option(run_parser)
    run_parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make one control run; return 0 in control or while the baseline is learned, 3 otherwise."""
    from device.baseline import control_run, qc_file, run_state
    from device.cli import DONE, REFUSED
    from device.messages.sealing import rfc3339
    from device.station.instruments import load_config

    config, readings = load_config(args.config), []

    def read() -> "Iterator[Reading]":
        for reading in _read_fields(config, args.fields):
            readings.append(reading)
            yield reading

    state = control_run(config, read(), rfc3339(datetime.now(UTC)), relearn=args.relearn)
    chart = None if state.baseline is None else qc_file(config).with_suffix(".png")
    refusals = Counter(str(reason) for reading in readings for reason in reading.quality.refused_by)
    print(_as_json(state, refusals, chart) if args.json else _as_text(state, refusals, chart))
    return REFUSED if run_state(state) in ("no_field", "out_of_control") else DONE


def _read_fields(config: "Config", n_fields: int) -> "Iterator[Reading]":
    """Yield the readings of the camera's next frames, each by the way of the station."""
    from device.analysis.assess import assess
    from device.analysis.repeats import refuse_repeat
    from device.calibration import station_scale
    from device.cameras import LostFrame, Setup, open_camera
    from device.station.instruments import open_instruments

    tools, scale = open_instruments(config), station_scale(config)
    setup = Setup(scale, config.station.assay, config.station.modality)
    camera = open_camera(config.camera.kind, config.camera.settings, setup)
    before = None
    try:
        for frame in islice(camera.frames(), n_fields):
            if not isinstance(frame, LostFrame):
                reading = assess(frame, tools.classify, tools.settings)
                reading = refuse_repeat(reading, before, live=camera.live)
                before = reading if reading.quality.passed else before
                yield reading
    finally:
        camera.close()


def _as_json(state: "QcState", refusals: dict[str, int], chart: Path | None) -> str:
    run = state.runs[-1]
    document = {
        **asdict(run),
        "reasons": list(run.comparison.reasons) if run.comparison else [],
        "refused_by": refusals,
        "n_pending": len(state.pending),
        "learned_at": state.baseline.learned_at if state.baseline else None,
        "chart": None if chart is None else str(chart),
        "research_use_only": True,
    }
    return json.dumps(document, allow_nan=False)


def _as_text(state: "QcState", refusals: dict[str, int], chart: Path | None) -> str:
    from device.analysis.control import DRIFT_ABOVE, FIELDS_MIN, limits_of

    run = state.runs[-1]
    refused = ", ".join(f"{reason} {count}" for reason, count in refusals.items())
    lines = [f"{run.n_fields} fields, {run.n_refused} refused{': ' if refused else ''}{refused}"]
    if state.baseline is None:
        lines.append(f"learning: {len(state.pending)} of {FIELDS_MIN} accepted fields")
    elif run.comparison is None:
        learned = state.baseline.learned_at == run.at
        lines.append("the baseline is learned" if learned else "no accepted field to compare")
    else:
        for name, value in run.comparison.medians.items():
            spread = state.baseline.learned.spreads[name]
            low, high = (f"{limit:.3g}" if math.isfinite(limit) else "" for limit in limits_of(name, spread))
            usual = f"{value:8.3g}  baseline {spread.median:8.3g}  {low:>8} to {high:<8}"
            lines.append(f"{name:<16} {usual} {'OUT' if name in run.comparison.out else 'in'}")
        for name, index in run.comparison.psi.items():
            lines.append(f"{name:<16} stability index {index:.2f} {'DRIFT' if index > DRIFT_ABOVE else 'in'}")
    lines += [f"chart {chart}"] if chart is not None else []
    return "\n".join([*lines, "for research use only"])
