"""Back from payloads to records: a verdict is judged again from nothing but what it carries."""

import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from device.analysis.evidence import Evidence
from device.analysis.grading import RULES, Rule, rule_sha256
from device.analysis.verdict import PLANNED, judge_well
from device.messages import Published, payload, schema_of
from device.messages.sealing import canonical
from device.records import PlateReport, Reason, Reference, Verdict

R = TypeVar("R")

_NAMES = {"plate", "operator", "decision_sha256", "calibrations"}
"""What a decision does not depend on."""


def parse(record: type[R], values: Mapping[str, Any]) -> R:
    """Return the record whose payload `values` is; keys that it does not know are passed over.

    A `Verdict` cannot be made this way, because `non_toxic` is judged and never read: see `recompute`.

    Raises
    ------
    ValueError
        If a key is missing or its value is none that the record may hold.
    """
    hints = get_type_hints(record)
    found = {}
    for item in fields(cast("Any", record)):
        if item.metadata.get("payload", True):
            if item.name not in values:
                raise ValueError(f"{item.name} is missing; expected a payload of {record.__name__}")
            found[item.name] = _value(hints[item.name], values[item.name], item.name)
    return record(**found)


def rule_of(values: Mapping[str, Any]) -> Rule:
    """Return the rule by which the payload of a verdict or plate was judged, a lab's own from its text.

    ValueError if this version does not know it, or if its hash is not the one that stands there.
    """
    text = values["rule_text"]
    rule = RULES.get(values["rule"]) if text is None else parse(Rule, json.loads(text))
    if rule is None or rule.id != values["rule"] or rule_sha256(rule) != values["rule_sha256"]:
        raise ValueError(
            f"rule {values['rule']} with hash {values['rule_sha256']} is unknown; "
            f"expected one of {', '.join(RULES)} as of this version, or its text"
        )
    return rule


def recompute(values: Mapping[str, Any]) -> Verdict:
    """Return the verdict that follows from the evidence in the payload of a verdict, its outcome unread.

    ValueError if the payload is incomplete, such as a message that had to leave out its fields.
    """
    if values["n_fields"] != len(values["fields"]):
        raise ValueError(
            f"{len(values['fields'])} of {values['n_fields']} fields are here; expected all of them: "
            "take the complete record from the journal"
        )
    return judge_well(
        evidence_of(values),
        None if values["reference"] is None else parse(Reference, values["reference"]),
        rule_of(values),
        stage=values["stage"],
        control_faults=tuple(map(Reason, values["control_faults"])),
        looks=tuple(values["looks"]),
        scale_may_be_assumed=values["scale_may_be_assumed"],
        plate=values["plate"],
    )


def evidence_of(values: Mapping[str, Any]) -> Evidence:
    """Return what was seen in a well, from the payload of its verdict."""
    plan = {name: values[name] for name in PLANNED} | {"fields": values["n_fields_planned"]}
    unsaid = {"dead_fraction": None, "files": (), "positions": ()}
    return parse(Evidence, {**values, "plan": unsaid | plan})


def with_decision(verdicts: Sequence[Verdict], report: PlateReport) -> PlateReport:
    """Return the report of a plate with the hash of all that was decided, its final verdicts included."""
    decided = [
        {key: value for key, value in payload(record).items() if key not in _NAMES}
        for record in (*verdicts, report)
    ]
    return replace(report, decision_sha256=hashlib.sha256(canonical({"decided": decided})).hexdigest())


def plate_lines(verdicts: Sequence[Verdict], report: PlateReport) -> list[dict[str, Any]]:
    """Return a judged plate as the JSON objects that `grade --json` prints: its wells, then the whole."""
    records: tuple[Published, ...] = (*verdicts, with_decision(verdicts, report))
    return [{"schema": schema_of(record), **payload(record), "research_use_only": True} for record in records]


def _value(hint: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - any field's type
    origin, arms = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in arms:
            return None
        return _value(next(arm for arm in arms if arm is not types.NoneType), value, name)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arms[:1] * len(value) if arms[-1] is Ellipsis else arms
        return tuple(_value(kind, item, name) for kind, item in zip(kinds, value, strict=True))
    if origin is Literal and value in arms:
        return arms[arms.index(value)]
    if hint is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if is_dataclass(hint) and isinstance(value, Mapping):
        return parse(cast("type[Any]", hint), value)
    if hint is datetime and isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    if type(value) is hint:
        return value
    raise ValueError(f"{name} is {value!r}; expected {getattr(hint, '__name__', hint)}")
