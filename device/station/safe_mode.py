"""Safe mode: after three crashes within ten minutes a station starts with what it last ran well with.

Beside the journal, `journal.starts.json` notes whether the station ended in order, when it did not, and the
station.toml and models with which it last ran for ten minutes. Only crashes since the machine itself was
started count: a power cut is none.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from device.config import Config
from device.errors import ConfigError, StationError
from device.journal.file import StorageFullError, lock
from device.model_card.strict import read_record, write_record
from device.station.activation import Activation, is_kept, read_switch
from device.station.instruments import load_config

log = logging.getLogger(__name__)

HEALTHY_S = 600.0
"""Crashes within this time count together; a station that runs for so long has proven what it runs with."""
_CRASHES = 3
_MACHINE_FILE = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Proven:
    """What a station ran well with."""

    station_toml: str
    activations: tuple[Activation, ...]


@dataclass(frozen=True, slots=True)
class Starts:
    """What a station knows of its starts."""

    schema: Literal["starts/1"] = "starts/1"
    machine: str = ""
    """Identity of the machine's own start."""
    is_running: bool = False
    """True until the station ends in order."""
    crashes_s: tuple[float, ...] = ()
    """When the station was started again after each, s since the machine was: no clock is set back in it."""
    safe_mode: str | None = None
    """What the newest start took instead, in words; None where it took what it was told."""
    proven: Proven | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """What a station starts with, and why if that is not what it was told."""

    config: Config
    activations: tuple[Activation, ...]
    safe_mode: str | None = None
    prove: Callable[[], bool] = lambda: True
    """Hears that the station has run well for `HEALTHY_S`; returns whether that was with what it was told."""


def starts_file(config: Config) -> Path:
    """Return where a station notes its starts: `journal.starts.json` beside `journal.db`."""
    return config.journal.path.with_suffix(".starts.json")


def read_starts(config: Config) -> Starts:
    """Return what a station knows of its starts, nothing where the file is missing or damaged."""
    try:
        return read_record(Starts, starts_file(config), "it is made anew") or Starts()
    except ConfigError as error:
        log.warning("%s", error.in_one_line())
        return Starts()


@contextlib.contextmanager
def begun(
    config: Config, *, clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
) -> Iterator[Start]:
    """Note a start and give what to start with; what leaves the block but in order is a crash.

    In order are an end without an error and a StationError that says what to mend. JournalError if another
    station runs on the journal.
    """
    with contextlib.suppress(StorageFullError):
        lock(config.journal.path).close()
    known, machine, now = read_starts(config), _machine(), clock()
    crashes = () if known.machine != machine else known.crashes_s + (now,) * known.is_running
    crashes = tuple(at for at in crashes if now - at < HEALTHY_S)
    start = Start(config, read_switch(config).activations)
    told = start.config, start.activations
    if len(crashes) >= _CRASHES:
        start = _safe(start, known.proven, len(crashes))
        log.error("SAFE_MODE: %s", start.safe_mode)
    known = replace(
        known, machine=machine, is_running=True, crashes_s=crashes[-9:], safe_mode=start.safe_mode
    )
    _write(config, known)
    proven = Proven(start.config.text, start.activations)

    def prove() -> bool:
        nonlocal known
        is_told = (start.config, start.activations) == told
        seen = replace(known, proven=proven, safe_mode=None if is_told else known.safe_mode)
        if seen != known:
            known = seen
            _write(config, known)
        return is_told

    try:
        yield replace(start, prove=prove)
    except StationError as error:
        if type(error) is StationError:  # the station's own defect
            raise
        _write(config, replace(known, is_running=False, crashes_s=()))
        raise
    _write(config, replace(known, is_running=False, crashes_s=(), safe_mode=None))


def _safe(start: Start, proven: Proven | None, n_crashes: int) -> Start:
    """Return a start with what is proven; without that, with the model of before the newest activation."""
    told: list[str] = []
    config, activations = start.config, start.activations[:-1]
    if proven is not None:
        activations = tuple(item for item in proven.activations if is_kept(start.config, item))
        if proven.station_toml != config.text:
            with contextlib.suppress(ConfigError):  # of another version of nanotox
                config = load_config(config.path, proven.station_toml)
                told.append(f"the {config.path.name} of before")
    if activations != start.activations:
        told.append(f"model {activations[-1].name}" if activations else "the models without any activation")
    instead = " and ".join(told) or "what it was told: nothing has changed since it ran well"
    found = f"{n_crashes} crashes within {HEALTHY_S / 60:.0f} min; it runs with {instead}"
    return Start(config, activations, found)


def _write(config: Config, starts: Starts) -> None:
    try:
        write_record(starts_file(config), starts)
    except ConfigError as error:  # a full disk must not keep a station from its start
        log.warning("%s", error.in_one_line())


def _machine() -> str:
    try:
        return _MACHINE_FILE.read_text("ascii").strip()
    except OSError:
        return "unknown"
