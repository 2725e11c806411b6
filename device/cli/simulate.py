"""`nanotox simulate`: stations for a dashboard before there is hardware."""

import argparse
import signal
import tempfile
import threading
from pathlib import Path

from device.cli.broker import add_broker_options, broker_settings
from device.options import Commands, positive_number, positive_whole

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
_FILES = 5
"""Of each station: its journal with log, index and lock, and its socket."""


def add_parser(commands: Commands) -> None:
    """Add `nanotox simulate` to the commands."""
    parser = commands.add_parser(
        "simulate",
        help="many simulated stations on a broker",
        description="Run stations simulated/s0, s1, ... in this process until Ctrl-C: what they publish is "
        "what stations publish, marked as simulated, from a few rendered fields. Their journals lie in "
        "memory and go with them; replay is the one command that they carry out. For research use only.",
        epilog="Example: nanotox simulate --stations 5 --rate 0.2 --broker mqtt://localhost",
    )
    parser.add_argument("--stations", type=positive_whole, required=True, metavar="N", help="how many")
    parser.add_argument(
        "--rate",
        type=positive_number,
        required=True,
        metavar="HZ",
        help="fields a second of each station; a field is a reading and a verdict",
    )
    parser.add_argument(
        "--fields", type=positive_whole, metavar="N", help="end after so many fields of each station"
    )
    add_broker_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate until a signal or the last field; 0 if all was sent."""
    stop = threading.Event()
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        from device.cli import DONE, installed_version
        from device.errors import PublishError
        from device.station.simulated import simulate

        settings = broker_settings(args)
        _allow_files(args.stations)
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
            n_stored, n_unsent = simulate(
                Path(folder),
                settings,
                stop,
                stations=args.stations,
                rate_hz=args.rate,
                fields=args.fields,
                version=installed_version(),
            )
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
    print(f"{n_stored} records of {args.stations} stations, {n_unsent} unsent")
    if n_unsent:
        raise PublishError(f"{n_unsent} records unsent; expected a broker at {args.broker}")
    return DONE


def _allow_files(n_stations: int) -> None:
    """Let this process open the files of so many stations; ConfigError if the system does not let it."""
    import resource

    from device.errors import ConfigError

    wanted = _FILES * n_stations + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ConfigError(
            f"this process may open {hard} files; expected {wanted} for {n_stations} stations: "
            f"take fewer, or raise the limit with ulimit -Hn {wanted} as root"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
