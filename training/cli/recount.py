"""`nanotox-train recount`: an archive of plates, counted and graded again."""

import argparse
from pathlib import Path

from device.options import add_analysis_options
from training.cli import DONE, FAILED, REFUSED, Commands, show_progress


def add_parser(commands: Commands) -> None:
    """Add `recount`."""
    parser = commands.add_parser(
        "recount",
        help="count and grade an archive of plates again",
        description="Read every well of one or many plates again with a model, and judge them as `nanotox "
        "grade` does. Finished wells are kept in RUN: the same command goes on where it ended. A cluster's "
        "workers need nanotox and must see the images under the same paths.",
        epilog="Example: nanotox-train recount archive/ --plate plate.csv --model phase-cell",
        allow_abbrev=False,
    )
    parser.add_argument(
        "archive", type=Path, metavar="ARCHIVE", help="folder of a plate's images, or of a folder a plate"
    )
    parser.add_argument(
        "--plate",
        type=Path,
        required=True,
        metavar="plate.csv",
        help="wells and their files; where there is no such file, its name in ARCHIVE or each folder in it",
    )
    add_analysis_options(parser, workers="processes of this machine (default: one a core)")
    parser.add_argument("--rule", metavar="R|FILE.toml", help="what decides; default: by assay")
    parser.add_argument("--out", type=Path, default=Path("recount"), metavar="RUN", help="default: recount")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask cluster that does it instead")
    parser.set_defaults(run=run, workers=0)


def run(args: argparse.Namespace) -> int:
    """Recount, print a line a plate; return 1 if a file could not be read, 3 if one was refused, else 0."""
    from device.errors import ConfigError
    from training.recount import RESULTS_FILE, recount

    if args.model is None:
        raise ConfigError("--model is missing; expected the model that counts, such as phase-cell")
    results = recount(
        args.archive, args.plate, args.out, args, workers=args.workers, scheduler=args.scheduler
    )
    faults = [
        (f"{plate['plate']}: {file}", fault) for plate in results["plates"] for file, fault in plate["faults"]
    ]
    for file, fault in faults:
        show_progress(f"{file}: {fault}")
    for plate in results["plates"]:
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in plate["outcomes"].items())
        controls = "valid" if plate["controls_valid"] else f"not valid ({', '.join(plate['reasons'])})"
        print(f"{plate['plate']}: wells {outcomes}; controls {controls}; decision {plate['decision_sha256']}")
    print(args.out / RESULTS_FILE)
    if any(fault.startswith("unreadable") for _, fault in faults):
        return FAILED
    return REFUSED if faults else DONE
