"""Whatever stands on `cmd/`, it is carried out once, or refused with what was found and expected."""

import functools
import json
import os
import re
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.messages import MAX_MESSAGE_BYTES, Topics
from device.messages.commands import COMMANDS, REVIEW_CELLS, LabeledCell
from device.messages.schema import asyncapi
from device.publishers import Received
from device.records import CellClass
from device.station.commands import _CODES, REMEMBERED, Desk

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
TOPICS = Topics("lab", "bench-1")
MESSAGES = asyncapi("0.1.0")["components"]["messages"]


class Answers(list):
    """A desk without a station behind it, and what it answers."""

    def __init__(self, known=()):
        super().__init__()
        self.desk = Desk(TOPICS, known=known, answer=self.append, clock=lambda: NOW)

    def hear(self, payload, *, name="ping", **options):
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return self.desk.hear(Received(TOPICS.of(f"cmd/{name}"), text, **options))

    def error(self):
        reply = json.loads(self[-1].payload)
        form("reply").validate(reply)
        assert reply["ok"] is False
        return reply["error"]


@functools.cache
def form(leaf):
    """What checks a message; its references count from itself."""
    schema = MESSAGES[leaf]["payload"]
    whole = json.loads(json.dumps(schema).replace(f"#/components/messages/{leaf}/payload/", "#/"))
    return jsonschema.Draft202012Validator(whole)


def command(**changes):
    made = {"transaction": "t1", "issued_at": "2026-03-04T05:06:00Z", "operator": "Ada", "args": {}}
    return {key: value for key, value in (made | changes).items() if value is not ...}


@pytest.fixture
def answers():
    return Answers()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("ping", {}),
        ("plate_start", {"plate": "p 7", "csv": "well"}),
        ("plate_well", {"well": "B03"}),
        ("plate_well", {"well": None}),
        ("plate_status", {}),
        ("plate_finish", {}),
        ("plate_finish", {"force": True}),
        ("replay", {"from_seq": 7, "to_seq": 1006}),
        ("capture", {}),
        ("capture", {"n": 20}),
        ("qc_run", {"fields": 30}),
        ("calibrate", {"kind": "pixel_size", "period_um": 10.0, "pattern": "grid"}),
        ("calibrate", {"kind": "flat_field", "frames": 5}),
        ("annotate", {"seq": 7, "decision": "accept", "hash": "0" * 64}),
        ("annotate", {"seq": 7, "decision": "correct", "outcome": "toxic", "reason": "debris"}),
        ("config_get", {}),
        ("model_activate", {"name": "phase-cell"}),
        ("model_rollback", {}),
        ("identify", {}),
    ],
)
def test_what_obeys_the_schema_is_an_order(answers, name, args):
    sent = command(args=args, reason="a new lot")
    form(f"cmd_{name}").validate(sent)
    order = answers.hear(sent, name=name)
    assert (order.name, order.command.operator, order.command.reason) == (name, "Ada", "a new lot")
    assert {key: getattr(order.args, key) for key in args} == args
    assert not answers


def test_cells_of_a_review_come_as_records(answers):
    cells = [{"row": i, "col": 2.5, "label": "dead"} for i in range(REVIEW_CELLS)]
    sent = command(args={"seq": 1, "decision": "correct", "reason": "dead", "cells": cells})
    form("cmd_annotate").validate(sent)
    order = answers.hear(sent, name="annotate")
    assert order.args.cells[7] == LabeledCell(7.0, 2.5, CellClass.DEAD)
    assert len(sent["args"]["cells"]) == len(order.args.cells)
    sent["args"]["cells"][0]["size"] = 3
    with pytest.raises(jsonschema.ValidationError):
        form("cmd_annotate").validate(sent)


def test_arguments_and_reason_may_be_left_out(answers):
    assert answers.hear(command(args=...)).command.reason is None


