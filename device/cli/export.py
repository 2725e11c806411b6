"""`nanotox export`: readings, verdicts or plates as a table or as JSON lines for other programs."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from device.cli.report import SOURCE
from device.options import Commands

KINDS = {"readings": "reading", "verdicts": "verdict", "plate": "plate"}
"""What a table tells, and the kind of its records."""


def add_parser(commands: Commands) -> None:
    """Add `nanotox export` to the commands."""
    parser = commands.add_parser(
        "export",
        help="write readings, verdicts or plates for a LIMS",
        description="Write all readings, verdicts or samples of plates. csv/1 has fixed columns, every cell "
        "quoted, and names its form in each row; jsonl/1 holds the complete records.",
        epilog="Example: nanotox export journal.db --what verdicts --form csv/1 --out verdicts.csv",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=SOURCE)
    parser.add_argument("--form", choices=("csv/1", "jsonl/1"), required=True, help="form of the file")
    parser.add_argument("--what", choices=tuple(KINDS), required=True, help="plate: a row for each sample")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, whole or not")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from device.cli import DONE
    from device.journal.read import read_records

    found = (v for v in read_records(args.source) if v["schema"].startswith(f"{KINDS[args.what]}/"))
    write_records(args.what, args.form, found, args.out)
    return DONE


def write_records(what: str, form: str, records: Iterable[dict[str, Any]], out: Path | None) -> None:
    """Write records in a form such as `csv/1` to a file, which is there whole or not at all, or to stdout.

    `what` is the name of a table, for csv/1 alone.
    """
    from device.plates import csv_lines, write_whole
    from device.report.table import table_rows

    if form == "csv/1":
        lines = csv_lines(table_rows(what, records), quoted=True)
    else:
        lines = (json.dumps(values, allow_nan=False) + "\n" for values in records)
    if out is None:
        sys.stdout.writelines(lines)
    else:
        write_whole(out, lines)
