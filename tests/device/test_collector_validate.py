"""Claims about payloads that are not of their form: jsonschema is the judge, and each is told in words."""

import copy
import json
import random
from datetime import UTC, datetime

import jsonschema
import pytest

from device.collector.check import check
from device.collector.store import Store
from device.collector.validate import fault_of
from device.messages import Identity, State, body_of, payload, schema_of, seal_record, stub
from device.messages.schema import json_schema
from device.messages.sealing import canonical, seal
from device.publishers import Received
from device.records import Alert, Cell, CellClass

NOW = datetime(2026, 3, 4, tzinfo=UTC)
CELL = Cell(1, 1.25, 2.5, "dead", CellClass.ROUNDED, 0.9, 120.5, False, True)
OTHERS = (
    None,
    True,
    0,
    -3,
    1.0,
    2.5,
    "",
    "toxic",
    "BLUR",
    "2026-03-04T00:00:00.000Z",
    [],
    {},
    [None],
    {"a": 1},
)


def sealed(record):
    identity = Identity(schema_of(record), "lab", "b", "ledger", 1, "boot", NOW, "synced", "0" * 64)
    return json.loads(seal_record(record, identity).message)


@pytest.fixture(scope="module")
def published(make_reading, judged_plate):
    """One payload of each kind that a collector validates."""
    report, verdicts, _ = judged_plate()
    verdicts[2]["fields"] = verdicts[2]["fields"][:2]
    for values in (verdicts[2], report):
        values["reference"]["fields"] = values["reference"]["fields"][:2]
    alert = sealed(Alert("BLUR", True, "out of focus", NOW))
    identity = {key: value for key, value in alert.items() if key not in body_of(alert)}
    verdict = verdicts[2] | identity | {"schema": "verdict/1"}
    return [
        sealed(make_reading(3, 1, field=1, cells=(CELL, CELL))),
        verdict,
        report | identity | {"schema": "plate/1"},
        alert,
        payload(State("state/1", "boot", NOW, "idle", None)),
        payload(State("latest/1", "boot", NOW, "idle", None)) | {"valid_until": "x", "verdict": verdict},
    ]


def spoiled(values, rng):
    """Return a copy with one value changed, left out or added, anywhere in it."""
    values = copy.deepcopy(values)
    inner = values
    while True:
        key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.8:
            inner = inner[key]
            continue
        if isinstance(inner, dict) and rng.random() < 0.2 and key != "schema":
            del inner[key]
        elif isinstance(inner, dict) and rng.random() < 0.1:
            inner["more"] = 1
        elif key != "schema":
            inner[key] = rng.choice(OTHERS)
        return values


def test_it_judges_as_jsonschema_does(published):
    rng = random.Random(7)  # noqa: S311 - a schedule, no secret
    counts = {True: 0, False: 0}
    for values in published:
        judge = jsonschema.Draft202012Validator(json_schema(values["schema"]))
        for changed in (values, *(spoiled(values, rng) for _ in range(20))):
            is_valid = judge.is_valid(changed)
            assert (fault_of(changed) is None) == is_valid, (fault_of(changed), changed)
            counts[is_valid] += 1
    assert min(counts.values()) > 15


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"n_live": "many"}, "n_live is 'many'; expected integer"),
        ({"n_live": True}, "n_live is True; expected integer"),
        ({"n_live": 2.0}, None),
        ({"n_live": 2.5}, "n_live is 2.5; expected integer"),
        ({"outcome": "non_toxic"}, "outcome is 'non_toxic'; expected one of inconclusive, invalid"),
        ({"affected": "x"}, "affected is 'x'; expected number"),
        ({"reasons": ["BLUR", "<b>"]}, "reasons[1] is '<b>'; expected one of"),
        ({"quality": {}}, "quality.passed is missing"),
        ({"taken_at": "today"}, "taken_at is 'today'; expected text that matches"),
        ({"cells": {}}, "cells is {}; expected array"),
        ({"tally": 3}, "tally is 3; expected object"),
        ({"more": [1]}, None),
    ],
)
def test_a_fault_is_told_with_its_place_and_what_was_expected(published, change, told):
    fault = fault_of(published[0] | change)
    assert fault == told if told is None else fault.startswith(told)


def received(values, **change):
    values = values | change
    body = canonical(values | {"hash": seal(values)})
    return Received(f"nanotox/v1/lab/b/{values['schema'].split('/')[0]}", body)


def test_what_is_whole_but_not_of_its_form_keeps_its_place_and_is_told_once(published, tmp_path):
    reading = published[0]
    kept = [
        check(received(reading), "nanotox/v1"),
        check(received(reading, seq=2, n_live="many"), "nanotox/v1"),
        check(received(reading, seq=3, schema="reading/2"), "nanotox/v1"),
        check(Received("nanotox/v1/lab/b/reading", stub(received(reading, seq=4).payload)), "nanotox/v1"),
    ]
    assert [(r.kind, r.fault) for r in kept] == [
        ("reading", None),
        (None, "n_live is 'many'; expected integer"),
        (None, "the form reading/2 is unknown; expected one of this version, take a newer nanotox"),
        (None, None),
    ]
    store = Store(tmp_path / "lab.db")
    found = store.keep(kept)
    assert [(item.topic, item.why) for item in found] == [("lab/b/reading", r.fault) for r in kept[1:3]]
    assert store.keep(kept) == [], "they come again, and are known"
    assert store.count() == (4, 2)
    assert store.gaps()["ledger"].missing == []
    store.close()
