"""station.toml: what a station is, where its camera looks and where its verdicts go.

Every fault is found in one reading, each with its key path, what was found and what was expected; options of
the camera's and the publisher's kind are read by the same rules.
"""

import difflib
import json
import math
import pkgutil
import re
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from device.analysis.grading import RULES, Rule
from device.errors import ConfigError, StationError
from device.records import Assay, Method, Modality, ScaleSource

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,31}"
"""Names that stand in topics: no wildcards, no separators, no capitals to mistype."""

SettingsOf = Callable[[str], type[Any]]
"""Gives the settings record of a kind, or raises a StationError."""


@dataclass(frozen=True, slots=True)
class StationSection:
    """`[station]`: who speaks, and what it looks at."""

    site: str = field(metadata={"pattern": NAME_PATTERN})
    """First part of the topics: the lab."""
    name: str = field(metadata={"pattern": NAME_PATTERN})
    """Second part of the topics and the MQTT client id: this station."""
    assay: Assay
    """What is measured; the model card must say the same."""
    modality: Modality
    """How the microscope lights the culture; the model card must say the same."""
    method: Method = "hybrid"
    """How cells are found; `paper` is kept for comparison."""


@dataclass(frozen=True, slots=True)
class ScaleSection:
    """`[scale]`: how large a pixel is."""

    um_per_px: float = field(metadata={"range": (0.05, 10.0)})
    """Micrometers a pixel of the camera's frame; there is no default."""
    source: ScaleSource = "measured"
    """How it is known; `assumed` makes areas null and, on a live camera, rules out `non_toxic`."""


@dataclass(frozen=True, slots=True)
class KindSection:
    """`[camera]` or `[publisher]`: a kind, and what that kind wants to know."""

    kind: str
    """Name of the module in device/cameras or device/publishers."""
    settings: Any = None
    """The kind's own record, if the reader was told how to find it."""


@dataclass(frozen=True, slots=True)
class ModelSection:
    """`[model]`: which models speak."""

    cell_model: str | None = None
    """Name or folder of the cell model; chosen by assay and modality if left out."""
    field_model: str | None = None
    """Name or folder of the field model, the second opinion; none if left out."""
    trusted: tuple[str, ...] = ()
    """SHA-256 of SHA256SUMS files trusted besides those that came with nanotox."""
    threads: int = field(default=1, metadata={"range": (1, 16)})
    """Threads of the interpreter."""


@dataclass(frozen=True, slots=True)
class JournalSection:
    """`[journal]`: where every reading is kept."""

    path: Path = Path("journal.db")
    """One SQLite file; a copy of it is a copy of everything."""
    drain_s: float = field(default=10.0, metadata={"range": (0.0, 3600.0)})
    """How long to wait for the broker when a finite camera has ended, seconds."""


@dataclass(frozen=True, slots=True)
class PlateSection:
    """`[plate]`: the wells that the camera shows."""

    file: Path | None = None
    """plate.csv; without it readings belong to no well and no verdict is given."""


@dataclass(frozen=True, slots=True)
class RuleSection:
    """`[rule]`: how wells are judged."""

    id: str | None = None
    """Such as `iso10993-5-extract/1`; the rule of the assay if left out."""


@dataclass(frozen=True, slots=True)
class Config:
    """All of station.toml."""

    path: Path
    station: StationSection
    scale: ScaleSection
    camera: KindSection
    model: ModelSection
    publisher: KindSection
    journal: JournalSection
    plate: PlateSection
    rule: RuleSection


_SECTIONS = [item.name for item in fields(Config) if item.name != "path"]


