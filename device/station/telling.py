"""What a station does now: its state, told anew whenever it changes."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from device.messages import State
from device.station.buffer import Flow
from device.station.health import Watch
from device.station.store import Records


class Teller:
    """The state of a station, idle at first. Every method may be called from any thread.

    `watch` keeps its conditions, `flow` tells what became of the frames, `records` gives the plate and its
    fields; without a plate a station that `waits` is idle. `send` publishes a state that has changed.
    """

    def __init__(
        self,
        boot_id: str,
        watch: Watch,
        *,
        flow: Callable[[], Flow],
        records: Callable[[], Records],
        waits: bool,
        send: Callable[[State], None],
    ) -> None:
        self.state = State("state/1", boot_id, datetime.now(UTC), "idle", None)
        self._watch, self._flow, self._records = watch, flow, records
        self._waits, self._send = waits, send
        self._mutex = threading.Lock()

    def say(self, **changes: object) -> None:
        """Publish a change of the state, if it is one."""
        with self._mutex:
            now = {
                "n_fields": self._records().n_fields,
                "n_dropped": self._flow().n_dropped,
                "fault": self._watch.fault,
            }
            said = replace(self.state, **now, **changes)  # type: ignore[arg-type]  # named by the callers
            if said != self.state:
                self.state = replace(said, ts=datetime.now(UTC))
                self._send(self.state)

    def say_plate(self) -> None:
        """Publish which plate is worked on, at the start of a field."""
        plate, well = self._records().plate, self._records().aim.well
        self.say(
            mode="idle" if plate is None and self._waits else "running",
            plate=None if plate is None else plate.plate,
            well=well,
            field=None,
            fields_planned=self._records().fields_planned(well),
        )

    def note_fault(self, code: str, is_there: bool) -> None:
        """Hear whether a condition is there, and publish it; errors as of `Watch.note`."""
        self._watch.note(code, is_there)
        self.say()
