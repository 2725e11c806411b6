"""Commands that people send through a collector, and the answers that they wait for."""

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from device.errors import PublishError
from device.messages import MAX_MESSAGE_BYTES, Topics
from device.messages.commands import MAX_AGE_S
from device.messages.replies import REPLY_EXPIRY_S
from device.messages.sealing import canonical, rfc3339
from device.publishers import Message

Reply = dict[str, Any]
"""The payload of a `messages.commands.Reply`."""


@dataclass(slots=True)
class Order:
    """A command on its way, and what becomes its answer."""

    message: Message
    transaction: str
    reply: Future[Reply]
    over_at: float = 0.0


def make_order(
    topics: Topics, client_id: str, name: str, args: dict[str, Any], *, operator: str, reason: str | None
) -> Order:
    """Return the command `name` to a station; ValueError if it is above 16 KiB."""
    transaction, now = uuid.uuid4().hex, rfc3339(datetime.now(UTC))
    values = {"transaction": transaction, "issued_at": now, "operator": operator, "args": args}
    body = canonical(values | ({} if reason is None else {"reason": reason}))
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"the command has {len(body)} bytes; expected at most {MAX_MESSAGE_BYTES}")
    answer_to = topics.of(f"reply/{client_id}")
    message = Message(topics.of(f"cmd/{name}"), body, expiry_s=MAX_AGE_S, response_topic=answer_to)
    return Order(message, transaction, Future())


class Orders:
    """Those that were sent and not yet answered; used in the collector's thread."""

    def __init__(self, send: Callable[[Message], object | None]) -> None:
        self._send = send
        self._waiting: dict[str, Order] = {}

    def send(self, order: Order) -> None:
        """Send it, or fail it at once where there is no broker: sent later it would surprise."""
        if self._send(order.message) is None:
            order.reply.set_exception(PublishError("there is no broker; the command was not sent, try again"))
        else:
            order.over_at = time.monotonic() + REPLY_EXPIRY_S
            self._waiting[order.transaction] = order

    def answer(self, values: Reply) -> bool:
        """Hear an answer; return whether somebody waited for it."""
        order = self._waiting.pop(values["transaction"], None)
        if order is not None and not order.reply.done():
            order.reply.set_result(values)
        return order is not None

    def give_up(self, now: float) -> None:
        """Fail those that waited too long by the monotonic clock."""
        for order in [order for order in self._waiting.values() if order.over_at <= now]:
            del self._waiting[order.transaction]
            if not order.reply.done():
                found = f"no answer to {order.message.topic} within {REPLY_EXPIRY_S} s"
                order.reply.set_exception(PublishError(f"{found}; expected the station to hear commands"))