def list_kinds(package: str) -> tuple[str, ...]:
    """Return the kinds of `package`, such as `device.cameras`: its modules, sorted, none of them imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__)))


def import_kind(package: str, kind: str) -> Any:  # noqa: ANN401 - each package has its own form of kinds
    """Return the module of `kind` in `package`; ConfigError if it, or a library that it needs, is missing."""
    kinds, what = list_kinds(package), package.rpartition(".")[2].removesuffix("s")
    if kind not in kinds:
        raise ConfigError(f"{what}.kind is {kind!r}; expected one of {', '.join(kinds)}")
    try:
        return import_module(f"{package}.{kind}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what} kind {kind!r} needs the Python module {error.name!r}, which is not installed; install it"
        ) from error


def read_config(
    path: Path, *, camera_settings: SettingsOf | None = None, publisher_settings: SettingsOf | None = None
) -> Config:
    """Return what station.toml says; relative paths inside it are relative to its folder.

    Options of a camera or publisher are looked at only if its finder of settings records is given.

    Raises
    ------
    ConfigError
        If the file cannot be read, or with every fault in it.
    """
    table = _read_table(path, "a station.toml, sections such as [camera]")
    reader = _Reader(path.parent)
    reader.unknown_keys(table, _SECTIONS, "")
    hints = get_type_hints(Config)
    sections: dict[str, Any] = {}
    for name in _SECTIONS:
        found = table.get(name, {})
        if not isinstance(found, dict):
            reader.faults.append(f"{name} is {found!r}; expected a section [{name}]")
            found = {}
        if hints[name] is KindSection:
            settings_of = camera_settings if name == "camera" else publisher_settings
            sections[name] = reader.kind(found, name, settings_of)
        else:
            sections[name] = reader.record(found, hints[name], name)
    if reader.faults:
        raise ConfigError([f"{fault} ({path.name})" for fault in reader.faults])
    return Config(path, **sections)


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
    table = _read_table(path, "a rule, such as id = and based_on =")
    based_on = table.pop("based_on", None)
    if not isinstance(based_on, str) or based_on not in RULES:
        found = "missing" if based_on is None else repr(based_on)
        raise ConfigError(f"based_on is {found}; expected one of {', '.join(RULES)} ({path.name})")
    reader = _Reader(path.parent)
    if not isinstance(table.get("id"), str) or table["id"] in RULES:
        found = repr(table["id"]) if "id" in table else "missing"
        reader.faults.append(f"rule.id is {found}; expected a name of its own, such as our-lab/1")
    as_toml = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(RULES[based_on]).items()}
    rule = reader.record(as_toml | table, Rule, "rule")
    if reader.faults or not isinstance(rule, Rule):
        raise ConfigError([f"{fault} ({path.name})" for fault in reader.faults])
    return rule


def to_toml(config: Config) -> str:
    """Return the configuration with every default filled in, as TOML that `read_config` takes."""
    lines: list[str] = []
    for name in _SECTIONS:
        table = asdict(getattr(config, name))
        table |= table.pop("settings", None) or {}
        # A text, number or list of JSON is one of TOML too.
        given = {key: json.dumps(value, default=str, ensure_ascii=False) for key, value in table.items()}
        lines += [f"[{name}]", *(f"{key} = {text}" for key, text in given.items() if text != "null"), ""]
    return "\n".join(lines)


def _read_table(path: Path, expected: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected {expected}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}; expected {expected}") from error


class _Reader:
    """Reads tables into records and gathers every fault on the way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []

    def kind(
        self, table: Mapping[str, Any], where: str, settings_of: SettingsOf | None
    ) -> KindSection | None:
        default, usual = ("mqtt", "mqtt") if where == "publisher" else (None, "folder")
        kind = table.get("kind", default)
        if not isinstance(kind, str):
            found = "missing" if kind is None else repr(kind)
            self.faults.append(f'{where}.kind is {found}; expected the name of a kind, such as "{usual}"')
        elif settings_of is None:
            return KindSection(kind)
        else:
            try:
                return KindSection(kind, self.record(table, settings_of(kind), where, also=("kind",)))
            except StationError as error:
                self.faults.append(str(error))
        return None

    def record(
        self, table: Mapping[str, Any], cls: type[Any], where: str, *, also: tuple[str, ...] = ()
    ) -> object:
        """Return `table` as a record `cls`; None with faults noted."""
        known, hints = {item.name: item for item in fields(cls)}, get_type_hints(cls)
        self.unknown_keys(table, known, f"{where}.", also=also)
        values: dict[str, Any] = {}
        before = len(self.faults)
        for name, item in known.items():
            hint = _without_none(hints[name])
            if name in table:
                values[name] = self.value(table[name], hint, item, f"{where}.{name}")
            elif item.default is MISSING and item.default_factory is MISSING:
                self.faults.append(f"{where}.{name} is missing; expected {_expected(hint, item.metadata)}")
            elif isinstance(item.default, Path):
                values[name] = self.folder / item.default
        try:
            return cls(**values) if len(self.faults) == before else None
        except ValueError as error:
            self.faults.append(f"{where}: {error}")
            return None

    def value(self, found: object, hint: Any, item: Field[Any], key: str) -> object:  # noqa: ANN401 - any option's type
        """Return `found` as `hint` wants it, or note a fault and return None."""
        try:
            value = _convert(found, hint, self.folder)
            if _is_allowed(value, item.metadata):
                return value
        except (ValueError, OverflowError):
            pass
        self.faults.append(f"{key} is {found!r}; expected {_expected(hint, item.metadata)}")
        return None

    def unknown_keys(
        self, table: Iterable[str], known: Iterable[str], where: str, *, also: tuple[str, ...] = ()
    ) -> None:
        names = [*also, *known]
        for key in table:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                expected = ", ".join(known) or "no options"
                self.faults.append(f"{where}{key} is unknown; expected {expected}{hint}")


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
        return folder / found
    if hint is float and type(found) in (int, float) and math.isfinite(found):
        return float(found)
    if type(found) is hint:  # a bool is no whole number
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
    if "range" in metadata:
        low, high = metadata["range"]
        return f"{'a whole number from ' if hint is int else ''}{low:g} to {high:g}"
    if "pattern" in metadata:
        return f"text that matches {metadata['pattern']}"
    if get_origin(hint) is tuple:
        return f"a list, each item {_expected(get_args(hint)[0], {})}"
    words = {str: "text", Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(hint, str(hint))
