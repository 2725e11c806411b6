"""Commands over the broker: heard by the send loop, carried out by the store loop between two fields."""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from device.errors import CameraError, ConfigError, ImageError, ModelError, StationError
from device.journal import StorageFullError
from device.messages import MAX_MESSAGE_BYTES, Topics, payload
from device.messages.commands import TRANSACTION
from device.messages.replies import REPLY_EXPIRY_S, PlateStatus, Refusal, Reply, Result
from device.messages.sealing import canonical
from device.publishers import Message, Received
from device.station.bench_commands import BenchCommands
from device.station.orders import LARGE, LARGEST_BYTES, Order, RefusedError, read_json, read_order
from device.station.plate_commands import PlateCommands
from device.station.store import Records

log = logging.getLogger(__name__)

REMEMBERED = 1000
"""So many transactions are refused a second time, the newest."""
NOTED = ("command", "review")
"""Events of the journal that keep a command which was carried out."""
_ASKS = ("ping", "plate_status", "config_get")
"""Commands that change nothing: the journal keeps that they were asked, without the answer."""
_CODES: dict[type[StationError], str] = {
    ConfigError: "CONFIG",
    ModelError: "MODEL",
    CameraError: "CAMERA",
    ImageError: "IMAGE",
    StorageFullError: "STORAGE_FULL",
}


class Desk:
    """Takes commands in, has them carried out and answers.

    `known` are transactions of before; `answer` sends a reply. `plates` and `bench` carry out what is
    ordered, `records` note it, and `restart` lets the station start anew; without them a desk only hears.
    `clock` gives the time, UTC.
    """

    def __init__(
        self,
        topics: Topics,
        *,
        known: Iterable[str],
        answer: Callable[[Message], None],
        records: Records | None = None,
        plates: PlateCommands | None = None,
        bench: BenchCommands | None = None,
        restart: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._topics, self._known, self._answer = topics, dict.fromkeys(known), answer
        self._records, self._plates, self._bench = records, plates, bench
        self._restart, self._clock = restart, clock

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
            largest_bytes = MAX_MESSAGE_BYTES if name in LARGE else LARGEST_BYTES
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

        One that takes longer comes a second time, with what is left. JournalError if it cannot be noted.
        """
        refusal = result = None
        try:
            result = order.then() if order.then is not None else self._begin(order)
        except RefusedError as error:
            refusal = error.refusal
        except (ConfigError, ModelError, CameraError, ImageError, StorageFullError) as error:
            code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
            refusal = RefusedError(code, str(error)).refusal
        else:
            if result is None:
                return
            self._note(order, result)
        self._reply(order.received, order.command.transaction, refusal, result)
        if getattr(result, "restarts", False):
            self._restart()

    def leave(self) -> None:
        """Answer what is under way when the station ends."""
        if self._bench is not None and self._bench.under_way is not None:
            self.refuse_busy(self._bench.under_way)

    def _begin(self, order: Order) -> Result | None:
        """Return what an order gives, None where that takes longer."""
        bench = self._bench
        if order.name == "plate_start" and bench is not None and bench.under_way is not None:
            raise RefusedError("BUSY", bench.is_busy)
        place = self._plates if hasattr(self._plates, order.name) else bench
        result: Result | None = getattr(place, order.name)(order)
        return result

    def _note(self, order: Order, result: Result) -> None:
        """Keep who ordered what, why, and what came of it."""
        told = {} if order.name in _ASKS else {"result": payload(result)}
        kind = "review" if order.name == "annotate" else "command"
        if self._records is not None:
            self._records.note(kind, name=order.name, **payload(order.command), **told)

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
        result: Result | None = None,
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
        if len(body) > MAX_MESSAGE_BYTES:
            found = f"the answer has {len(body)} bytes; expected at most {MAX_MESSAGE_BYTES}"
            reply = Reply(False, named, Refusal("TOO_LARGE", f"{found}; look at the station itself"))
            body = canonical(payload(reply))
        self._answer(Message(topic, body, expiry_s=REPLY_EXPIRY_S, correlation=received.correlation))


def _shorter(status: PlateStatus) -> PlateStatus:
    """Return the status without one well more: the last without a field, or the last."""
    empty = [i for i, well in enumerate(status.wells) if not well.n_fields]
    cut = empty[-1] if empty else len(status.wells) - 1
    wells = (*status.wells[:cut], *status.wells[cut + 1 :])
    return replace(status, wells=wells, n_left_out=status.n_left_out + 1)
