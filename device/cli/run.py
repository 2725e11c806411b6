"""`nanotox run`: the station."""

import argparse
import gc
import logging
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING

from device.options import Commands, add_config_option

if TYPE_CHECKING:
    from device.station import Station
    from device.station.safe_mode import Start

log = logging.getLogger(__name__)

_FULL_S = 1.0
"""Wait before a full disk is tried again."""


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
    gc.disable()  # what is imported and loaded stays
    try:
        from device.station import begun, load_config

        starts_anew = True
        while starts_anew and not stop.is_set():
            with begun(load_config(args.config)) as start:
                station = _open_station(start, stop)
                starts_anew = station is not None and station.run(stop)
    finally:
        gc.enable()
        gc.unfreeze()
        logging.getLogger().removeHandler(handler)
        for number, previous in before.items():
            signal.signal(number, previous)
    return 0


def _open_station(start: "Start", stop: threading.Event) -> "Station | None":
    """Return the station; on a disk that is full it waits for room, None if it is told to stop before."""
    from device.cli import installed_version
    from device.journal import StorageFullError
    from device.service import notify_systemd
    from device.station import Station, open_instruments

    tools, is_told = open_instruments(start.config, start.activations), False
    if not gc.isenabled():  # the first time, before there is any garbage
        gc.freeze()
        gc.enable()
    while not stop.is_set():
        try:
            return Station(start.config, version=installed_version(), instruments=tools, start=start)
        except StorageFullError as error:
            if not is_told:
                log.error("STORAGE_FULL: %s; the station begins as soon as there is room", error)  # noqa: TRY400 - a state, no defect
                notify_systemd("READY=1", "STATUS=STORAGE_FULL: waits for room on the journal's disk")
                is_told = True
            notify_systemd("WATCHDOG=1")
            stop.wait(_FULL_S)
    return None


class _OneLine(logging.Formatter):
    """One record, one line: journald and `grep` see a traceback as part of its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its line breaks escaped."""
        return super().format(record).replace("\n", "\\n")
