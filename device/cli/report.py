"""`nanotox report`: a plate as one HTML file to print and to hand on."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from device.cli.kept import add_frames_options
from device.options import Commands

if TYPE_CHECKING:
    from device.journal.read import PlateRun

SOURCE = "journal.db of a station, JSON lines of nanotox grade --json, or a report"


def add_parser(commands: Commands) -> None:
    """Add `nanotox report` to the commands."""
    parser = commands.add_parser(
        "report",
        help="write the report of a plate",
        description="Write the report of a finished plate: plate map, samples, dose-response, controls, "
        "wells, image quality, method, and all that is needed to judge it again. For research use only.",
        epilog="Example: nanotox report journal.db --out plate.html --frames frames/",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=SOURCE)
    parser.add_argument("--out", type=Path, required=True, metavar="F.html", help="file to write")
    parser.add_argument("--plate", metavar="NAME", help="which plate; default: the newest one")
    add_frames_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report; fields whose kept frame cannot be shown are named on stderr."""
    from device.cli import DONE, installed_version
    from device.journal.read import find_plate, is_complete
    from device.messages.sealing import rfc3339
    from device.plates import write_whole
    from device.report import render_report

    plate = find_plate(args.source, args.plate)
    if not all(map(is_complete, (*plate.verdicts, plate.plate))):
        print(f"{args.source} leaves lists out; expected the journal to judge again from", file=sys.stderr)
    text = render_report(
        plate.plate,
        plate.verdicts,
        plate.readings,
        {} if args.frames is None else _draw(args, plate),
        version=installed_version(),
        written_at=rfc3339(datetime.now(UTC)),
    )
    write_whole(args.out, [text])
    print(f"plate {plate.plate['plate']}: {args.out}", file=sys.stderr)
    return DONE


def _draw(args: argparse.Namespace, plate: "PlateRun") -> dict[str, bytes]:
    """Return the overlay of one field a well, from its kept frame read again."""
    from device.analysis.overlay import overlay_jpeg
    from device.cli.kept import KeptFrames
    from device.errors import ImageError
    from device.report import pick_fields

    pictures: dict[str, bytes] = {}
    kept = KeptFrames(args)
    for well, values in pick_fields(plate.verdicts, plate.readings).items():
        try:
            image, reading = kept.read(values)
        except ImageError as error:
            fault = str(error)
        else:
            if (reading.n_live, reading.n_dead) == (values["n_live"], values["n_dead"]):
                pictures[well] = overlay_jpeg(image, reading)
                continue
            fault = f"model and settings of {args.config} count other cells than the reading says"
        print(f"well {well}, field {values['field']} is not shown: {fault}", file=sys.stderr)
    return pictures
