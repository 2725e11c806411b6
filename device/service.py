"""What systemd wants to hear of the station, and what the machine can tell of its clock."""

import ctypes
import os
import socket
from pathlib import Path

from device.messages import ClockState

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
            notify.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True


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