@pytest.mark.parametrize(
    ("name", "change", "code", "field", "expected"),
    [
        ("boot", {}, "UNKNOWN_COMMAND", None, "command 'boot' is unknown; expected one of ping, plate_start"),
        ("ping", {"transaction": ...}, "MALFORMED", "transaction", "transaction is missing; expected text"),
        ("ping", {"transaction": "a/b"}, "MALFORMED", "transaction", "transaction is 'a/b'; expected text"),
        ("ping", {"operator": " "}, "MALFORMED", "operator", "operator is ' '"),
        ("ping", {"operator": "a\nb"}, "MALFORMED", "operator", "operator is 'a\\nb'"),
        ("ping", {"issued_at": "soon"}, "MALFORMED", "issued_at", "expected a time with zone"),
        ("ping", {"issued_at": "2026-03-04T05:06:00"}, "MALFORMED", "issued_at", "expected a time with zone"),
        ("ping", {"args": []}, "MALFORMED", "args", "args is []; expected an object"),
        ("ping", {"args": {"x": 1}}, "MALFORMED", "args.x", "args.x is unknown; expected no options"),
        ("ping", {"colour": 1}, "MALFORMED", "colour", "colour is unknown; expected transaction, issued_at"),
        ("plate_start", {}, "MALFORMED", "args.plate", "args.csv is missing; expected text"),
        ("plate_well", {}, "MALFORMED", "args.well", "args.well is missing"),
        ("plate_well", {"args": {"well": 3}}, "MALFORMED", "args.well", "args.well is 3; expected text"),
        ("plate_finish", {"args": {"force": 1}}, "MALFORMED", "args.force", "expected true or false"),
        ("replay", {"args": {"from_seq": 0, "to_seq": 1}}, "MALFORMED", "args.from_seq", "from_seq is 0"),
        ("replay", {"args": {"from_seq": 7, "to_seq": 6}}, "MALFORMED", "args", "expected from_seq to"),
        ("replay", {"args": {"from_seq": 7, "to_seq": 1007}}, "MALFORMED", "args", "expected from_seq to"),
        ("capture", {"args": {"n": 21}}, "MALFORMED", "args.n", "a whole number from 1 to 20"),
        ("qc_run", {"args": {"fields": 0}}, "MALFORMED", "args.fields", "a whole number from 1 to 100"),
        ("calibrate", {"args": {"kind": "focus"}}, "MALFORMED", "args.kind", "expected one of 'pixel_size'"),
        ("calibrate", {"args": {"kind": "pixel_size"}}, "MALFORMED", "args", "period_um is missing"),
        ("calibrate", {"args": {"kind": "flat_field", "period_um": 1}}, "MALFORMED", "args", "that only"),
        ("annotate", {"args": {"seq": 1, "decision": "correct"}}, "MALFORMED", "args", "no outcome and no"),
        ("annotate", {"args": {"seq": 1, "decision": "accept", "outcome": "toxic"}}, "MALFORMED",
         "args", "accept comes with something else"),
        ("annotate", {"args": {"seq": 1, "decision": "correct", "outcome": "toxic", "reason": " "}},
         "MALFORMED", "args", "reason is empty; expected why"),
        ("annotate", {"args": {"seq": 1, "decision": "correct", "outcome": "dead"}}, "MALFORMED",
         "args.outcome", "expected one of 'toxic', 'non_toxic'"),
        ("annotate", {"args": {"seq": 1, "decision": "correct", "cells": [
            {"row": 1, "col": 1, "label": "x"}]}}, "MALFORMED",
         "args.cells[0].label", "expected one of 'live', 'dead'"),
        ("annotate", {"args": {"seq": 1, "decision": "correct", "cells": [1]}}, "MALFORMED", "args.cells",
         "expected a list, each item an object"),
        ("annotate", {"args": {"seq": 1, "decision": "correct", "reason": "x", "cells": [
            {"row": 1, "col": 1, "label": "dead"}] * 301}}, "MALFORMED", "args", "expected at most 300"),
        ("annotate", {"args": {"seq": 1, "decision": "accept", "reason": "x" * 257}}, "MALFORMED",
         "args.reason", "expected text that matches"),
        ("model_activate", {"args": {"name": "../x"}}, "MALFORMED", "args.name", "args.name is '../x'"),
        ("model_activate", {"args": {"name": "a/b"}}, "MALFORMED", "args.name", "args.name is 'a/b'"),
        ("ping", {"issued_at": "2026-03-04T05:05:36Z"}, "EXPIRED", "issued_at", "expected at most 30 s"),
        ("ping", {"issued_at": "2026-03-04T05:06:38Z"}, "EXPIRED", "issued_at", "check both clocks"),
    ],
)  # fmt: skip
def test_what_does_not_is_refused_with_found_and_expected(answers, name, change, code, field, expected):
    assert answers.hear(command(**change), name=name) is None
    error = answers.error() if answers else {}
    if change.get("transaction", "t1") != "t1":
        assert not answers, "nobody says where the answer goes"
        answers.hear(command(**change), name=name, response_topic=TOPICS.of("reply/me"))
        error = answers.error()
    assert (error["code"], error["field"]) == (code, field)
    assert expected in error["message"]


@pytest.mark.parametrize("seconds", [-30, 30])
def test_thirty_seconds_are_not_too_long(answers, seconds):
    assert answers.hear(command(issued_at=(NOW + timedelta(seconds=seconds)).isoformat()))


