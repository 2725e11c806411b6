"""Commands over the broker: heard by the send loop, carried out by the store loop between two fields."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from device.analysis.plate_state import PlateState
from device.cameras import Camera
from device.errors import CameraError, ConfigError
from device.messages import MAX_MESSAGE_BYTES, Topics, canonical, payload, rfc3339
from device.messages.commands import COMMANDS, MAX_AGE_S, TRANSACTION, Command
from device.messages.replies import REPLY_EXPIRY_S, PlateStatus, Refusal, Reply
from device.plates import parse_plate
from device.publishers import Message, Received
from device.records import PlateWell
from device.station.capture import Capture
from device.station.store import Records
from device.tables import TableReader, shorten

log = logging.getLogger(__name__)

REMEMBERED = 1000
"""So many transactions are refused a second time, the newest."""
LARGEST_BYTES = 4 * 1024
"""Largest command; `plate_start` carries a plate.csv and may be as large as any message."""
_DEEPEST = 8
"""Most lists and objects within one another; commands need three."""
_TOLD = 3000
"""Most characters of an error, so that its reply stays below 16 KiB."""


class RefusedError(Exception):
    """A command that is not carried out, and why."""

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.refusal = Refusal(code, message if len(message) <= _TOLD else f"{message[:_TOLD]}...", field)


@dataclass(frozen=True, slots=True)
class Order:
    """A command that was understood."""

    name: str
    command: Command
    args: Any
    """Record of `COMMANDS[name]`."""
    received: Received


def read_order(received: Received, values: dict[str, Any], name: str, now: datetime) -> Order:
    """Return the order that the JSON object `values` gives on `cmd/<name>`; RefusedError where it is none."""
    if name not in COMMANDS:
        found = f"command {shorten(name)} is unknown"
        raise RefusedError("UNKNOWN_COMMAND", f"{found}; expected one of {', '.join(COMMANDS)}")
    reader = TableReader()
    command = reader.record(values, Command, "")
    args = reader.record(command.args, COMMANDS[name], "args") if isinstance(command, Command) else None
    if not isinstance(command, Command) or args is None:
        raise RefusedError("MALFORMED", "; ".join(reader.faults), re.split("[: ]", reader.faults[0])[0][:100])
    age_s = (now - command.issued_at).total_seconds()
    if abs(age_s) > MAX_AGE_S and name != "replay":
        found = f"issued_at is {rfc3339(command.issued_at)}, this station's clock says {rfc3339(now)}"
        expected = f"expected at most {MAX_AGE_S} s between them; check both clocks and send it anew"
        raise RefusedError("EXPIRED", f"{found}; {expected}", "issued_at")
    return Order(name, command, args, received)


def read_json(text: bytes, largest_bytes: int = LARGEST_BYTES) -> dict[str, Any]:
    """Return a JSON object; RefusedError for anything else.

    That is what is too large or too deep, NaN, a key twice, or what UTF-8 cannot tell.
    """

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise ValueError("a key stands twice")
        return values

    if len(text) > largest_bytes:
        found = f"the command has {len(text)} bytes; expected at most {largest_bytes}"
        raise RefusedError("TOO_LARGE", f"{found}: name files by patterns such as B03/*.png in plate.csv")
    try:
        values = json.loads(text.decode(), object_pairs_hook=once)
        canonical({"": values})
    except (ValueError, RecursionError) as error:
        raise RefusedError("MALFORMED", f"the command is no JSON ({error}); expected an object") from error
    if not isinstance(values, dict):
        raise RefusedError("MALFORMED", f"the command is {shorten(values)}; expected an object")
    if _is_deeper(values, _DEEPEST):
        raise RefusedError(
            "MALFORMED", f"the command is nested more than {_DEEPEST} deep; expected at most that"
        )
    return values


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether lists and objects lie within one another more than `levels` deep."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is not None and (levels == 0 or any(_is_deeper(item, levels - 1) for item in inner))


class Desk:
    """Takes commands in, carries them out and answers.

    `known` are transactions of before; `answer` sends a reply; `open_camera` opens a camera that is not live
    on the wells of a plate; `note_plate` hears that the plate or its well is another; `finish` finishes the
    plate. `clock` gives the time, UTC.
    """

    def __init__(
        self,
        records: Records,
        capture: Capture,
        topics: Topics,
        *,
        known: Iterable[str],
        answer: Callable[[Message], None],
        open_camera: Callable[[tuple[PlateWell, ...]], Camera],
        note_plate: Callable[[], None],
        finish: Callable[[], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._records, self._capture, self._topics = records, capture, topics
        self._known = dict.fromkeys(known)
        self._answer, self._open_camera, self._note_plate = answer, open_camera, note_plate
        self._finish, self._clock = finish, clock

    def hear(self, received: Received) -> Order | None:
        """Return what a message orders, None where it is refused and answered; for the send loop alone."""
        if received.retained:
            log.warning(
                "a retained message on %s is passed over; send commands without retain", received.topic
            )
            return None
        values: dict[str, Any] = {}
        try:
            name = received.topic.removeprefix(self._topics.of("cmd/"))
            largest_bytes = MAX_MESSAGE_BYTES if name == "plate_start" else LARGEST_BYTES
            values = read_json(received.payload, largest_bytes)
            order = read_order(received, values, name, self._clock())
            self._remember(order.command.transaction)
        except RefusedError as error:
            self._reply(received, values.get("transaction"), error.refusal)
            return None
        return order

    def refuse_busy(self, order: Order) -> None:
        """Answer that the station cannot take an order now."""
        found = "the station is behind or ends; expected it to be ready; send the command anew"
        self.answer(order, Refusal("BUSY", found))

    def answer(self, order: Order, refusal: Refusal | None) -> None:
        """Answer an order that the send loop itself has carried out, or has refused."""
        self._reply(order.received, order.command.transaction, refusal)

    def carry_out(self, order: Order) -> None:
        """Do what is ordered, note it in the journal and answer; called by the store loop alone.

        JournalError if it cannot be noted.
        """
        refusal = result = None
        try:
            result = getattr(self, f"_{order.name}")(order)
        except RefusedError as error:
            refusal = error.refusal
        except ConfigError as error:
            refusal = RefusedError("PLATE_CSV", str(error), "args.csv").refusal
        except CameraError as error:
            refusal = RefusedError("CAMERA", str(error)).refusal
        else:
            self._records.note("command", name=order.name, **payload(order.command))
        self._reply(order.received, order.command.transaction, refusal, result)

    def _ping(self, _order: Order) -> PlateStatus:
        return self._records.status()

    def _plate_status(self, _order: Order) -> PlateStatus:
        return self._records.status(wells=True)

    def _plate_start(self, order: Order) -> PlateStatus:
        if (running := self._records.plate) is not None:
            found = f"plate {running.plate} runs; expected none"
            raise RefusedError("PLATE_RUNS", f"{found}; finish it first, with plate_finish")
        plate = parse_plate(order.args.csv, name=order.args.plate)
        camera = None if self._capture.live else self._open_camera(plate.wells)
        self._records.start(plate, order.command.operator)
        if camera is not None:
            self._capture.show(camera, self._records.aim.run)
        self._note_plate()
        return self._records.status()

    def _plate_well(self, order: Order) -> PlateStatus:
        well, plate = order.args.well, self._running_plate()
        if not self._capture.live:
            expected = "expected it to be told where a live camera looks"
            raise RefusedError("NOT_LIVE", f"the camera shows the wells of plate.csv by itself; {expected}")
        if well is not None and well not in (names := [planned.well for planned in plate.wells]):
            found = f"well {shorten(well)} is not on the plate; expected one of {', '.join(names)}"
            raise RefusedError("UNKNOWN_WELL", found, "args.well")
        if well is not None and self._records.is_full(well):
            found = f"well {well} has all its planned fields; expected one that has not"
            raise RefusedError("WELL_DONE", found, "args.well")
        self._records.aim_at(well)
        self._note_plate()
        return self._records.status()

    def _plate_finish(self, order: Order) -> PlateStatus:
        plate = self._running_plate()
        if not order.args.force:
            do = "measure them, or finish by force with what is there"
            missing = self._records.unfinished_wells()
            if missing and not self._capture.live:
                found = f"plate {plate.plate} finishes by itself when the camera has shown all its fields"
                raise RefusedError(
                    "NOT_DONE", f"{found}; wait, or finish by force with what is there", "args.force"
                )
            if missing:
                found = f"fields are missing in {', '.join(missing)}; expected as many as planned"
                raise RefusedError("NOT_DONE", f"{found}; {do}", "args.force")
        status = self._records.status()
        self._finish()
        return status

    def _running_plate(self) -> PlateState:
        if (plate := self._records.plate) is None:
            raise RefusedError("NO_PLATE", "no plate runs; expected one; start it with plate_start")
        return plate

    def _remember(self, transaction: str) -> None:
        """Note a transaction; RefusedError if it came before."""
        if transaction in self._known:
            found = f"transaction {transaction} came before"
            raise RefusedError("REPEATED", f"{found}; expected a new one for each command", "transaction")
        self._known[transaction] = None
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def _reply(
        self,
        received: Received,
        transaction: object,
        refusal: Refusal | None,
        result: PlateStatus | None = None,
    ) -> None:
        """Answer on the response topic where that is below the station's own, else by transaction."""
        if refusal is not None:
            log.warning("command refused: %s", refusal.message)
        below, topic = self._topics.of("reply/"), received.response_topic
        named = (
            transaction if isinstance(transaction, str) and re.fullmatch(TRANSACTION, transaction) else None
        )
        if topic is None or not re.fullmatch(re.escape(below) + r"[^+#\x00]{1,200}", topic):
            if named is None:
                return  # nobody could hear it
            topic = below + named
        reply = Reply(refusal is None, named, refusal, result)
        while len(body := canonical(payload(reply))) > MAX_MESSAGE_BYTES and isinstance(
            reply.result, PlateStatus
        ):
            reply = replace(reply, result=_shorter(reply.result))
        self._answer(Message(topic, body, expiry_s=REPLY_EXPIRY_S, correlation=received.correlation))


def _shorter(status: PlateStatus) -> PlateStatus:
    """Return the status without one well more: the last without a field, or the last."""
    empty = [i for i, well in enumerate(status.wells) if not well.n_fields]
    cut = empty[-1] if empty else len(status.wells) - 1
    wells = (*status.wells[:cut], *status.wells[cut + 1 :])
    return replace(status, wells=wells, n_left_out=status.n_left_out + 1)
