"""`nanotox collect`: every record of every station in one file, none lost and none twice."""

import argparse
import logging
import signal
import sys
import threading
import time
from pathlib import Path

from device.cli.broker import add_broker_options, add_db_option, broker_settings
from device.cli.collected import add_parsers
from device.options import Commands, positive_number

_QUIET_S = 10.0
"""Least time between two lines of progress where they are no terminal's."""


def add_parser(commands: Commands) -> None:
    """Add `nanotox collect` to the commands."""
    parser = commands.add_parser(
        "collect",
        help="keep every record of all stations in one SQLite file",
        description="Subscribe to all stations of a broker and keep each record once, in the table `record` "
        "of a SQLite file, until Ctrl-C or SIGTERM. What the broker lost is asked for at the station. It may "
        "be killed at any moment and goes on where it was. export and history read such a file, also beside "
        "a collector that runs. For research use only.",
        epilog="Example: nanotox collect --broker mqtt://localhost --db lab.db",
    )
    add_broker_options(parser, default="")
    add_db_option(parser, default=Path("collector.db"))
    parser.add_argument(
        "--keep-days", type=positive_number, metavar="N", help="let records go N days after they came"
    )
    parser.add_argument(
        "--keep-gb", type=positive_number, metavar="N", help="let the oldest go while the file holds more"
    )
    parser.set_defaults(run=run)
    add_parsers(parser.add_subparsers(metavar="[export | history]"))


def run(args: argparse.Namespace) -> int:
    """Collect until a signal; 0 then."""
    from device.errors import ConfigError

    if not args.broker:
        raise ConfigError("--broker is missing; expected mqtt://HOST, or `export` or `history` of a file")
    stop = threading.Event()
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    handler = logging.StreamHandler()
    logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", handlers=[handler], force=True)
    try:
        from device.collector import Collector
        from device.collector.retention import Keep

        keep = Keep(args.keep_days, args.keep_gb and args.keep_gb * 1e9)
        Collector(args.db, broker_settings(args), tell=_Progress(), keep=keep).run(stop)
    finally:
        logging.getLogger().removeHandler(handler)
        for number, previous in before.items():
            signal.signal(number, previous)
    return 0


class _Progress:
    """One line on stderr: rewritten in place on a terminal, elsewhere a new one now and then."""

    def __init__(self) -> None:
        self._next_at, self._told = 0.0, ""

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if line == self._told:
            return
        if sys.stderr.isatty():
            self._told = line
            print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)
        elif now >= self._next_at:
            print(line, file=sys.stderr, flush=True)
            self._told, self._next_at = line, now + _QUIET_S
