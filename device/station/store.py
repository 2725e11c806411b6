"""The store loop's work: readings, their verdicts and the plate as it grows, into the journal."""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import cv2

from device.analysis import plate_state
from device.analysis.grading import rule_sha256
from device.analysis.plate_state import PlateState
from device.analysis.repeats import refuse_repeat
from device.cameras import LostFrame
from device.journal import Journal, StorageFullError
from device.messages import Published, payload
from device.messages.recompute import parse, with_decision
from device.messages.replies import PlateStatus, WellStatus
from device.plates import Plate
from device.records import Frame, PlateWell, Reading, Verdict
from device.station.capture import Aim
from device.station.upkeep import keep_frame

log = logging.getLogger(__name__)

T = TypeVar("T")

_FULL_S = 1.0
"""Wait before a full disk is tried again."""


class Records:
    """The plate as it grows, and the way of everything into the journal. Used by one thread.

    `open_plate` gives the state of a plate and its operator, or of no plate; `frames` is the folder where
    frames are kept, None where they are not; `calibrations` are the ids that readings refer to. `note_stored`
    is called when the journal has new rows; `note_fault` hears a code, and whether that fault is there;
    `stopping` ends the wait for room; `beat` is called at every try to write.
    """

    def __init__(
        self,
        journal: Journal,
        open_plate: Callable[[Plate | None, str | None], PlateState | None],
        *,
        frames: Path | None = None,
        calibrations: tuple[str, ...] = (),
        note_stored: Callable[[], None],
        note_fault: Callable[[str, bool], None],
        stopping: threading.Event,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal, self._open_plate, self._frames = journal, open_plate, frames
        self._calibrations, self._note_stored, self._note_fault = calibrations, note_stored, note_fault
        self._stopping, self._beat = stopping, beat
        self._state = open_plate(None, None)
        self._verdicts: dict[str, Verdict] = {}
        self.waits = True
        """Whether a full disk is waited for; to a station that does not run yet it is an error."""
        self.lacks_room = False
        """Whether the ballast is gone: then it is made anew before the next write."""
        self._before: Reading | None = None  # the last accepted field
        self._is_kept = True
        self._metadata: Mapping[str, float] | None = None
        self.aim = Aim(0)
        """What frames are for from now on; other threads may read it."""
        self.n_fields = 0
        """Readings stored since the start."""
        self.seq = 0
        """That of the newest reading."""

    @property
    def plate(self) -> PlateState | None:
        """The plate that runs; None where none does."""
        return None if self._state is None or self._state.rolling else self._state

    def start(self, plate: Plate, operator: str | None) -> None:
        """Begin a plate; ValueError if it has no wells."""
        self._begin(self._open_plate(plate, operator))
        if self._state is not None:
            self.note(
                "plate_start",
                plate=plate.name,
                operator=operator,
                wells=[payload(well) for well in plate.wells],
                rule_sha256=rule_sha256(self._state.rule),
                after_seq=self._journal.head.seq,
            )

    def resume(self, planned: Plate | None) -> None:
        """Go on with the plate of a live camera that a restart broke off, else begin a planned one."""
        last = self._journal.notes("plate_start", "plate_end", limit=1)
        if last and last[0][0] == "plate_start":
            how = self._go_on(last[0][1], planned)
            if how is not None:
                log.warning("plate %s is not gone on with: %s", last[0][1]["plate"], how)
                self.note("plate_end", plate=last[0][1]["plate"], how=how)
        if planned is not None and self.plate is None:
            self.start(planned, None)

    def take(self, run: int, frame: Frame | LostFrame, reading: Reading) -> Reading:
        """Store the reading of a frame that was taken for `run`, and the provisional verdict of its well.

        Returns it as stored: with its plate, its place in the well, and the frame that was kept.

        Raises
        ------
        ValueError
            If the reading cannot be told as JSON; neither the journal nor the plate has it then.
        JournalError
            If the journal cannot be written; a full disk is waited for until the station stops.
        """
        self._note_metadata(frame)
        sha256 = self._keep(frame)
        reading = replace(self._placed(run, reading), frame_sha256=sha256, calibrations=self._calibrations)
        is_live = self._state is not None and self._state.live
        # A camera that ends counts from 0 when it is opened for another plate, whose fields are all new.
        before = self._before if is_live or reading.sequence else None
        reading = refuse_repeat(reading, before, live=is_live)
        records: list[Published] = [reading]
        if self.n_fields == 0:
            # The first verdict imports scipy; the first reading does not wait for that.
            self.seq = self._append(records.pop())
        state, verdict = self._state, None
        if state is not None and run == self.aim.run:
            state, verdict = plate_state.add(state, reading)
            records += [verdict] if verdict is not None else []
        if records:
            first = self._append(*records)
            self.seq = first if records[0] is reading else self.seq
        self._state, self._before = state, reading if reading.quality.passed else before
        self.n_fields += 1
        if verdict is not None:
            self._verdicts[verdict.well] = verdict
            if self.aim.well is not None and self.is_full(self.aim.well):
                log.info("well %s has its fields", self.aim.well)
                self.aim_at(None)
        return reading

    def finish(self) -> None:
        """Store the final verdicts and the report of the plate, if one runs, and go on without a plate."""
        if (state := self.plate) is not None:
            verdicts, report = plate_state.finish(state)
            self._append(*verdicts, with_decision(verdicts, report))
            self.note("plate_end", plate=state.plate, how="finished")
        self._begin(self._open_plate(None, None))

    def aim_at(self, well: str | None) -> None:
        """Take frames of a live camera for `well` of the plate from now on."""
        self.aim = Aim(self.aim.run, well)

    def is_full(self, well: str) -> bool:
        """Return whether a well has all the fields that are planned for it: more would not be the plan."""
        plan = next(plan for plan in self._wells if plan.well == well)
        return plan.fields is not None and self._n_accepted(well) >= plan.fields

    def unfinished_wells(self) -> list[str]:
        """Return the wells that lack fields of those planned, or of the fewest that the rule asks for."""
        least = 0 if self.plate is None else self.plate.rule.fields_min
        return [plan.well for plan in self._wells if self._n_accepted(plan.well) < (plan.fields or least)]

    def status(self, *, wells: bool = False) -> PlateStatus:
        """Return how far the plate is, with a row for each of its wells if asked for."""
        if (plate := self.plate) is None:
            return PlateStatus(None)
        rows = tuple(self._row(plan) for plan in plate.wells) if wells else ()
        return PlateStatus(plate.plate, plate.operator, self.aim.well, rows)

    def fields_planned(self, well: str | None) -> int | None:
        """Return how many fields are planned for a well; None where none are, or there is no such well."""
        return next((plan.fields for plan in self._wells if plan.well == well), None)

    def note(self, kind: str, **body: object) -> None:
        """Store an internal event in the journal; a full disk is waited for."""
        self._write(lambda: self._journal.note(kind, **body))

    @property
    def _wells(self) -> tuple[PlateWell, ...]:
        return () if self.plate is None else self.plate.wells

    def _begin(self, state: PlateState | None) -> None:
        self._state, self._verdicts = state, {}
        self.aim = Aim(self.aim.run + 1)

    def _go_on(self, begun: dict[str, Any], planned: Plate | None) -> str | None:
        """Add the readings of a plate that had `begun` anew; return why not, None if that is done."""
        rows = self._journal.rows(begun["after_seq"] + 1)
        if any(row.leaf == "plate" for row in rows):
            return "finished"
        verdicts: dict[str, Verdict] = {}
        try:
            plate = Plate(begun["plate"], tuple(parse(PlateWell, plan) for plan in begun["wells"]))
            state = self._open_plate(plate, begun["operator"])
            if state is None or not state.live:
                return "broken off"
            if rule_sha256(state.rule) != begun["rule_sha256"] or planned not in (None, plate):
                return "broken off: station.toml names another rule or plate now"
            for values in (json.loads(row.message) for row in rows if row.leaf == "reading"):
                if values["plate"] == plate.name:
                    state, verdict = plate_state.add(state, parse(Reading, values))
                    verdicts |= {} if verdict is None else {verdict.well: verdict}
        except (ValueError, KeyError) as error:
            return f"broken off: another version of nanotox wrote it ({error})"
        self._begin(state)
        self._verdicts = verdicts
        n_fields = sum(verdict.n_fields for verdict in verdicts.values())
        log.info("plate %s goes on with %d fields; say which well is shown", plate.name, n_fields)
        return None

    def _placed(self, run: int, reading: Reading) -> Reading:
        """Return the reading with its plate, and on a live camera with its number among accepted fields."""
        well, number = reading.well, reading.field
        if self.plate is None or run != self.aim.run:
            well = number = None
        elif self.plate.live:
            well = None if well is None or self.is_full(well) else well
            number = None if well is None else self._n_accepted(well)
        name = None if self.plate is None or well is None else self.plate.plate
        return replace(reading, plate=name, well=well, field=number)

    def _n_accepted(self, well: str) -> int:
        return self._verdicts[well].n_fields if well in self._verdicts else 0

    def _row(self, plan: PlateWell) -> WellStatus:
        names = ("n_fields", "affected_corrected", "ci95", "outcome", "fields_more")
        seen = self._verdicts.get(plan.well)
        told = {} if seen is None else {name: getattr(seen, name) for name in names}
        return WellStatus(plan.well, plan.sample, plan.role, plan.dose, plan.dose_unit, plan.fields, **told)

    def _keep(self, frame: Frame | LostFrame) -> str | None:
        """Return the SHA-256 of the file that keeps the image of a frame, None where there is none."""
        if self._frames is None or isinstance(frame, LostFrame):
            return None
        sha256 = None
        try:
            sha256 = keep_frame(self._frames, frame)
        except (OSError, cv2.error) as error:
            if self._is_kept:
                log.error("frames are not kept: %s; make room in frames.path, or let it be written", error)  # noqa: TRY400 - a state, no defect
        if (sha256 is not None) != self._is_kept:
            self._is_kept = sha256 is not None
            self._note_fault("FRAMES_NOT_KEPT", not self._is_kept)
        return sha256

    def _note_metadata(self, frame: Frame | LostFrame) -> None:
        """Store how the camera takes its frames, when that has changed: it holds for what follows."""
        if isinstance(frame, Frame) and frame.metadata != self._metadata:
            self._metadata = frame.metadata
            told = {"source": frame.source, "after_seq": self._journal.head.seq}
            self.note("camera", **told, **(frame.metadata or {}))

    def _append(self, *records: Published) -> int:
        """Store records; return the `seq` of the first."""
        sealed = self._write(lambda: self._journal.append(*records))
        self._note_stored()
        return sealed[0].seq

    def _write(self, write: Callable[[], T]) -> T:
        """Write to the journal; on a full disk wait until there is room for the ballast too."""
        is_full = False
        while True:
            self._beat()
            try:
                if is_full or self.lacks_room:
                    self._journal.hold_room()
                    self.lacks_room = False
                written = write()
            except StorageFullError as error:
                if not self.waits:
                    raise
                # what it gives up is for the alert and for the marks of what the broker took
                self._journal.give_room()
                if not is_full:
                    log.error("%s; nothing is published until then", error)  # noqa: TRY400 - a state, no defect
                    is_full = True
                    self._note_fault("STORAGE_FULL", True)
                if self._stopping.wait(_FULL_S):
                    raise
            else:
                break
        if is_full:
            self._note_fault("STORAGE_FULL", False)
        return written
