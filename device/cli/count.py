"""`nanotox count`: live and dead cells of image files."""

import argparse
import json
import sys
from pathlib import Path

from device.options import Commands, add_analysis_options, add_json_option


def add_parser(commands: Commands) -> None:
    """Add `nanotox count` to the commands."""
    parser = commands.add_parser(
        "count",
        help="count live and dead cells in image files",
        description="Count live and dead cells in PNG, TIFF, JPEG or BMP files, and say which fields are too "
        "bad to be read. A field alone is never toxic or non-toxic: `nanotox grade` judges wells.",
        epilog="Example: nanotox count images/ --um-per-px 0.65 --model phase-cell --overlay seen/",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image files, or folders of them")
    add_analysis_options(parser)
    add_json_option(parser)
    parser.add_argument("--csv", type=Path, metavar="F", help="also write a table, one row a file")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="write each image with its cells marked")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="write the regions as 16-bit labels")
    parser.add_argument(
        "--stages", type=Path, metavar="DIR", help="write the picture of each step of the analysis"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Count, print a line a file, and return 1 if one could not be read, 3 if one was refused, else 0."""
    from device.cli import DONE, FAILED, REFUSED
    from device.cli.counts import CSV_COLUMNS, Pictures, csv_row, find_files, json_line, text_line
    from device.fields import open_reader
    from device.plates import write_table

    files = find_files(args.paths)
    images = [file.path for file in files if file.path.is_file()]
    pictures = Pictures(images, overlay=args.overlay, masks=args.masks, stages=args.stages)
    reader = open_reader(args, [path.parent for path in images])
    width = max(len("file"), *(len(str(file.path)) for file in files))
    if not args.json:
        print(text_line(None, width), flush=True)
    rows, n_refused, n_unreadable = [], 0, 0
    results = reader.read(files, keep=pictures.keep, see=pictures.see if args.stages else None)
    for number, result in enumerate(results, start=1):
        line = json_line(result) if args.json or args.csv is not None else {}
        print(json.dumps(line, allow_nan=False) if args.json else text_line(result, width), flush=True)
        if args.csv is not None:
            rows.append(csv_row(line))
        n_refused += result.reading is not None and not result.reading.quality.passed
        n_unreadable += result.reading is None
        if sys.stderr.isatty() and not sys.stdout.isatty():
            end = "\n" if number == len(files) else ""
            print(f"\r{number}/{len(files)}", end=end, file=sys.stderr, flush=True)
    if args.csv is not None:
        write_table(args.csv, [CSV_COLUMNS, *rows])
    noun = "file" if len(files) == 1 else "files"
    print(f"{len(files)} {noun}: {n_refused} refused, {n_unreadable} unreadable", file=sys.stderr)
    return FAILED if n_unreadable else REFUSED if n_refused else DONE
