import copy
import json
import typing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import jsonschema
import numpy as np
import pytest

from device.messages import (
    LEAVES,
    MAX_MESSAGE_BYTES,
    SCHEMAS,
    Head,
    Identity,
    Info,
    State,
    Topics,
    payload,
    schema_of,
    seal_record,
)
from device.messages.commands import COMMANDS
from device.messages.schema import asyncapi, field_docs, json_schema
from device.messages.sealing import canonical, is_sealed, parse, rfc3339, seal
from device.records import (
    Cell,
    CellClass,
    FieldCount,
    Interval,
    Latest,
    ModelId,
    Outcome,
    PlateReport,
    Quality,
    Reading,
    Reason,
    Reference,
    SampleVerdict,
    Tally,
    Verdict,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, 891999, tzinfo=UTC)
MODEL = ModelId("phase-cell", "a" * 64, True)
IDENTITY = Identity(
    "reading/1", "lab", "bench-1", "c" * 32, 7, "b" * 32, NOW, "synced", "0" * 64, "", True, (), None
)


def cell(i):
    return Cell(i, 1.5, 2.5, "dead", CellClass.LYSED, 0.987654, None, False, True)


def reading(n_cells=2):
    quality = Quality(True, (), (Reason.SCALE_ASSUMED,), 0.1, None, -1.0, 0.0, 0.0, 0.5, 0.1, 0.65, "assumed")
    return Reading(
        "f.png", 3, NOW, "A1", 0, False, Outcome.INCONCLUSIVE, (Reason.TOO_FEW_FIELDS,),
        0, n_cells, 1, 1.0, None,
        Tally(0, 0, n_cells, None, 0.25), quality, tuple(cell(i) for i in range(n_cells)), 480, 640,
        "adherent", "phase", "hybrid", MODEL, None, labels=np.zeros((3, 4), np.uint16),
    )  # fmt: skip


def verdict(n_fields=2, n_reference=2):
    counts = tuple(FieldCount(i, 20, 3, 1, 0.25, 0.5) for i in range(max(n_fields, n_reference)))
    hints = typing.get_type_hints(Verdict)
    blank = {bool: False, int: 0, str: ""}
    values = {
        name: () if typing.get_origin(hint) is tuple else blank.get(hint) for name, hint in hints.items()
    }
    values |= {
        "well": "A1", "sample": "zinc", "role": "test", "dose": 10.0, "dose_unit": "ug/mL", "replicate": 1,
        "stage": "final", "outcome": Outcome.TOXIC, "reasons": (), "rule": "iso10993-5-extract/1",
        "rule_sha256": "d" * 64, "n_fields": 2, "n_fields_refused": 0, "n_fields_counted": 2, "n_cells": 48,
        "n_dead": 8, "bounds": Interval(0.1, 0.2), "fields": counts[:n_fields], "assay": "adherent",
        "reference": Reference(("B1",), 100, 2, counts[:n_reference]),
        "modality": "phase", "method": "hybrid", "cell_model": MODEL, "simulated": True,
    }  # fmt: skip
    return Verdict(**values)


def plate(n_samples=2, n_reference=2):
    counts = tuple(FieldCount(i, 20, 3, 1, 0.25, 0.5) for i in range(n_reference))
    sample = SampleVerdict(
        "z", "test", 10.0, "ug/mL", Outcome.INVALID, (), "any", ("A1",), (Outcome.INVALID,), 3, "moderate",
        0.6, Interval(0.5, 0.7), None, None,
    )  # fmt: skip
    return PlateReport(
        plate="p1", operator=None, rule="rule/1", rule_sha256="d" * 64, rule_text=None, reasons=(),
        controls_valid=True, samples=(sample,) * n_samples, doses=(),
        reference=Reference(("B1",), 100, 2, counts), n_wells=n_samples,
        simulated=False,
    )  # fmt: skip


INFO = Info(
    "info/1", "lab", "bench-1", "b", "c", "0.1.0", NOW, "adherent", "phase", "hybrid", MODEL, None, "r/1",
    "folder",
    0.65, "measured", "e" * 64, ("reading/1",),
)  # fmt: skip
STATE = State("state/1", "b", NOW, "running", None, None, None, 3, 0, None)
HEAD = Head("head/1", "c", "b", 3, "f" * 64, 2, "e" * 64)


@pytest.mark.parametrize("record", [reading(), verdict(), plate()])
def test_what_is_sent_obeys_its_schema_and_seals_itself(record):
    identity = replace(IDENTITY, schema=schema_of(record))
    sealed = seal_record(record, identity)
    message = parse(sealed.message)
    schema = json_schema(identity.schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(message, schema)
    assert set(message) == set(schema["properties"]), "the producer is strict: no field more, none less"
    assert seal(message) == message["hash"] == sealed.hash
    assert is_sealed(sealed.message, sealed.hash)
    altered = (sealed.message.replace(b"true", b"null", 1), canonical(message | {"hash": "0" * 64}))
    assert not any(is_sealed(other, sealed.hash) for other in altered)
    assert message["research_use_only"] is True


@pytest.mark.parametrize("record", [INFO, STATE, HEAD])
def test_what_is_said_of_the_station_obeys_its_schema(record):
    jsonschema.validate(payload(record), json_schema(record.schema))


def test_values_are_plain_and_skipped_fields_are_gone():
    told = payload(reading())
    assert "labels" not in told
    assert told["outcome"] == "inconclusive"
    assert told["reasons"] == ["TOO_FEW_FIELDS"]
    assert told["taken_at"] == "2026-03-04T05:06:07.891Z"
    assert told["p_toxic"] is None
    assert told["cell_model"] == {"name": "phase-cell", "sha256": "a" * 64, "trusted": True}
    assert told["cells"][0]["cell_class"] == "lysed"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan")])
def test_a_number_that_json_does_not_know_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"affected is (nan|inf); expected a finite number or None"):
        payload(replace(reading(), affected=value))


