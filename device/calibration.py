"""Calibration records of a station: what was measured, when, by whom, from which images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from device.config import Config
from device.errors import ConfigError
from device.messages import rfc3339
from device.model_card.strict import read_record, write_record
from device.records import Scale

Kind = Literal["pixel_size", "flat_field"]

KINDS: tuple[Kind, ...] = ("pixel_size", "flat_field")
_AGREES = 0.01
"""station.toml and the record mean the same scale if they differ by less, relative: another objective or a
binned camera differs by a quarter at least, a micrometer read twice by a thousandth."""


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


def add_calibration(
    config: Config,
    kind: Kind,
    value: float,
    uncertainty: float,
    *,
    operator: str,
    method: str,
    images: Sequence[str],
) -> Calibration:
    """Keep a new calibration, made now, and return it; `images` are SHA-256. ConfigError as the reader."""
    known, now = read_calibrations(config), datetime.now(UTC)
    name = f"{kind}-{now:%Y%m%dT%H%M%SZ}"
    new = Calibration(name, kind, rfc3339(now), operator, method, value, uncertainty, tuple(images))
    write_record(calibration_file(config), replace(known, records=(*known.records, new)))
    return new


def station_scale(config: Config) -> Scale:
    """Return the one scale of a station's frames: of its newest calibration, else of station.toml.

    ConfigError where the two contradict each other, in size by more than 1 %, or in its source.
    """
    stated, record = config.scale, read_calibrations(config).newest("pixel_size")
    if record is None:
        return Scale(stated.um_per_px, stated.source)
    found = ""
    if abs(stated.um_per_px / record.value - 1) > _AGREES:
        found = f"scale.um_per_px is {stated.um_per_px:g}"
    elif stated.source != "measured":
        found = f"scale.source is {stated.source!r}"
    if found:
        raise ConfigError(
            f"{found}, but calibration {record.id} measured {record.value:.4g}; expected one scale: write "
            f'um_per_px = {record.value:.4g} and source = "measured", or calibrate again ({config.path.name})'
        )
    return Scale(record.value, "measured")


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
