"""Camera kind `phantom`: rendered fields instead of a microscope, marked as simulated in every frame."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from device.analysis.phantom import Phantom, render_plate, render_well
from device.cameras import Setup
from device.errors import CameraError, ConfigError
from device.records import Frame, Scale


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[camera]` for kind `phantom`."""

    seed: int = field(default=0, metadata={"range": (0, 2**62)})
    """Same seed, same fields; 0 or more."""
    fields: int = field(default=10, metadata={"range": (0, 100_000)})
    """Fields of a well that states no number, or of the stream without a plate; 0 is a stream without end."""
    dead_fraction: float = field(default=0.1, metadata={"range": (0.0, 1.0)})
    """Share of dead cells where no plate says it, 0 to 1."""
    n_cells: int = field(default=60, metadata={"range": (0, 1000)})
    """Mean number of cells in a field, 0 to 1000."""
    rho: float = field(default=0.03, metadata={"range": (0.0, 0.9)})
    """Correlation of cells within a field, 0 to 0.9."""
    height_px: int = field(default=480, metadata={"range": (16, 8192)})
    """Rows of the image, px."""
    width_px: int = field(default=640, metadata={"range": (16, 8192)})
    """Columns of the image, px."""
    period_s: float = field(default=0.0, metadata={"range": (0.0, 3600.0)})
    """Pause after each field, s; 0 is as fast as fields are read."""
    live: bool = False
    """A stream without end, whether or not it is read, as a microscope gives: for trying plate commands."""
    varied: bool = False
    """Another microscope and dish for each field, within the ranges that the models were trained on."""


def open_camera(settings: Settings, setup: Setup) -> "PhantomCamera":
    """Return a camera that renders the plate of the station, or a stream of fields without one.

    Raises
    ------
    CameraError
        If the assay is not `adherent`: that is what the renderer draws.
    ConfigError
        If a well states no dead fraction, or the settings cannot be rendered.
    """
    if setup.assay != "adherent":
        raise CameraError(
            f"camera.kind is 'phantom' and the assay {setup.assay!r}; expected 'adherent', because the "
            "phantom renders adherent cells; use another camera for this assay"
        )
    try:
        return PhantomCamera(settings, setup)
    except ValueError as error:
        raise ConfigError(f"camera: {error}") from error


class PhantomCamera:
    """Rendered fields as frames, well after well in the order of the plate.

    Without a scale the fields have 0.65 um/px. `wait` is called with `period_s` after each field; by default
    it is a pause that `close` ends.
    """

    def __init__(
        self, settings: Settings, setup: Setup, *, wait: Callable[[float], object] | None = None
    ) -> None:
        self.live = settings.live
        self._closed = threading.Event()
        self._period_s = settings.period_s
        self._wait = wait or self._closed.wait
        self._scale = setup.scale or Scale(0.65, "measured")
        self._shots = _shots(settings, setup, self._scale.um_per_px)

    def frames(self) -> Iterator[Frame]:
        """Yield one frame for each field of the plate or stream.

        Raises
        ------
        CameraError
            If so many cells do not fit into a field.
        """
        try:
            for sequence, (well, number, phantom) in enumerate(self._shots):
                if self._closed.is_set():
                    return
                now = datetime.now(UTC)
                yield Frame(
                    phantom.image, now, "phantom", sequence, self._scale, well, number, simulated=True
                )
                if self._period_s > 0:
                    self._wait(self._period_s)
        except ValueError as error:
            raise CameraError(f"camera: {error}; lower camera.n_cells") from error

    def close(self) -> None:
        """End after the present field."""
        self._closed.set()


def _shots(
    settings: Settings, setup: Setup, um_per_px: float
) -> Iterator[tuple[str | None, int | None, Phantom]]:
    options: dict[str, Any] = {
        "seed": settings.seed,
        "modality": setup.modality,
        "rho": settings.rho,
        "n_cells": settings.n_cells,
        "size": (settings.height_px, settings.width_px),
        "um_per_px": um_per_px,
        "varied": settings.varied,
    }
    if setup.wells and not settings.live:
        plate = render_plate(setup.wells, fields=settings.fields or 10, **options)
        return ((well.well, number, phantom) for well, number, phantom in plate)
    stream = render_well(
        settings.dead_fraction, fields=None if settings.live else settings.fields or None, **options
    )
    return ((None, None, phantom) for phantom in stream)
