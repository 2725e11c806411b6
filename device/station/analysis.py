"""The analyse loop's work: a frame becomes a reading, whatever happens on the way."""

import logging
from dataclasses import replace

import numpy as np

from device.analysis.assess import assess, refuse
from device.analysis.overlay import overlay_jpeg
from device.cameras import LostFrame
from device.records import Frame, Reading, Reason
from device.station.instruments import Instruments

log = logging.getLogger(__name__)


class Analysis:
    """What a station measures with, and the faults that it has met: each is logged once."""

    def __init__(self, tools: Instruments) -> None:
        self._tools = tools
        self._known_faults: set[str] = set()

    def read(self, frame: Frame | LostFrame) -> Reading:
        """Return the reading of a frame: `invalid` for one that is lost or whose analysis fails."""
        if isinstance(frame, LostFrame):
            if frame.reason is Reason.UNREADABLE_IMAGE:  # others are told where they are found
                log.warning("%s", frame.detail)
            return self.invalid(frame, frame.reason)
        tools = self._tools
        try:
            return assess(frame, tools.classify, tools.settings, classify_field=tools.classify_field)
        except Exception as error:  # noqa: BLE001 - one frame must not end the station; the default is invalid
            self.log_once(f"analysis of {frame.source} failed", error)
            return self.invalid(frame, Reason.ANALYSIS_FAILED)

    def picture(self, frame: Frame | LostFrame, reading: Reading) -> bytes | None:
        """Return the JPEG of a reading; None for a frame that is lost or cannot be drawn."""
        if isinstance(frame, LostFrame):
            return None
        try:
            return overlay_jpeg(frame.image, reading)
        except Exception as error:  # noqa: BLE001 - a picture must not end the station
            self.log_once(f"{frame.source} cannot be drawn", error)
            return None

    def invalid(self, found: Frame | LostFrame | Reading, reason: Reason) -> Reading:
        """Return a reading in place of one that is not there or cannot be told."""
        if not isinstance(found, Frame):
            found = Frame(
                np.zeros((0, 0), np.uint8),
                found.taken_at,
                found.source,
                found.sequence,
                well=found.well,
                field=found.field,
                simulated=found.simulated,
            )
        reading = refuse(found, reason, self._tools.classify, self._tools.settings)
        second = self._tools.classify_field
        return replace(reading, field_model=second.id if second is not None else None)

    def log_once(self, what: str, error: Exception) -> None:
        """Log a defect with its traceback the first time it is met."""
        key = f"{type(error).__name__}: {error}"
        if key in self._known_faults:
            log.debug("%s again: %s", what, key)
        else:
            self._known_faults.add(key)
            log.error("%s", what, exc_info=error)
