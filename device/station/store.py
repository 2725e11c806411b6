"""The store loop's work: a reading and the verdict it leads to, into the journal in one transaction."""

import logging
import threading
from collections.abc import Callable

from device.analysis import plate_state
from device.analysis.plate_state import PlateState
from device.journal import Journal, StorageFullError
from device.messages import Published
from device.messages.recompute import with_decision
from device.records import Reading

log = logging.getLogger(__name__)

_FULL_S = 1.0
"""Wait before a full disk is tried again."""


class Records:
    """The plate as it grows (None where readings belong to no well), and its way into the journal.

    Used by one thread. `note_stored` is called when the journal has new rows; `note_full` hears True when the
    disk is full and False when there is room again; `stopping` ends the wait for room.
    """

    def __init__(
        self,
        journal: Journal,
        plate: PlateState | None,
        *,
        note_stored: Callable[[], None],
        note_full: Callable[[bool], None],
        stopping: threading.Event,
    ) -> None:
        self._journal, self._plate = journal, plate
        self._note_stored, self._note_full = note_stored, note_full
        self._stopping = stopping
        self.n_fields = 0
        """Readings stored since the start."""

    def take(self, reading: Reading) -> None:
        """Store a reading, and the provisional verdict of its well beside it.

        Raises
        ------
        ValueError
            If the reading cannot be told as JSON; neither the journal nor the plate has it then.
        JournalError
            If the journal cannot be written; a full disk is waited for until the station stops.
        """
        records: list[Published] = [reading]
        if self.n_fields == 0:
            # The first verdict imports scipy; the first reading does not wait for that.
            self._append(records.pop())
        plate = self._plate
        if plate is not None:
            plate, verdict = plate_state.add(plate, reading)
            records += [verdict] if verdict is not None else []
        if records:
            self._append(*records)
        self._plate = plate
        self.n_fields += 1

    def finish(self) -> None:
        """Store the final verdicts and the report of the plate, if there is one, in one transaction."""
        if self._plate is None or self._plate.rolling:
            return
        verdicts, report = plate_state.finish(self._plate)
        self._append(*verdicts, with_decision(verdicts, report))

    def _append(self, *records: Published) -> None:
        is_full = False
        while True:
            try:
                self._journal.append(*records)
            except StorageFullError as error:
                if not is_full:
                    log.error("%s; nothing is published until then", error)  # noqa: TRY400 - a state, no defect
                    is_full = True
                    self._note_full(True)
                if self._stopping.wait(_FULL_S):
                    raise
            else:
                break
        if is_full:
            self._note_full(False)
        self._note_stored()
