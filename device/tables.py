"""Tables that people write, TOML or JSON, read into records: every fault at once, each with its key."""

import difflib
import math
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from datetime import datetime
from enum import EnumType
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from device.analysis.grading import RULES, Rule
from device.errors import ConfigError


def read_toml(path: Path, expected: str, text: str | None = None) -> dict[str, Any]:
    """Return a TOML file, or a `text` in its place, as a table; ConfigError says what was `expected`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8") if text is None else text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected {expected}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}; expected {expected}") from error


class TableReader:
    """Reads tables into records and gathers every fault on the way; their paths are relative to `folder`."""

    def __init__(self, folder: Path = Path()) -> None:
        self.folder = folder
        self.faults: list[str] = []
        """One sentence each, that begins with the key."""

    def record(
        self, table: Mapping[str, Any], cls: type[Any], where: str, *, also: tuple[str, ...] = ()
    ) -> object:
        """Return `table`, which stands at key `where`, as a record `cls`; None with faults noted."""
        known, hints = {item.name: item for item in fields(cls)}, get_type_hints(cls)
        prefix = where and f"{where}."
        before = len(self.faults)
        self.unknown_keys(table, known, prefix, also=also)
        values: dict[str, Any] = {}
        for name, item in known.items():
            hint = _without_none(hints[name])
            if name in table and table[name] is None and hint is not hints[name]:
                values[name] = None  # JSON has a null, TOML leaves the key out
            elif name in table:
                values[name] = self.value(table[name], hint, item, f"{prefix}{name}")
            elif item.default is MISSING and item.default_factory is MISSING:
                self.faults.append(f"{prefix}{name} is missing; expected {_expected(hint, item.metadata)}")
            elif isinstance(item.default, Path):
                values[name] = self.folder / item.default
        try:
            return cls(**values) if len(self.faults) == before else None
        except ValueError as error:
            self.faults.append(f"{where}: {error}")
            return None

    def value(self, found: object, hint: Any, item: Field[Any], key: str) -> object:  # noqa: ANN401 - any option's type
        """Return `found` as `hint` wants it, or note a fault and return None."""
        inner: Any = get_args(hint)[0] if get_origin(hint) is tuple else None
        if (
            isinstance(inner, type)
            and is_dataclass(inner)
            and isinstance(found, list)
            and all(isinstance(part, dict) for part in found)
        ):
            return tuple(self.record(part, inner, f"{key}[{i}]") for i, part in enumerate(found))
        try:
            value = _convert(found, hint, self.folder)
            if _is_allowed(value, item.metadata):
                return value
        except (ValueError, OverflowError):
            pass
        self.faults.append(f"{key} is {shorten(found)}; expected {_expected(hint, item.metadata)}")
        return None

    def unknown_keys(
        self, table: Iterable[str], known: Iterable[str], where: str, *, also: tuple[str, ...] = ()
    ) -> None:
        """Note a fault for each key of `table` that is not known; `where` is what stands before it."""
        names = [*also, *known]
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                expected = ", ".join(known) or "no options"
                self.faults.append(f"{where}{key} is unknown; expected {expected}{hint}")


def read_rule(named: str | Path) -> Rule:
    """Return a rule: one that this version knows by its name, or a lab's own from a TOML file.

    The file says `based_on`, the name of a known rule, `id`, a name and version of its own, and whatever
    differs.

    Raises
    ------
    ConfigError
        If there is no such rule or file, or with every fault of the file.
    """
    if str(named) in RULES:
        return RULES[str(named)]
    path, expected = Path(named), f"one of {', '.join(RULES)}, or a TOML file of your own"
    if path.suffix != ".toml":
        raise ConfigError(f"rule is {str(named)!r}; expected {expected}")
    table = read_toml(path, "a rule, such as id = and based_on =")
    based_on = table.pop("based_on", None)
    if not isinstance(based_on, str) or based_on not in RULES:
        found = "missing" if based_on is None else repr(based_on)
        raise ConfigError(f"based_on is {found}; expected one of {', '.join(RULES)} ({path.name})")
    reader = TableReader(path.parent)
    if not isinstance(table.get("id"), str) or table["id"] in RULES:
        found = repr(table["id"]) if "id" in table else "missing"
        reader.faults.append(f"rule.id is {found}; expected a name of its own, such as our-lab/1")
    as_toml = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(RULES[based_on]).items()}
    rule = reader.record(as_toml | table, Rule, "rule")
    if reader.faults or not isinstance(rule, Rule):
        raise ConfigError([f"{fault} ({path.name})" for fault in reader.faults])
    return rule


def shorten(found: object) -> str:
    """Return what was found as an error tells it, cut where it is long."""
    told = repr(found)
    return told if len(told) <= 100 else f"{told[:97]}..."


def _without_none(hint: Any) -> Any:  # noqa: ANN401 - any option's type
    if get_origin(hint) in (Union, types.UnionType):
        return next(arm for arm in get_args(hint) if arm is not types.NoneType)
    return hint


def _convert(found: Any, hint: Any, folder: Path) -> Any:  # noqa: ANN401 - any option's type
    """Return `found` as the type `hint`; ValueError if it is no such thing."""
    if get_origin(hint) is Literal and found in get_args(hint):
        return found
    if get_origin(hint) is tuple and isinstance(found, list):
        return tuple(_convert(item, get_args(hint)[0], folder) for item in found)
    if hint is Path and isinstance(found, str) and found:
        # known inside the service only, so whoever opens the file resolves it
        return Path(found) if found.startswith("$CREDENTIALS_DIRECTORY/") else folder / found
    if isinstance(hint, EnumType) and isinstance(found, str):
        return hint(found)
    if hint is float and type(found) in (int, float) and math.isfinite(found):
        return float(found)
    if hint is datetime and isinstance(found, str) and (time := datetime.fromisoformat(found)).tzinfo:
        return time
    if type(found) is (get_origin(hint) or hint):  # a bool is no whole number
        return found
    raise ValueError(found)


def _is_allowed(value: Any, limits: Mapping[str, Any]) -> bool:  # noqa: ANN401 - any option's type
    if "range" in limits:
        low, high = limits["range"]
        return bool(low <= value <= high)
    return "pattern" not in limits or re.fullmatch(limits["pattern"], value) is not None


def _expected(hint: Any, metadata: Mapping[str, Any]) -> str:  # noqa: ANN401 - any option's type
    """Return in words what a value must be."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if isinstance(hint, EnumType):
        members: Mapping[str, Any] = hint.__members__
        return "one of " + ", ".join(repr(member.value) for member in members.values())
    if is_dataclass(hint):
        return "an object"
    if "range" in metadata:
        low, high = metadata["range"]
        return f"{'a whole number from ' if hint is int else ''}{low:g} to {high:g}"
    if "pattern" in metadata:
        return f"text that matches {metadata['pattern']}"
    if get_origin(hint) is tuple:
        return f"a list, each item {_expected(get_args(hint)[0], {})}"
    words = {datetime: "a time with zone such as 2026-03-04T05:06:07Z", dict: "an object"}
    words |= {str: "text", Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(get_origin(hint) or hint, str(hint))
