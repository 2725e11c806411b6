"""`nanotox export`: readings, verdicts or plates as a table or as JSON lines for other programs."""

import argparse
import json
from pathlib import Path

from device.cli.report import SOURCE
from device.options import Commands

_SCHEMAS = {"readings": "reading/", "verdicts": "verdict/", "plate": "plate/"}


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
    parser.add_argument("--what", choices=tuple(_SCHEMAS), required=True, help="plate: a row for each sample")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, whole or not")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    from device.cli import DONE
    from device.journal.read import read_records
    from device.plates import write_table, write_whole
    from device.report.table import table_rows

    found = (v for v in read_records(args.source) if v["schema"].startswith(_SCHEMAS[args.what]))
    if args.form == "csv/1":
        write_table(args.out, table_rows(args.what, found), quoted=True)
    else:
        write_whole(args.out, (json.dumps(values, allow_nan=False) + "\n" for values in found))
    return DONE
