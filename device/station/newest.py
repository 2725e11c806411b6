"""What those who come late find of the newest verdict and field; it vanishes instead of going stale."""

import json
import math
from datetime import datetime, timedelta

from device.journal import Row
from device.messages import OVERLAY, Topics, canonical, payload
from device.publishers import Message
from device.records import Latest


def latest_message(verdict: Row, topics: Topics, valid_s: float, now: datetime) -> Message | None:
    """Return the message on `latest` of a verdict that holds for `valid_s` s; None if it came too late."""
    values = json.loads(verdict.message)
    until = datetime.fromisoformat(values["ts"]) + timedelta(seconds=valid_s)
    # a clock that was set back must not make it last longer
    left_s = min(valid_s, (until - now).total_seconds())
    if left_s < 1:
        return None
    body = canonical(payload(Latest("latest/1", now + timedelta(seconds=left_s), values)))
    return Message(topics.of("latest"), body, retain=True, expiry_s=int(left_s))


def overlay_message(jpeg: bytes, topics: Topics, valid_s: float, *, ledger_id: str, seq: int) -> Message:
    """Return the message that shows the reading `seq` as a picture for `valid_s` s."""
    return Message(
        topics.of(OVERLAY),
        jpeg,
        retain=True,
        expiry_s=math.ceil(valid_s),
        content_type="image/jpeg",
        qos=0,
        user=(("ledger_id", ledger_id), ("seq", str(seq))),
    )
