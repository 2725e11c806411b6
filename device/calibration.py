"""Calibrations of a station: how they are measured, and the records of when, by whom, from which images."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device.analysis.light import measure_light
from device.analysis.pyramid import build_pyramid
from device.analysis.rulings import Pattern, join_periods, measure_period
from device.config import Config
from device.errors import CameraError, ConfigError, ImageError
from device.messages.sealing import rfc3339
from device.model_card.strict import read_record, write_record
from device.records import Frame, Scale

Kind = Literal["pixel_size", "flat_field"]

KINDS: tuple[Kind, ...] = ("pixel_size", "flat_field")
_AGREES = 0.01
"""station.toml and the record mean the same scale if they differ by less, relative: another objective or a
binned camera differs by a quarter at least, a micrometer read twice by a thousandth."""
_NO_FRAME = "the camera gave no frame; expected some, see nanotox doctor"


@dataclass(frozen=True, slots=True)
class Calibration:
    """One calibration; its value and uncertainty are micrometers a pixel, or the flatness of the light."""

    id: str
    """Such as `pixel_size-20260304T050607Z`."""
    kind: Kind
    at: str
    """RFC 3339, UTC."""
    operator: str
    method: str
    """How it was measured, in words."""
    value: float
    uncertainty: float
    """Standard uncertainty of the value."""
    images_sha256: tuple[str, ...]
    """Of the files, or of the gray pixels of the camera's frames."""


class Shown(NamedTuple):
    """An image of what is measured."""

    name: str
    image: NDArray[np.uint8]
    sha256: str
    """Of its file, or of the gray pixels of a camera's frame."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What images give: a calibration that nobody has signed yet, under its field names."""

    kind: Kind
    value: float
    uncertainty: float
    method: str
    images_sha256: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calibrations:
    """All calibrations of a station, the newest last."""

    schema: Literal["calibration/1"]
    records: tuple[Calibration, ...] = ()

    def newest(self, kind: Kind) -> Calibration | None:
        """Return the newest of a kind, the one that holds."""
        return next((record for record in reversed(self.records) if record.kind == kind), None)


def calibration_file(config: Config) -> Path:
    """Return where a station keeps its calibrations: `journal.calibration.json` beside `journal.db`."""
    return config.journal.path.with_suffix(".calibration.json")


def read_calibrations(config: Config) -> Calibrations:
    """Return a station's calibrations, none where there is no file; ConfigError if it is damaged."""
    advice = "expected what nanotox calibrate wrote; move it away and calibrate again"
    return read_record(Calibrations, calibration_file(config), advice) or Calibrations("calibration/1")


def show_frame(frame: Frame) -> Shown:
    """Return the image of a camera's frame."""
    return Shown(frame.source, frame.image, hashlib.sha256(frame.image.tobytes()).hexdigest())


def measure_pixel_size(images: Iterable[Shown], period_um: float, pattern: Pattern) -> Measurement:
    """Return the micrometers a pixel shows, from images of a ruling whose lines are `period_um` apart.

    ImageError if one shows no such ruling, CameraError if there is no image.
    """
    periods, sums = [], []
    for name, image, sha256 in images:
        try:
            periods.append(measure_period(image, pattern))
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from error
        sums.append(sha256)
    if not periods:
        raise CameraError(_NO_FRAME)
    found = join_periods(periods)
    value = period_um / found.period_px
    method = (
        f"{pattern} {period_um:g} um apart, {found.period_px:.3f} px by Fourier phase, "
        f"{found.n_periods:.0f} periods at {found.angle_deg:.1f} degrees"
    )
    uncertainty = value * found.uncertainty_px / found.period_px
    return Measurement("pixel_size", value, uncertainty, method, tuple(sums))


def measure_flat_field(images: Iterable[Shown], um_per_px: float) -> Measurement:
    """Return how even the light is, from empty fields: (p95 - p5) / p50 of their mean.

    ImageError if they differ in size or are black, CameraError if there is none.
    """
    seen = list(images)
    if not seen:
        raise CameraError(_NO_FRAME)
    first = seen[0].image
    for name, image, _ in seen:
        if image.shape != first.shape:
            raise ImageError(f"{name} is {image.shape}; expected all of one size, {first.shape}")
    mean = np.rint(np.mean([shown.image for shown in seen], axis=0)).astype(np.uint8)
    fields = (mean, *(shown.image for shown in seen))
    flatness = [measure_light(build_pyramid(image, um_per_px)).flatness for image in fields]
    if None in flatness:
        raise ImageError("the fields are black; expected empty fields with the lamp on")
    value, *each = [float(one or 0.0) for one in flatness]
    spread = float(np.std(each, ddof=1)) / len(each) ** 0.5 if len(each) > 1 else 0.0
    method = f"(p95 - p5) / p50 of the mean of {len(each)} empty fields"
    uncertainty = max(spread, 0.5 / max(float(mean.mean()), 1.0))
    return Measurement("flat_field", value, uncertainty, method, tuple(shown.sha256 for shown in seen))


def add_calibration(config: Config, found: Measurement, *, operator: str) -> Calibration:
    """Keep what was measured as a calibration of now, and return it; ConfigError as the reader."""
    known, now = read_calibrations(config), datetime.now(UTC)
    new = Calibration(
        f"{found.kind}-{now:%Y%m%dT%H%M%SZ}",
        found.kind,
        rfc3339(now),
        operator,
        found.method,
        found.value,
        found.uncertainty,
        found.images_sha256,
    )
    write_record(calibration_file(config), replace(known, records=(*known.records, new)))
    return new


def station_scale(config: Config) -> Scale:
    """Return the one scale of a station's frames: of its newest calibration, else of station.toml.

    ConfigError where the two contradict each other, in size by more than 1 %, or in its source.
    """
    stated, record = config.scale, read_calibrations(config).newest("pixel_size")
    if record is None:
        return Scale(stated.um_per_px, stated.source)
    check_scale(config, record.value, f"calibration {record.id}")
    return Scale(record.value, "measured")


def check_scale(config: Config, value: float, what: str) -> None:
    """Raise ConfigError if station.toml contradicts that `what` measured `value` um a pixel."""
    stated, found = config.scale, ""
    if abs(stated.um_per_px / value - 1) > _AGREES:
        found = f"scale.um_per_px is {stated.um_per_px:g}"
    elif stated.source != "measured":
        found = f"scale.source is {stated.source!r}"
    if found:
        raise ConfigError(
            f"{found}, but {what} measured {value:.4g}; expected one scale: write "
            f'um_per_px = {value:.4g} and source = "measured", or calibrate again ({config.path.name})'
        )


def in_use(config: Config) -> tuple[Calibration, ...]:
    """Return the calibrations that a station's results refer to, the newest of each kind."""
    known = read_calibrations(config)
    return tuple(record for kind in KINDS if (record := known.newest(kind)) is not None)


def outdated(config: Config, now: datetime) -> list[str]:
    """Return a sentence for each calibration in use that is older at `now` than station.toml allows."""
    limit, newest = config.scale.calibration_days, in_use(config)
    ages = {
        record.id: (now - datetime.fromisoformat(record.at)).total_seconds() / 86_400 for record in newest
    }
    return [
        f"calibration {name} is {age:.0f} days old, over {limit}" for name, age in ages.items() if age > limit
    ]
