"""What a station says of itself: how it is, what is wrong, and the verdict that holds."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

ClockState = Literal["synced", "unsynced", "unknown"]


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition that was raised or is cleared: each is told once, however often it is met meanwhile."""

    code: str
    """Stable code, such as CAMERA_LOST."""
    raised: bool
    """True where it began, false where it is over; a new `boot_id` begins with none raised."""
    text: str
    """What was found and what to do."""
    since: datetime
    """When it was raised, UTC, by the clock of then."""


@dataclass(frozen=True, slots=True)
class Health:
    """How a station is; numbers count from its start."""

    schema: str
    boot_id: str
    ts: datetime
    clock_state: ClockState
    alerts: tuple[str, ...]
    """Codes of the conditions that are raised now, the oldest first."""
    n_unsent: int
    """Records that the broker has not acknowledged."""
    oldest_unsent_s: float | None
    """Age of the oldest of them, s; null without one."""
    n_captured: int
    """Frames that the camera gave, and lost ones in their place: always `n_analyzed` + `n_dropped` +
    `n_waiting`."""
    n_analyzed: int
    """Frames of these that were analyzed."""
    n_dropped: int
    """Frames of these that were passed over: the analysis was late, the plate another, the station
    ended."""
    n_waiting: int
    """Frames of these that are analyzed now or wait for it; 0 at the end."""
    n_camera_reopens: int
    n_reconnects: int
    disk_free_bytes: int | None
    """Room on the disk of the journal; null where it cannot be told, as all below."""
    cpu_celsius: float | None
    """Temperature of the processor, degrees Celsius."""
    throttled: tuple[str, ...] | None
    """What slows the processor now: UNDER_VOLTAGE, THROTTLED or both; null where nothing tells."""
    rss_bytes: int | None
    """Resident memory of the station."""
    research_use_only: bool = True


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest verdict for those who come late; it vanishes instead of going stale."""

    schema: str
    valid_until: datetime
    """Past this it says nothing about the culture, UTC."""
    verdict: dict[str, Any]
    """The record as it was published on `verdict`."""
    research_use_only: bool = True
