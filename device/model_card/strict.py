"""Reads plain JSON values into frozen records: unknown keys are faults, and all faults come at once.

Also the small files in which a station keeps such a record beside its journal.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from device.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Record = TypeVar("_Record")
_WORDS: dict[object, str] = {
    float: "a finite number",
    int: "a whole number",
    str: "text",
    bool: "true or false",
    tuple: "a list",
    Mapping: "an object",
}


def read_record(kind: type[_Record], path: Path, advice: str) -> _Record | None:
    """Return the record in a JSON file, None where there is no file.

    ConfigError with every fault if it is damaged; `advice` says what was expected and what to do.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); {advice}") from error
    record, faults = parse_record(kind, document)
    if record is None:
        raise ConfigError([f"{path}: {fault}; {advice}" for fault in faults])
    return record


def write_record(path: Path, record: "DataclassInstance") -> None:
    """Write a record as JSON; the file is on the disk whole, or is as it was before.

    ConfigError if it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(record), allow_nan=False) + "\n", encoding="utf-8")
        sync_to_disk(partial)
        partial.replace(path)
        sync_to_disk(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); expected a folder with rights"
        ) from error


def sync_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk; OSError if it cannot be."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parse_record(kind: type[_Record], document: object) -> tuple[_Record | None, list[str]]:
    """Return what json gave as a record, None if there is any fault, and the faults, one sentence each.

    `kind` is a frozen dataclass whose fields are str, bool, int, float, Literal, other such records,
    `tuple[X, ...]`, `Mapping[str, X]`, or a union of None and plain values with one of these at its end.
    """
    faults: list[str] = []
    record = _parse(kind, document, "", faults)
    return (None if faults else cast(_Record, record)), faults


def _parse(kind: Any, value: object, path: str, faults: list[str]) -> object:  # noqa: ANN401 - any field's type
    """Return `value` as the annotated type `kind`, or note what is wrong with it at `path`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _parse_record(cast("type[DataclassInstance]", kind), value, path, faults)
    if origin is UnionType:
        if type(value) in arguments and type(value) is not float:
            return value
        return _parse([part for part in arguments if part is not NoneType][-1], value, path, faults)
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
    choices = " or ".join(repr(argument) for argument in arguments)
    faults.append(f"{path} is {value!r}; expected {choices if origin is Literal else _WORDS[origin or kind]}")
    return None


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
