"""`nanotox run`: the station."""

import argparse
import logging
import signal
import threading
from types import FrameType

from device.options import Commands, add_config_option


def add_parser(commands: Commands) -> None:
    """Add `nanotox run` to the commands."""
    parser = commands.add_parser(
        "run",
        help="run the station: camera to verdicts on MQTT",
        description="Run the station until its camera ends or it is told to stop (Ctrl-C, SIGTERM). "
        "Logs go to stderr, one line each.",
        epilog="Example: nanotox run --config /etc/nanotox/station.toml",
    )
    add_config_option(parser)
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning"), default="info", help="default: info"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the station; 0 when its camera ended and all was sent, or when it was told to stop."""
    # Signals are taken before the imports, so that even a stop in the first second is an orderly one.
    stop = threading.Event()

    def stop_once(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # the second one ends it at once

    before = {number: signal.signal(number, stop_once) for number in (signal.SIGTERM, signal.SIGINT)}
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=args.log_level.upper(), handlers=[handler], force=True)
    try:
        from device.cli import installed_version
        from device.station import Station, load_config

        while not stop.is_set():
            config = load_config(args.config)
            if stop.is_set() or not Station(config, version=installed_version()).run(stop):
                break
    finally:
        logging.getLogger().removeHandler(handler)
        for number, previous in before.items():
            signal.signal(number, previous)
    return 0


class _OneLine(logging.Formatter):
    """One record, one line: journald and `grep` see a traceback as part of its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its line breaks escaped."""
        return super().format(record).replace("\n", "\\n")