def test_numbers_of_numpy_are_plain_numbers():
    told = payload(replace(reading(), n_live=np.int64(3), affected=np.float32(0.5)))
    assert (type(told["n_live"]), type(told["affected"])) == (int, float)


def test_a_value_that_is_no_record_is_refused():
    with pytest.raises(TypeError, match="made of a record, not of dict"):
        payload({"a": 1})
    with pytest.raises(TypeError, match="not of ndarray"):
        payload(replace(reading(), source=np.zeros(2)))


def test_times_are_utc_with_milliseconds_and_have_a_zone():
    assert rfc3339(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))) == "2025-12-31T23:00:00.000Z"
    with pytest.raises(ValueError, match="has no zone"):
        rfc3339(NOW.replace(tzinfo=None))


def test_the_canonical_text_is_one_for_equal_values():
    assert canonical({"b": 1, "a": "µ"}) == '{"a":"µ","b":1}'.encode()
    assert canonical({"a": 1, "b": [None]}) == canonical({"b": [None], "a": 1})


@pytest.mark.parametrize(
    ("record", "left_out"),
    [
        (reading(400), ["cells"]),
        (verdict(3, 300), ["reference.fields"]),
        (verdict(300, 300), ["reference.fields", "fields"]),
        (plate(2, 300), ["reference.fields"]),
        (plate(200), ["reference.fields", "samples"]),
    ],
)
def test_a_large_record_leaves_out_whole_lists_and_says_which(record, left_out):
    before = copy.deepcopy(payload(record))
    sealed = seal_record(record, replace(IDENTITY, schema=schema_of(record)))
    message = json.loads(sealed.message)
    assert len(sealed.message) <= MAX_MESSAGE_BYTES
    assert message["left_out"] == left_out
    assert seal(message) == message["hash"]
    assert json.loads(sealed.full) == before == payload(record)
    jsonschema.validate(message, json_schema(sealed.schema))


def test_a_record_that_cannot_be_made_small_is_refused():
    with pytest.raises(ValueError, match=r"takes \d+ bytes; expected at most 16384"):
        seal_record(replace(reading(), source="x" * 20_000), IDENTITY)


@pytest.mark.parametrize("n_fields", [128, 129, 130, 131])  # the first is cut at 130
def test_latest_is_within_the_limit_around_any_verdict(n_fields):
    sealed = seal_record(verdict(n_fields, 2), replace(IDENTITY, schema="verdict/1"))
    body = canonical(payload(Latest("latest/1", NOW, json.loads(sealed.message))))
    assert len(body) <= MAX_MESSAGE_BYTES
    jsonschema.validate(json.loads(body), json_schema("latest/1"))


def test_topics_end_with_the_leaf():
    assert Topics("lab", "bench-1").of("verdict") == "nanotox/v1/lab/bench-1/verdict"


def test_every_leaf_has_a_form():
    assert set(LEAVES.values()) == set(SCHEMAS)


def test_asyncapi_holds_every_channel_and_its_references_lead_somewhere():
    document = asyncapi("0.1.0")
    asked = {f"cmd_{name}" for name in COMMANDS}
    assert set(document["channels"]) == {*LEAVES, "availability", "image_overlay", "reply", *asked}
    picture = document["operations"]["image_overlay"]["bindings"]["mqtt"]
    assert (picture["qos"], picture["retain"]) == (0, True)
    assert document["channels"]["image_overlay"]["address"] == "nanotox/v1/{site}/{station}/image/overlay"
    assert document["channels"]["cmd_plate_start"]["address"] == "nanotox/v1/{site}/{station}/cmd/plate_start"
    actions = {name: operation["action"] for name, operation in document["operations"].items()}
    assert {name for name, action in actions.items() if action == "receive"} == asked
    assert document["channels"]["verdict"]["address"] == "nanotox/v1/{site}/{station}/verdict"
    assert document["operations"]["verdict"]["bindings"]["mqtt"] == {
        "qos": 1,
        "retain": False,
        "bindingVersion": "0.2.0",
    }
    assert document["operations"]["head"]["bindings"]["mqtt"]["retain"] is True
    references = _references(document)
    assert references
    for reference in references:
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/")]


def _references(value):
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in _references(item)]
    return [found for item in value for found in _references(item)] if isinstance(value, list) else []


def test_descriptions_come_from_the_records():
    assert field_docs(Reading)["n_other"].startswith("Regions that are no cells.")
    assert json_schema("verdict/1")["properties"]["grade"]["description"].startswith("ISO 10993-5 reactivity")
