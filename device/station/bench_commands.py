"""Commands on the station itself: fields at once, control runs, calibrations, reviews, models, where it is.

What takes longer than a field must not hold up the store loop: frames are gathered as they are stored, and
what is computed or tried then runs in a thread of its own, whose result comes back as an order.
"""

import logging
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from device.baseline import control_run, run_state
from device.calibration import (
    add_calibration,
    check_scale,
    measure_flat_field,
    measure_pixel_size,
    show_frame,
    station_scale,
)
from device.cameras import LostFrame
from device.config import Config, to_toml
from device.errors import CameraError, StationError
from device.journal import Journal
from device.journal.reviews import find_fault
from device.messages.replies import (
    ActiveModels,
    Captured,
    ConfigText,
    ControlResult,
    Identified,
    Measured,
    Result,
    Reviewed,
)
from device.messages.sealing import rfc3339
from device.records import Frame, Reading, Reason
from device.service import blink
from device.station.activation import activate, roll_back
from device.station.capture import Capture
from device.station.instruments import choose_bundles, load_config, model_place
from device.station.orders import Order, RefusedError
from device.station.store import Records

log = logging.getLogger(__name__)

_OLD = 4
"""Most frames between camera and journal that were taken before an order came: two queued, one in work."""
_BLINK_S = 30.0


@dataclass(slots=True)
class _Wanted:
    """Fields that an order waits for."""

    order: Order
    n: int
    since: datetime
    pick: Callable[[Frame | LostFrame, Reading, int], Any]
    """Gives what is kept of a field; None for nothing."""
    work: Callable[[Sequence[Any]], Result]
    """Gives the result of all that was kept; it runs in a thread of its own."""
    n_seen: int = 0
    n_old: int = 0
    kept: list[Any] = field(default_factory=list)


