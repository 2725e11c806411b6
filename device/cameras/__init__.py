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

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, cast

from device.errors import CameraError, ConfigError
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
    """A source of frames.

    The station opens one camera in its main thread and then calls `frames` once, in its capture thread. A
    camera of a finite source (files, a phantom plate) ends its iterator; a live one goes on until `close`.
    """

    live: bool
    """True: frames come whether or not they are read; when the analysis is late the newest wins and drops are
    counted. False: the source waits, and every frame gives exactly one reading."""

    def frames(self) -> Iterator[Frame | LostFrame]:
        """Yield frames with `sequence` rising from 0.

        Called once, from the capture thread. Raises CameraError when the source is gone for good or delivers
        nothing within its own time limit; the station then opens the camera again if it is live. A single bad
        frame is a LostFrame, not an error.
        """
        ...

    def close(self) -> None:
        """Let go of the source; `frames` ends soon after. Any thread may call this, and more than once."""
        ...


class _Kind(Protocol):
    Settings: type[Any]

    def open_camera(self, settings: Any, setup: Setup) -> Camera: ...  # noqa: ANN401 - each kind has its own


def camera_kinds() -> tuple[str, ...]:
    """Return the names of all kinds, sorted, without importing one."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def camera_settings(kind: str) -> type[Any]:
    """Return the settings record of `kind`.

    Raises
    ------
    ConfigError
        If there is no such kind; the message lists those there are.
    """
    return _kind(kind).Settings


def open_camera(kind: str, settings: object, setup: Setup) -> Camera:
    """Open the camera `kind` with its own settings record.

    Raises
    ------
    ConfigError
        If there is no such kind.
    CameraError
        If the source cannot be opened.
    """
    return _kind(kind).open_camera(settings, setup)


def _kind(kind: str) -> _Kind:
    kinds = camera_kinds()
    if kind not in kinds:
        raise ConfigError(f"camera.kind is {kind!r}; expected one of {', '.join(kinds)}")
    try:
        return cast("_Kind", importlib.import_module(f"{__name__}.{kind}"))
    except ModuleNotFoundError as error:
        message = (
            f"camera kind {kind!r} needs the Python module {error.name!r}, which is not installed; install it"
        )
        raise CameraError(message) from error
