"""`nanotox replay`: have the running station publish records again."""

import argparse
import time

from device.options import Commands, add_config_option, positive_whole

_PAUSE_S = 1.1
"""A station takes one request a second."""
_TRIES = 30


def add_parser(commands: Commands) -> None:
    """Add `nanotox replay` to the commands."""
    parser = commands.add_parser(
        "replay",
        help="have the running station publish records again",
        description="Ask the running station to publish acknowledged records once more on their topics, for "
        "a consumer that lacks them; up to 1000 a second, behind new ones. `nanotox collect` asks by itself, "
        "and nanotox export reads a journal without a station. For research use only.",
        epilog="Example: nanotox replay --from 1200 --to 1450",
    )
    add_config_option(parser)
    parser.add_argument("--operator", metavar="NAME", help="who asks; default: the login name")
    parser.add_argument(
        "--from", dest="first", type=positive_whole, required=True, metavar="SEQ", help="first record"
    )
    parser.add_argument(
        "--to", dest="last", type=positive_whole, required=True, metavar="SEQ", help="last one"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask for one thousand after another; 0 when the station has taken the last."""
    from device.cli.plate import RefusedError, RunningStation
    from device.errors import ConfigError
    from device.messages.commands import REPLAY_ROWS

    if args.last < args.first:
        raise ConfigError(f"--to is {args.last}; expected at least --from, {args.first}")
    with RunningStation(args) as station:
        for first in range(args.first, args.last + 1, REPLAY_ROWS):
            last = min(first + REPLAY_ROWS - 1, args.last)
            for n_left in reversed(range(_TRIES)):
                try:
                    station.ask("replay", {"from_seq": first, "to_seq": last})
                    break
                except RefusedError as error:
                    if error.code != "BUSY" or not n_left:
                        raise
                time.sleep(_PAUSE_S)
            print(f"records {first} to {last} come again")
    return 0