class BenchCommands:
    """A method for each command, called by the store loop alone.

    `deliver` puts an order before the store loop and is called by other threads; `clock` gives the time, UTC.
    """

    def __init__(
        self,
        config: Config,
        records: Records,
        capture: Capture,
        journal: Journal,
        *,
        deliver: Callable[[Order], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config, self._records, self._capture, self._journal = config, records, capture, journal
        self._deliver, self._clock = deliver, clock
        self._wanted: _Wanted | None = None
        self.under_way: Order | None = None
        """What takes longer and is not answered yet."""

    @property
    def is_busy(self) -> str:
        """Say in words what is under way."""
        name = "nothing" if self.under_way is None else self.under_way.name
        return f"{name} is under way; expected one thing at a time; ask again when it is answered"

    def see(self, frame: Frame | LostFrame | None, reading: Reading | None, seq: int) -> Order | None:
        """Hear of a field that was stored, or by None that the camera has shown all.

        Returns the rest of an order that can get no more fields.
        """
        wanted = self._wanted
        if wanted is None:
            return None
        if frame is None or (isinstance(frame, LostFrame) and frame.reason is not Reason.UNREADABLE_IMAGE):
            self._wanted = None
            how = "has shown all that it has" if frame is None else f"is lost ({frame.reason})"
            found = f"the camera {how} after {wanted.n_seen} of {wanted.n} fields; expected all of them"
            return self._settled(wanted.order, CameraError(f"{found}; see nanotox doctor, and ask again"))
        is_old = self._capture.live and frame.taken_at < wanted.since and wanted.n_old < _OLD
        wanted.n_old += is_old
        wanted.n_seen += not is_old
        kept = None if is_old or reading is None else wanted.pick(frame, reading, seq)
        wanted.kept += [] if kept is None else [kept]
        if wanted.n_seen == wanted.n:
            self._wanted = None
            self._start(wanted.order, lambda: wanted.work(wanted.kept))
        return None

    def capture(self, order: Order) -> None:
        """Give the seq of the next readings."""
        ledger_id = self._journal.ledger_id
        self._want(
            order,
            order.args.n,
            lambda _frame, _reading, seq: seq,
            lambda seqs: Captured(ledger_id, tuple(seqs)),
        )

    def qc_run(self, order: Order) -> None:
        """Compare the next fields with the baseline, or learn from them."""

        def work(readings: Sequence[Reading]) -> ControlResult:
            state = control_run(self._config, readings, rfc3339(self._clock()))
            run, said = state.runs[-1], run_state(state)
            out, reasons = (run.comparison.out, run.comparison.reasons) if run.comparison else ((), ())
            return ControlResult(
                run.at,
                run.n_fields,
                run.n_refused,
                said,
                tuple(out),
                tuple(str(reason) for reason in reasons),
                n_pending=len(state.pending),
                restarts=said == "learned",
            )

        self._refuse_plate("its fields would not be those of one control well")
        self._want(
            order,
            order.args.fields,
            lambda frame, reading, _seq: None if isinstance(frame, LostFrame) else reading,
            work,
        )

    def calibrate(self, order: Order) -> None:
        """Measure the next frames, and keep what they give."""
        args = order.args

        def work(frames: Sequence[Frame]) -> Measured:
            shown = [show_frame(frame) for frame in frames]
            if any(frame.full_size is not None for frame in frames):
                found = "the files of this camera are read at a smaller size; expected whole ones"
                raise CameraError(f"{found}; use nanotox calibrate on the files")
            fresh = load_config(self._config.path)  # the station must be able to start with it
            if args.kind == "pixel_size":
                measured = measure_pixel_size(shown, args.period_um, args.pattern)
                check_scale(fresh, measured.value, "the present frame")
            else:
                measured = measure_flat_field(shown, station_scale(fresh).um_per_px)
            new = add_calibration(fresh, measured, operator=order.command.operator)
            return Measured(new.id, new.kind, new.value, new.uncertainty, new.method)

        self._refuse_plate("its results would refer to two calibrations")
        self._want(
            order,
            args.frames,
            lambda frame, _reading, _seq: None if isinstance(frame, LostFrame) else frame,
            work,
        )

    def annotate(self, order: Order) -> Reviewed:
        """Link a review to its record; the journal's event of it is the review."""
        args, rows = order.args, self._journal.rows(order.args.seq, order.args.seq)
        if not rows:
            found = f"seq is {args.seq}; expected a record that the journal keeps"
            raise RefusedError("UNKNOWN_RECORD", f"{found}, {self._journal.head.seq} at most", "args.seq")
        row = rows[0]
        if args.hash not in (None, row.hash):
            found = f"record {args.seq} has hash {row.hash}; expected {args.hash}"
            raise RefusedError("OTHER_RECORD", f"{found}: look at this one before you review it", "args.hash")
        if (refusal := find_fault(row, args)) is not None:
            raise RefusedError(refusal.code, refusal.message, refusal.field)
        return Reviewed(self._journal.ledger_id, row.seq, row.hash, row.schema)

    def config_get(self, _order: Order) -> ConfigText:
        """Give the configuration in effect, without secrets."""
        return ConfigText(to_toml(self._config), self._config.sha256)

    def model_activate(self, order: Order) -> None:
        """Try a bundle and put it into use."""

        def work() -> ActiveModels:
            fresh, now = load_config(self._config.path), rfc3339(self._clock())
            bundle, operator = model_place(fresh, order.args.name), order.command.operator
            activate(fresh, bundle, operator=operator, at=now, note=self._journal.note)
            return _active(fresh)

        self._refuse_plate("its wells would be read by two models")
        self._start(order, work)

    def model_rollback(self, order: Order) -> None:
        """Put the model of before into use."""

        def work() -> ActiveModels:
            fresh = load_config(self._config.path)
            roll_back(fresh, operator=order.command.operator, note=self._journal.note)
            return _active(fresh)

        self._refuse_plate("its wells would be read by two models")
        self._start(order, work)

    def identify(self, order: Order) -> Identified:
        """Let the light of the board blink, if it can."""
        host, led = platform.node(), None
        try:
            led = blink(_BLINK_S)
            text = f"the light {led} blinks for {_BLINK_S:g} s"
        except OSError as error:
            text = f"no light blinks ({error}); the log names the machine"
        log.warning("%s asks which station this is: %s on %s", order.command.operator, self._topic(), host)
        return Identified(host, led, text)

    def _topic(self) -> str:
        return f"{self._config.station.site}/{self._config.station.name}"

    def _refuse_plate(self, why: str) -> None:
        if (running := self._records.plate) is not None:
            found = f"plate {running.plate} runs; expected none, because {why}"
            raise RefusedError("PLATE_RUNS", f"{found}; finish it first, with plate_finish")

    def _be_free(self) -> None:
        if self.under_way is not None:
            raise RefusedError("BUSY", self.is_busy)

    def _want(
        self,
        order: Order,
        n: int,
        pick: Callable[[Frame | LostFrame, Reading, int], Any],
        work: Callable[[Sequence[Any]], Result],
    ) -> None:
        """Wait for the next `n` fields; RefusedError or CameraError where none can come."""
        self._be_free()
        if self._capture.live and (fault := self._capture.fault) is not None:
            raise CameraError(f"the camera is away ({fault}); expected frames; see nanotox doctor")
        if not self._capture.live and self._config.plate.wait and self._records.plate is None:
            raise CameraError("the camera is opened for a plate only; expected one to run; see plate.wait")
        self.under_way = order
        self._wanted = _Wanted(order, n, self._clock(), pick, work)

    def _start(self, order: Order, work: Callable[[], Result]) -> None:
        """Do what takes longer in a thread of its own; its result comes back as the rest of the order."""
        if self.under_way is not order:
            self._be_free()
        self.under_way = order

        def run() -> None:
            done: Result | Exception
            try:
                done = work()
            except (StationError, RefusedError) as error:
                done = error
            except Exception:  # a defect of one command must not end the station
                log.exception("%s failed", order.name)
                found = f"{order.name} met a defect; expected none"
                done = RefusedError("FAILED", f"{found}; the log of the station tells more")
            self._deliver(self._settled(order, done))

        threading.Thread(target=run, name=order.name, daemon=True).start()

    def _settled(self, order: Order, done: Result | Exception) -> Order:
        """Return the rest of an order: its result, or what went wrong."""

        def then() -> Result:
            self.under_way = None
            if isinstance(done, Exception):
                raise done
            return done

        return replace(order, then=then)


def _active(config: Config) -> ActiveModels:
    cell, second = choose_bundles(config)
    return ActiveModels(cell.id, None if second is None else second.id)
