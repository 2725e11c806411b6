"""`nanotox grade`: wells, samples and controls of a plate whose images are files."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.options import Commands, add_analysis_options, add_json_option

if TYPE_CHECKING:
    from device.analysis.plate_state import PlateState
    from device.fields import FieldFile, FieldReader


def add_parser(commands: Commands) -> None:
    """Add `nanotox grade` to the commands."""
    parser = commands.add_parser(
        "grade",
        help="grade the wells of a plate from image files",
        description="Read the fields of a plate from files and judge its wells, samples and controls. Fields "
        "that fail the quality gate enter no well; each is named on stderr with the reason. For research use "
        "only.",
        epilog="Example: nanotox grade images/ --plate plate.csv --um-per-px 0.65 --report plate.html",
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder that the files of plate.csv lie in"
    )
    parser.add_argument(
        "--plate", type=Path, required=True, metavar="plate.csv", help="wells and their files"
    )
    add_analysis_options(parser)
    parser.add_argument(
        "--rule",
        metavar="R|FILE.toml",
        help="what decides, such as usp87/1, or a rule of your own; default: by assay",
    )
    parser.add_argument("--operator", metavar="NAME", help="who graded it, for the report")
    parser.add_argument("--report", type=Path, metavar="F.html", help="also write a report to hand on")
    parser.add_argument("--csv", type=Path, metavar="F.csv", help="also write the wells as csv/1")
    parser.add_argument("--fail-on", choices=("toxic",), help="exit with 4 if a test well or sample is toxic")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Grade the plate; return 4 if something is toxic and that was asked for, else the codes of `count`."""
    from device.analysis.plate_state import finish
    from device.cli import DONE, FAILED, REFUSED, TOXIC
    from device.fields import open_plate
    from device.messages.recompute import plate_lines
    from device.plates import read_plate

    state, reader, files = open_plate(args, read_plate(args.plate), args.folder)
    state, n_refused, n_unreadable = _read(replace(state, operator=args.operator), reader, files)
    *wells, whole = plate_lines(*finish(state))
    if args.json:
        print(*(json.dumps(line, allow_nan=False) for line in (*wells, whole)), sep="\n", flush=True)
    else:
        _print_table(whole, wells)
    _write(args, whole, wells, state, reader, files)
    judged = [item for item in (*wells, *whole["samples"]) if item["role"] == "test"]
    if args.fail_on and any(item["outcome"] == "toxic" for item in judged):
        return TOXIC
    return FAILED if n_unreadable else REFUSED if n_refused else DONE


def _read(
    state: "PlateState", reader: "FieldReader", files: "Sequence[FieldFile]"
) -> "tuple[PlateState, int, int]":
    """Return the plate with its files read, and how many were refused and how many could not be read."""
    from device.analysis.plate_state import add

    n_refused = n_unreadable = 0
    for result in reader.read(files):
        if result.reading is None:
            n_unreadable += 1
        else:
            state, _ = add(state, result.reading)
            n_refused += result.fault is not None
        if result.fault is not None:
            print(f"well {result.file.well}: {result.file.path}: {result.fault}", file=sys.stderr)
    return state, n_refused, n_unreadable


def _write(
    args: argparse.Namespace,
    plate: dict[str, Any],
    verdicts: Sequence[dict[str, Any]],
    state: "PlateState",
    reader: "FieldReader",
    files: "Sequence[FieldFile]",
) -> None:
    """Write the table and the report that were asked for; the fields it shows are read once more."""
    from device.analysis.overlay import overlay_jpeg
    from device.cli import installed_version
    from device.messages import payload
    from device.messages.sealing import rfc3339
    from device.plates import write_table, write_whole
    from device.report import pick_fields, render_report
    from device.report.table import table_rows

    if args.csv is not None:
        write_table(args.csv, table_rows("verdicts", verdicts), quoted=True)
    if args.report is None:
        return
    readings = [payload(reading) for well in state.readings for reading in well]
    chosen = {reading["source"]: well for well, reading in pick_fields(verdicts, readings).items()}
    pictures: dict[str, bytes] = {}
    shown = [file for file in files if str(file.path) in chosen]
    for _ in reader.read(
        shown, keep=lambda path, image, seen: pictures.update({chosen[str(path)]: overlay_jpeg(image, seen)})
    ):
        pass
    written = {"version": installed_version(), "written_at": rfc3339(datetime.now(UTC))}
    write_whole(args.report, [render_report(plate, verdicts, readings, pictures, **written)])


def _print_table(plate: dict[str, Any], verdicts: Sequence[dict[str, Any]]) -> None:
    from device.report.words import explain, name_of, tell_doses

    titles = ("well", "role", "sample", "dose", "fields", "affected", "range", "grade", "outcome", "why")
    rows = [titles, *map(_row, verdicts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    state = "valid" if plate["controls_valid"] else f"not valid: {', '.join(plate['reasons'])}"
    print(f"\ncontrols {state}; rule {plate['rule']}" + ("; simulated images" if plate["simulated"] else ""))
    for sample in plate["samples"]:
        wells = f"{len(sample['wells'])} well" + "s" * (len(sample["wells"]) > 1)
        grade = "" if sample["grade"] is None else f", grade {sample['grade']} ({sample['reactivity']})"
        why = f": {', '.join(sample['reasons'])}" if sample["reasons"] else ""
        print(f"sample {name_of(sample)} ({sample['role']}, {wells}): {sample['outcome']}{grade}{why}")
    for doses in plate["doses"]:
        print(f"doses of {doses['sample']}: {tell_doses(doses)}")
    judged = (plate, *verdicts, *plate["samples"])
    for code in dict.fromkeys(reason for item in judged for reason in item["reasons"]):
        print(explain(code))
    print(f"decision {plate['decision_sha256']}\nfor research use only")


def _row(verdict: dict[str, Any]) -> tuple[str, ...]:
    from device.report.words import dose_text, grade_text, in_percent, span

    return (
        verdict["well"],
        verdict["role"],
        verdict["sample"],
        dose_text(verdict),
        f"{verdict['n_fields']}/{verdict['n_fields'] + verdict['n_fields_refused']}",
        in_percent(verdict["affected_corrected"]),
        span(verdict["bounds"]),
        grade_text(verdict),
        verdict["outcome"],
        ", ".join(verdict["reasons"]),
    )
