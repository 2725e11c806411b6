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

from device.cli.options import (
    Commands,
    add_analysis_options,
    add_config_option,
    add_json_option,
    positive_whole,
)

if TYPE_CHECKING:
    from device.baseline import QcState
    from device.records import Assay, Modality, Reading


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
        description="Read fields of a control well by the station's camera, or images of FOLDER. The first "
        "30 accepted fields, of one run or several, become the baseline, whose focus the station's gate uses "
        "from then on; later runs are compared with it. Move the stage between fields. The station must not "
        "run meanwhile. Exit 0 in control or while learning, 3 out of control.",
        epilog="Example: nanotox qc run --config station.toml --fields 10; "
        "or: nanotox qc run controls/ --um-per-px 0.65 --assay adherent --state controls.qc.json",
    )
    run_parser.add_argument(
        "folder", nargs="?", type=Path, metavar="FOLDER", help="images instead of a camera"
    )
    run_parser.add_argument(
        "--fields", type=positive_whole, metavar="N", help="default: 10; FOLDER: all images"
    )
    run_parser.add_argument(
        "--state",
        type=Path,
        metavar="F",
        help="baseline and history (default: beside the journal; FOLDER: qc.json)",
    )
    run_parser.add_argument("--relearn", action="store_true", help="forget the baseline and learn it anew")
    add_config_option(run_parser)
    add_analysis_options(run_parser)
    add_json_option(run_parser)
    run_parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make one control run; return 0 in control or while the baseline is learned, 3 otherwise."""
    from device.analysis.control import draw_control_chart
    from device.baseline import note_run, write_qc
    from device.cli import DONE, REFUSED
    from device.images import write_png
    from device.messages import rfc3339

    path, state, readings = _read_station(args) if args.folder is None else _read_folder(args)
    state = note_run(state, readings, rfc3339(datetime.now(UTC)))
    write_qc(path, state)
    chart = None
    if state.baseline is not None:
        chart = path.with_suffix(".png")
        write_png(chart, draw_control_chart(state.runs, state.baseline.learned))
    refusals = Counter(str(reason) for reading in readings for reason in reading.quality.refused_by)
    print(_as_json(state, refusals, chart) if args.json else _as_text(state, refusals, chart))
    newest = state.runs[-1]
    found = newest.comparison
    bad = newest.n_refused == newest.n_fields or (found is not None and (found.out or found.reasons))
    return REFUSED if bad else DONE


def _read_folder(args: argparse.Namespace) -> "tuple[Path, QcState, list[Reading]]":
    from device.baseline import with_baseline
    from device.cli.fields import FieldFile, open_reader
    from device.errors import ConfigError, ImageError
    from device.images import list_images

    try:
        files = list_images(args.folder)
    except ImageError as error:
        raise ConfigError(str(error)) from error
    if not files:
        raise ConfigError(f"{args.folder} holds no images; expected fields of a control well")
    reader = open_reader(args, [files[0].parent])
    path = args.state or Path("qc.json")
    state = _open_state(args, path, reader.settings.assay, reader.settings.modality)
    reader.settings = with_baseline(reader.settings, state)
    results = list(reader.read([FieldFile(file) for file in files[: args.fields]]))
    unreadable = [result.error for result in results if result.error is not None]
    if unreadable:
        raise ConfigError(unreadable)
    return path, state, [result.reading for result in results if result.reading is not None]


def _read_station(args: argparse.Namespace) -> "tuple[Path, QcState, list[Reading]]":
    """Read the camera's next frames, each by the way of the station."""
    from device.analysis.assess import assess
    from device.analysis.repeats import refuse_repeat
    from device.baseline import qc_file, with_baseline
    from device.cameras import LostFrame, Setup, open_camera
    from device.records import Scale
    from device.station.instruments import load_config, open_instruments

    config = load_config(args.config)
    station, camera_section = config.station, config.camera
    path = args.state or qc_file(config)
    state = _open_state(args, path, station.assay, station.modality)
    tools = open_instruments(config)
    settings = with_baseline(tools.settings, state)
    setup = Setup(Scale(config.scale.um_per_px, config.scale.source), station.assay, station.modality)
    camera = open_camera(camera_section.kind, camera_section.settings, setup)
    readings: list[Reading] = []
    before = None
    try:
        for frame in islice(camera.frames(), args.fields or 10):
            if not isinstance(frame, LostFrame):
                reading = refuse_repeat(assess(frame, tools.classify, settings), before, live=camera.live)
                before = reading if reading.quality.passed else before
                readings.append(reading)
    finally:
        camera.close()
    return path, state, readings


def _open_state(args: argparse.Namespace, path: Path, assay: "Assay", modality: "Modality") -> "QcState":
    """Return the state before the run; written at once, so that a missing right shows before the fields."""
    from device.baseline import QcState, read_qc, write_qc

    state = QcState("qc/1", assay, modality) if args.relearn else read_qc(path, assay, modality)
    write_qc(path, state)
    return state


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
