"""Reads plain JSON values into frozen records: unknown keys are faults, and all faults come at once."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Record = TypeVar("_Record")


def parse_record(kind: type[_Record], document: object) -> tuple[_Record | None, list[str]]:
    """Return a JSON document as a record, and what is wrong with it.

    Parameters
    ----------
    kind : type
        Frozen dataclass whose fields are str, bool, int, float, Literal, other such records, `tuple[X, ...]`,
        `Mapping[str, X]` or unions of these with None.
    document : object
        What json or tomllib gave.

    Returns
    -------
    record : kind or None
        None if there is any fault.
    faults : list of str
        One sentence each: the key's path, what was found, what was expected.
    """
    faults: list[str] = []
    record = _parse(kind, document, "", faults)
    return (None if faults else cast(_Record, record)), faults


def _parse(kind: object, value: object, path: str, faults: list[str]) -> object:
    """Return `value` as the annotated type `kind`, or note what is wrong with it at `path`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _parse_record(kind, value, path, faults)
    if origin in (Union, types.UnionType):
        return _parse_union(arguments, value, path, faults)
    if origin is tuple and isinstance(value, list):
        return tuple(_parse(arguments[0], item, f"{path}[{i}]", faults) for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _parse(arguments[1], item, f"{path}.{key}", faults) for key, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if kind is float and type(value) in (int, float) and math.isfinite(cast(float, value)):
        return float(cast(float, value))
    if kind in (int, str, bool) and type(value) is kind:
        return value
    faults.append(f"{path} is {value!r}; expected {_expected(kind)}")
    return None


def _parse_union(arguments: tuple[object, ...], value: object, path: str, faults: list[str]) -> object:
    if value is None and types.NoneType in arguments:
        return None
    kinds = [kind for kind in arguments if kind is not types.NoneType]
    for kind in kinds[:-1]:
        attempt: list[str] = []
        parsed = _parse(kind, value, path, attempt)
        if not attempt:
            return parsed
    return _parse(kinds[-1], value, path, faults)


def _parse_record(kind: type["DataclassInstance"], value: object, path: str, faults: list[str]) -> object:
    if not isinstance(value, dict):
        faults.append(f"{path or 'the document'} is {value!r}; expected an object")
        return None
    prefix = f"{path}." if path else ""
    hints = get_type_hints(kind)
    optional = {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}
    faults += [f"unknown key {prefix}{key}; remove it" for key in value if key not in hints]
    faults += [f"{prefix}{key} is missing" for key in hints if key not in value and key not in optional]
    parsed = {key: _parse(hints[key], value[key], prefix + key, faults) for key in hints if key in value}
    return None if faults else kind(**parsed)


def _expected(kind: object) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(repr(argument) for argument in arguments)
    if origin is tuple:
        return "a list"
    if origin is Mapping:
        return "an object"
    words: dict[object, str] = {
        float: "a finite number",
        int: "a whole number",
        str: "text",
        bool: "true or false",
    }
    return words.get(kind, str(kind))
