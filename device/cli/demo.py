"""`nanotox demo`: the whole chain on one machine."""

import argparse
import signal
import sys

from device.options import Commands, positive_whole


def add_parser(commands: Commands) -> None:
    """Add `nanotox demo` to the commands."""
    parser = commands.add_parser(
        "demo",
        help="show the whole chain on a rendered plate; needs Mosquitto",
        description="Run a rendered plate (blank, controls, an item at three doses) through the real "
        "station, a real Mosquitto on loopback and a separate subscriber, and compare each verdict with the "
        "truth. Ends by itself; exit code 0 only if every verdict came back on the right side.",
        epilog="Example: nanotox demo --fields 10 --replicates 3",
    )
    parser.add_argument(
        "--fields", type=_fields, default=10, metavar="N", help="fields of a well, 5 or more (10)"
    )
    parser.add_argument(
        "--replicates",
        type=positive_whole,
        default=1,
        metavar="R",
        help="wells of a dose (1); the rule wants 3 before it judges a sample",
    )
    parser.add_argument("--keep", action="store_true", help="leave plate.csv, station.toml, journal and logs")
    parser.add_argument(
        "--dashboard",
        action="store_true",
        help="show the plate in a browser too, and stay after the verdicts until Ctrl-C",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; 1 if any verdict is missing or on the wrong side."""
    # a plain SIGTERM would leave broker and station behind
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from device.demo import run_demo

    if args.dashboard:
        from device.cli.dashboard import check_installed

        check_installed()
    faults = run_demo(
        fields=args.fields, replicates=args.replicates, keep=args.keep, dashboard=args.dashboard
    )
    for fault in faults:
        print(f"nanotox: error: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _fields(text: str) -> int:
    value = positive_whole(text)
    if value < 5:
        raise argparse.ArgumentTypeError(
            f"{text} is below 5, the fewest fields that the rule judges a well by"
        )
    return value