def test_a_consumer_may_close_its_gaps_though_the_clock_is_wrong(answers):
    issued = "1970-01-01T00:00:00Z"
    assert answers.hear(command(issued_at=issued, args={"from_seq": 1, "to_seq": 2}), name="replay")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[1]", "no JSON object: it is a list; expected an object"),
        (b'{"transaction": "a", "transaction": "b"}', "a key stands twice"),
        (b'{"args": {"a": 1, "a": 1}}', "a key stands twice"),
        (b'{"args": NaN}', "no JSON"),
        (b'{"args": 1e999}', "no JSON"),
        (b'{"args": "\\ud800"}', "no JSON"),
        (b"[" * 4_000, "no JSON"),
        (b"9" * 4_000, "expected an object"),
        (b" " * 4097, "has 4097 bytes; expected at most 4096"),
        (b'{"a": ' + b"[" * 8 + b"]" * 8 + b"}", "nested more than 8 deep"),
    ],
)
def test_what_is_no_json_object_is_refused(answers, text, expected):
    assert answers.hear(text, response_topic=TOPICS.of("reply/me"), correlation=b"7") is None
    assert expected in answers.error()["message"]
    assert (answers[0].topic, answers[0].correlation) == (TOPICS.of("reply/me"), b"7")


def test_only_a_plate_csv_may_take_a_whole_message(answers):
    args = {"plate": "p7", "csv": "x" * 10_000}
    assert answers.hear(command(args=args), name="plate_start")
    larger = command(transaction="t2", args=args | {"csv": "x" * 16_384})
    assert answers.hear(larger, name="plate_start", response_topic=TOPICS.of("reply/me")) is None
    assert "expected at most 16384" in answers.error()["message"]


def test_eight_levels_are_not_too_deep(answers):
    answers.hear(b'{"transaction": "t1", "a": ' + b"[" * 7 + b"]" * 7 + b"}")
    assert "a is unknown" in answers.error()["message"]


def test_a_transaction_is_taken_once_and_those_of_before_a_restart_never(answers):
    assert answers.hear(command())
    assert answers.hear(command()) is None
    assert answers.error()["code"] == "REPEATED"
    later = Answers(known=["t1"])
    assert later.hear(command()) is None
    for i in range(REMEMBERED):
        assert later.hear(command(transaction=f"x{i}"))
    assert later.hear(command()), "only the newest are remembered"


def test_a_retained_command_is_passed_over(answers, caplog):
    assert answers.hear(command(), retained=True) is None
    assert not answers
    assert "send commands without retain" in caplog.text


@pytest.mark.parametrize(
    "foreign", ["nanotox/v1/lab/other/reply/x", "nanotox/v1/lab/bench-1/verdict", TOPICS.of("reply/#"), ""]
)
def test_replies_stay_below_the_station(answers, foreign):
    answers.hear(command(), name="boot", response_topic=foreign)
    assert [(m.topic, m.retain, m.expiry_s) for m in answers] == [(TOPICS.of("reply/t1"), False, 60)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
near_misses = st.builds(
    lambda key, value: json.dumps(command(**{key: value})).encode(),
    st.sampled_from(["transaction", "issued_at", "operator", "args", "reason", "more"]),
    json_values,
)


close_args = st.builds(
    lambda made: json.dumps(command(args=made)).encode(),
    st.dictionaries(
        st.sampled_from(sorted({item.name for args in COMMANDS.values() for item in fields(args)})),
        json_values
        | st.sampled_from(["pixel_size", "correct", "toxic", "grid", "phase-cell", 1, 3.5])
        | st.lists(st.fixed_dictionaries({"row": json_values, "col": json_values, "label": json_values})),
        max_size=6,
    ),
)


@settings(max_examples=2000 if os.environ.get("NANOTOX_LONG") else 300)
@given(
    name=st.sampled_from(sorted(COMMANDS)) | st.text(max_size=40),
    text=st.binary(max_size=200)
    | near_misses
    | close_args
    | json_values.map(lambda v: json.dumps(v).encode()),
    asked=st.none() | st.text(max_size=30) | st.text(max_size=10).map(lambda end: TOPICS.of("reply/") + end),
)
def test_junk_is_refused_and_never_an_error(name, text, asked):
    answers = Answers()
    order = answers.hear(text, name=name, response_topic=asked)
    for message in answers:
        assert message.topic.startswith(TOPICS.of("reply/"))
        assert len(message.payload) <= MAX_MESSAGE_BYTES
        answers.error()
    assert order is None or not answers


def test_every_code_of_a_refusal_stands_in_the_docs():
    root = Path(__file__).parents[2]
    source = "".join(path.read_text() for path in (root / "device").rglob("*.py"))
    codes = set(re.findall(r'(?:RefusedError|Refusal)\(\s*"([A-Z_]+)"', source)) | set(_CODES.values())
    assert len(codes) > 20
    told = (root / "docs" / "mqtt.md").read_text()
    assert {code for code in codes if f"`{code}`" not in told} == set()
