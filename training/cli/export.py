"""`nanotox-train export`: the bundle that a station loads."""

import argparse
from pathlib import Path

from training.cli import DONE, FAILED, Commands, show_progress


def add_parser(commands: Commands) -> None:
    """Add `export`."""
    parser = commands.add_parser(
        "export",
        help="write a run as an int8 model bundle",
        description="Convert to full-integer int8, prove parity with the float network through the "
        "station's own classifier, and write model, card, golden inputs, checksums. Exit 1 if parity fails.",
        epilog="Example: nanotox-train export runs/ldc --out models/my-chamber --int8",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the bundle; its name is the model's name"
    )
    parser.add_argument("--int8", action="store_true", required=True, help="the only form that stations take")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export a run."""
    from training.export.bundle import export_run

    bundle = export_run(args.folder, args.out, progress=show_progress)
    print(f"{args.out}: model {bundle.name}, SHA-256 of SHA256SUMS {bundle.id.sha256}")
    return DONE if bundle.card.parity and bundle.card.parity["passed"] else FAILED
