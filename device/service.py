"""What systemd wants to hear of the station, what the machine can tell of clock and strain, and its light."""

import contextlib
import ctypes
import math
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from device.records import ClockState

_NOTIFY_S = 0.2
"""A systemd that does not read for so long is passed over: no loop may hang on it."""
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_TIMESYNC = Path("/run/systemd/timesync/synchronized")


def notify_systemd(*assignments: str) -> bool:
    """Tell systemd assignments such as `READY=1`; return whether anybody listens.

    Without NOTIFY_SOCKET in the environment (a station started by hand) nothing happens. A socket that cannot
    be reached is no reason to stop measuring.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # abstract socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.settimeout(_NOTIFY_S)
            notify.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


class Watchdog:
    """Tells systemd that the station lives, but only on proof that every one of `loops` still turns.

    A loop is a thread of that name, which calls `beat` at every turn, those of idle waiting included. Who
    supervises the loops calls `feed` often. Without WATCHDOG_USEC in the environment nothing is told.
    """

    def __init__(self, loops: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._loops, self._clock = frozenset(loops), clock
        self._beaten_at = dict.fromkeys(self._loops, -math.inf)
        is_mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # systemd asks for twice as often as it needs.
        self._period_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6 if is_mine else 0.0
        self._began = self._fed_at = clock()

    def beat(self) -> None:
        """Note that the thread that calls this turns."""
        self._beaten_at[threading.current_thread().name] = self._clock()

    def late(self, limit_s: float) -> tuple[str, ...]:
        """Return the loops that have not beaten for `limit_s` seconds, nor in the first so many."""
        oldest = self._clock() - limit_s
        if self._began > oldest:
            return ()
        return tuple(loop for loop in sorted(self._loops) if self._beaten_at[loop] < oldest)

    def feed(self) -> bool:
        """Tell `WATCHDOG=1` if it is due and each loop has beaten since the last time; return whether."""
        is_due = self._period_s > 0 and self._clock() - self._fed_at >= self._period_s
        if not is_due or any(self._beaten_at[loop] < self._fed_at for loop in self._loops):
            return False
        self._fed_at = self._clock()
        return notify_systemd("WATCHDOG=1")


def clock_state() -> ClockState:
    """Return whether a time server has set the clock, as the kernel or systemd-timesyncd know it.

    A Pi has no clock of its own: until the network answers, its time is a guess.
    """
    if _TIMESYNC.exists():
        return "synced"
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return "unknown"
    # struct timex is 208 bytes at most; zeroed, its `modes` asks for nothing but the state.
    state = adjtimex(ctypes.create_string_buffer(512))
    if state < 0:
        return "unknown"
    return "unsynced" if state == _TIME_ERROR else "synced"


class Machine(NamedTuple):
    """How the machine is; None for what it does not tell."""

    disk_free_bytes: int | None
    cpu_celsius: float | None
    throttled: tuple[str, ...] | None
    """UNDER_VOLTAGE, THROTTLED, both or neither, now."""
    rss_bytes: int | None
    """Resident memory of this process."""


def read_machine(folder: Path, root: Path = Path("/")) -> Machine:
    """Return how the machine is, with the room on the disk of `folder`; `root` is where its files lie."""
    try:
        free: int | None = shutil.disk_usage(folder).free
    except OSError:
        free = None
    zones = (root / "sys/class/thermal").glob("thermal_zone*")
    heats = [_number(zone / "temp") for zone in zones if "cpu" in _text(zone / "type").lower()]
    hottest = max((heat for heat in heats if heat is not None), default=None)  # thousandths of a degree
    # The firmware of a Raspberry Pi: bit 0 too little voltage; 1 frequency capped, 2 throttled, 3 too warm.
    bits = _number(root / "sys/devices/platform/soc/soc:firmware/get_throttled", base=16)
    causes = (("UNDER_VOLTAGE", 0b0001), ("THROTTLED", 0b1110))
    throttled = None if bits is None else tuple(code for code, mask in causes if bits & mask)
    pages = _text(root / "proc/self/statm").split()
    rss = int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else None
    return Machine(free, None if hottest is None else hottest / 1000, throttled, rss)


def blink(seconds: float, root: Path = Path("/")) -> str:
    """Let the light of a Raspberry Pi blink for some seconds; return its name.

    OSError says why none can; a hardened unit does not let the station write there.
    """
    for name in ("ACT", "led0"):
        trigger = root / "sys/class/leds" / name / "trigger"
        if not trigger.exists():
            continue
        before = re.search(r"\[(.+?)\]", trigger.read_text(encoding="ascii"))
        trigger.write_text("timer", encoding="ascii")
        if before is not None and before[1] != "timer":  # else it blinks already
            ending = threading.Timer(seconds, _put_back, (trigger, before[1]))
            ending.daemon = True
            ending.start()
        return name
    raise OSError("this machine has no light called ACT or led0")


def _put_back(trigger: Path, before: str) -> None:
    with contextlib.suppress(OSError):
        trigger.write_text(before, encoding="ascii")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(file: Path, *, base: int = 10) -> int | None:
    try:
        return int(_text(file), base)
    except ValueError:
        return None
