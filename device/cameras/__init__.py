"""Cameras: one module a kind, found by its name.

To add a kind, write `device/cameras/<kind>.py` with two names, and nothing else changes:

`Settings`
    A frozen dataclass with the options of `[camera]` in station.toml besides `kind`. Types: bool, int, float,
    str, Path (relative to the folder of station.toml), Literal, tuple[..., ...] of these, or `X | None`. A
    limit is stated once, as `field(default=10.0, metadata={"range": (0.1, 60.0)})`, both ends allowed. A
    field without a default is mandatory. `__post_init__` may raise ValueError for faults that concern several
    fields. Each field carries a docstring of one line: meaning, unit, range.
`open_camera(settings: Settings, setup: Setup) -> Camera`
    Opens the source, or raises CameraError saying what was found, what was expected and what to do.

Third-party imports stand at the top of the kind's module, or inside `open_camera` where `config check` shall
work without the library.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from device.config import import_kind, list_kinds
from device.records import Assay, Frame, Modality, PlateWell, Reason, Scale


@dataclass(frozen=True, slots=True)
class LostFrame:
    """A field that should have given a frame and did not: the station makes an `invalid` reading of it."""

    reason: Reason
    """UNREADABLE_IMAGE for a damaged file, CAMERA_LOST for a device that failed once."""
    detail: str
    """What was found, for the log."""
    taken_at: datetime
    """When it was tried, UTC."""
    source: str
    sequence: int
    """Runs on with that of the frames."""
    well: str | None = None
    field: int | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """What every camera is told about the station, whatever its kind."""

    scale: Scale | None
    """Scale that the camera writes into its frames."""
    assay: Assay = "adherent"
    modality: Modality = "phase"
    wells: tuple[PlateWell, ...] = ()
    """Wells of the plate, in order; empty where no plate is defined."""


class Camera(Protocol):
    """A source of frames, opened in the station's main thread."""

    live: bool
    """True: frames come whether or not they are read; when the analysis is late the newest wins and drops are
    counted. False: the source waits, and every frame gives exactly one reading."""

    def frames(self) -> Iterator[Frame | LostFrame]:
        """Yield frames with `sequence` rising from 0; a finite source ends, a live one goes on until `close`.

        Called once, from the capture thread. Raises CameraError when the source is gone for good or delivers
        nothing within its own time limit; the station then opens the camera again if it is live. A single bad
        frame is a LostFrame, not an error.
        """
        ...

    def close(self) -> None:
        """Let go of the source; `frames` ends soon after. Any thread may call this, and more than once."""
        ...


def camera_kinds() -> tuple[str, ...]:
    """Return the names of all kinds, sorted, without importing one."""
    return list_kinds(__name__)


def camera_settings(kind: str) -> type[Any]:
    """Return the settings record of `kind`; ConfigError lists the kinds if there is no such one."""
    settings: type[Any] = import_kind(__name__, kind).Settings
    return settings


def is_live(settings: object) -> bool:
    """Return whether the camera of a settings record is live; kinds that end say `live = False` there."""
    return bool(getattr(settings, "live", True))


def open_camera(kind: str, settings: object, setup: Setup) -> Camera:
    """Open the camera `kind` with its own settings record; CameraError if its source cannot be opened."""
    camera: Camera = import_kind(__name__, kind).open_camera(settings, setup)
    return camera
