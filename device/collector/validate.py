"""Whether a payload is of its form: the JSON Schema of the records, compiled once, checked in microseconds.

It knows what `json_schema` makes, no more; the tests hold it against jsonschema, which is far slower.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from device.messages import SCHEMAS
from device.messages.schema import json_schema
from device.tables import shorten

Check = Callable[[Any], str | None]
"""Takes a value and says what is wrong with it, beginning with its path; None where nothing is."""

_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: type(v) is int or (type(v) is float and v.is_integer()),
    "number": lambda v: type(v) is int or (type(v) is float and math.isfinite(v)),
    "string": lambda v: isinstance(v, str),
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
}


def fault_of(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a payload by the form in its `schema`; None where it is as it should be.

    Keys that the form does not know are passed over, because the producer may be newer.

    Raises
    ------
    KeyError
        If this version does not know the form.
    """
    fault = _compiled(values["schema"])(values)
    return None if fault is None else fault.lstrip(".")


@cache
def _compiled(name: str) -> Check:
    if name not in SCHEMAS:
        raise KeyError(name)
    schema = json_schema(name)
    definitions: dict[str, Check] = {}
    for key, definition in schema["$defs"].items():
        definitions[key] = _check(definition, definitions)
    return _check(schema, definitions)


def _check(schema: Mapping[str, Any], definitions: dict[str, Check]) -> Check:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return lambda value: definitions[name](value)
    if "anyOf" in schema:
        return _any_of([_check(arm, definitions) for arm in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return _one_of(schema.get("enum", [schema.get("const")]))
    kind = schema["type"]
    is_kind = _KINDS[kind]
    if kind == "object":
        inner = {key: _check(item, definitions) for key, item in schema.get("properties", {}).items()}
        return _object(inner, schema.get("required", ()))
    if kind == "array":
        return _array(_check(schema["items"], definitions))
    if "pattern" in schema:
        matches = re.compile(schema["pattern"]).search
        expected = f"text that matches {schema['pattern']}"
        return lambda v: (
            None if isinstance(v, str) and matches(v) else f" is {shorten(v)}; expected {expected}"
        )
    return lambda value: None if is_kind(value) else f" is {shorten(value)}; expected {kind}"


def _any_of(checks: list[Check]) -> Check:
    def check(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
        faults = []
        for arm in checks:
            fault = arm(value)
            if fault is None:
                return None
            faults.append(fault)
        return faults[0]

    return check


def _one_of(allowed: list[Any]) -> Check:
    words = frozenset(item for item in allowed if isinstance(item, str))
    numbers = frozenset(item for item in allowed if type(item) in (int, float))
    expected = "one of " + ", ".join(map(str, allowed[:8])) + (", ..." if len(allowed) > 8 else "")

    def check(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
        known = words if isinstance(value, str) else numbers if type(value) in (int, float) else ()
        if value in known:
            return None
        return f" is {shorten(value)}; expected {expected}"

    return check


def _array(item_check: Check) -> Check:
    def check(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
        if not isinstance(value, list):
            return f" is {shorten(value)}; expected array"
        for number, item in enumerate(value):
            if (fault := item_check(item)) is not None:
                return f"[{number}]{fault}"
        return None

    return check


def _object(properties: dict[str, Check], required: list[str]) -> Check:
    items, needed = tuple(properties.items()), frozenset(required)

    def check(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
        if not isinstance(value, dict):
            return f" is {shorten(value)}; expected object"
        if missing := needed - value.keys():
            return f".{min(missing)} is missing"
        for name, inner in items:
            if name in value and (fault := inner(value[name])) is not None:
                return f".{name}{fault}"
        return None

    return check
