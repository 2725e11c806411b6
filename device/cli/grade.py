"""`nanotox grade`: wells, samples and controls of a plate whose images are files."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from device.cli.options import Commands, add_analysis_options, add_json_option

if TYPE_CHECKING:
    from device.records import PlateReport, SampleVerdict, Verdict


def add_parser(commands: Commands) -> None:
    """Add `nanotox grade` to the commands."""
    parser = commands.add_parser(
        "grade",
        help="grade the wells of a plate from image files",
        description="Read the fields of a plate from files and judge its wells, samples and controls. Fields "
        "that fail the quality gate enter no well; each is named on stderr with the reason. For research use "
        "only.",
        epilog="Example: nanotox grade images/ --plate plate.csv --um-per-px 0.65 --assay adherent",
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
        metavar="R",
        help="what decides: iso10993-5-extract/1 or viability-70/1; default: by assay",
    )
    parser.add_argument("--fail-on", choices=("toxic",), help="exit with 4 if a test well or sample is toxic")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Grade the plate; return 4 if something is toxic and that was asked for, else the codes of `count`."""
    from device.analysis.grading import RULES, default_rule
    from device.analysis.plate_state import add, finish, start
    from device.cli import DONE, FAILED, REFUSED, TOXIC
    from device.cli.fields import FieldFile, open_reader
    from device.errors import ConfigError
    from device.messages.recompute import with_decision
    from device.plates import find_fields, read_plate
    from device.records import Outcome

    plate = read_plate(args.plate)
    if args.rule is not None and args.rule not in RULES:
        raise ConfigError(f"rule {args.rule!r} is unknown; expected one of {', '.join(RULES)}")
    fields = find_fields(plate, args.folder)
    files = [
        FieldFile(path, well, number) for well, paths in fields.items() for number, path in enumerate(paths)
    ]
    reader = open_reader(args, [file.path.parent for file in files])
    settings = reader.settings
    state = start(
        plate.wells,
        default_rule(settings.assay) if args.rule is None else RULES[args.rule],
        plate=plate.name,
        assay=settings.assay,
        modality=settings.modality,
        method=settings.method,
    )
    unreadable = refused = 0
    for result in reader.read(files):
        fault = None
        if result.reading is None:
            unreadable += 1
            fault = f"unreadable: {result.error}"
        else:
            state, _ = add(state, result.reading)
            if not result.reading.quality.passed:
                refused += 1
                fault = f"refused: {', '.join(result.reading.quality.refused_by)}"
        if fault is not None:
            print(f"well {result.file.well}: {result.file.path}: {fault}", file=sys.stderr)
    verdicts, report = finish(state)
    report = with_decision(verdicts, report)
    (_print_json if args.json else _print_table)(verdicts, report)
    judged: list[Verdict | SampleVerdict] = [*verdicts, *report.samples]
    if args.fail_on and any(item.role == "test" and item.outcome == Outcome.TOXIC for item in judged):
        return TOXIC
    return FAILED if unreadable else REFUSED if refused else DONE


def _print_json(verdicts: Iterable["Verdict"], report: "PlateReport") -> None:
    from device.messages import payload, schema_of

    records: list[Verdict | PlateReport] = [*verdicts, report]
    for record in records:
        line = {"schema": schema_of(record), **payload(record), "research_use_only": True}
        print(json.dumps(line, allow_nan=False), flush=True)


def _print_table(verdicts: Iterable["Verdict"], report: "PlateReport") -> None:
    titles = ("well", "role", "sample", "dose", "fields", "affected", "range", "grade", "outcome", "why")
    rows = [titles, *map(_row, verdicts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    state = "valid" if report.controls_valid else f"not valid: {', '.join(report.reasons)}"
    print(f"\ncontrols {state}; rule {report.rule}" + ("; simulated images" if report.simulated else ""))
    for sample in report.samples:
        why = ", ".join(sample.reasons)
        wells = f"{len(sample.wells)} well" + "s" * (len(sample.wells) > 1)
        name = " ".join(filter(None, (sample.sample, _dose(sample))))
        print(f"sample {name} ({sample.role}, {wells}): {sample.outcome}{': ' if why else ''}{why}")
    print("for research use only")


def _row(verdict: "Verdict") -> tuple[str, ...]:
    share, bounds = verdict.affected_corrected, verdict.bounds
    grade = "-" if verdict.grade is None else f"{verdict.grade} ({verdict.grade_low}-{verdict.grade_high})"
    return (
        verdict.well,
        verdict.role,
        verdict.sample,
        _dose(verdict),
        f"{verdict.n_fields}/{verdict.n_fields + verdict.n_fields_refused}",
        "-" if share is None else f"{100 * share:.1f} %",
        "-" if bounds is None else f"{100 * bounds.low:.0f}-{100 * bounds.high:.0f} %",
        grade,
        str(verdict.outcome),
        ", ".join(verdict.reasons),
    )


def _dose(item: "Verdict | SampleVerdict") -> str:
    return "" if item.dose is None else f"{item.dose:g} {item.dose_unit}"
