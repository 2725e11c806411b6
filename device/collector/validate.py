"""Whether a payload is of its form: the JSON Schema of the records, compiled once, checked in microseconds.

It knows what `json_schema` makes, no more; the tests hold it against jsonschema, which is far slower.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType
from typing import Any

from device.messages import SCHEMAS
from device.messages.schema import json_schema
from device.tables import shorten

Check = Callable[[Any], str | None]
"""Takes a value and says what is wrong with it, beginning with its path; None where nothing is."""

_TYPES: dict[str, frozenset[type]] = {
    "null": frozenset({NoneType}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "string": frozenset({str}),
}
"""Of what JSON says, those that a plain kind has; besides, a number such as 2.0 is an integer."""


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
    if kind == "object":
        return _object(schema.get("properties", {}), definitions)
    if kind == "array":
        return _array(_check(schema["items"], definitions))
    if "pattern" in schema:
        matches = re.compile(schema["pattern"]).search
        expected = f"text that matches {schema['pattern']}"
        return lambda v: (
            None if isinstance(v, str) and matches(v) else f" is {shorten(v)}; expected {expected}"
        )
    types = _TYPES[kind]
    return lambda v: (
        None
        if type(v) in types or (kind == "integer" and type(v) is float and v.is_integer())
        else f" is {shorten(v)}; expected {kind}"
    )


def _plain_types(schema: Mapping[str, Any]) -> frozenset[type]:
    """Return the types of values that are right by their type alone."""
    if "anyOf" in schema:
        return frozenset().union(*map(_plain_types, schema["anyOf"]))
    if schema.keys() & {"enum", "const", "pattern"}:
        return frozenset()
    return _TYPES.get(schema.get("type", ""), frozenset())


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


def _object(properties: Mapping[str, Any], definitions: dict[str, Check]) -> Check:
    """Return a check for an object that has all `properties`, as every form wants it."""
    items = [(name, _plain_types(item), _check(item, definitions)) for name, item in properties.items()]

    def check(value: Any) -> str | None:  # noqa: ANN401 - any JSON value
        if not isinstance(value, dict):
            return f" is {shorten(value)}; expected object"
        for name, types, inner in items:
            try:
                found = value[name]
            except KeyError:
                return f".{name} is missing"
            # a field has hundreds of values, and a call for each takes longer than to parse its message
            if type(found) not in types and (fault := inner(found)) is not None:
                return f".{name}{fault}"
        return None

    return check
