"""station.toml: what a station is, where its camera looks and where its verdicts go.

Every fault is found in one reading, each with its key path, what was found and what was expected. The options
of a camera or publisher belong to its kind: the upper floor hands in how to find a kind's `Settings`, and
this module reads them with the same rules, so that all faults stand in one list.
"""

import difflib
import math
import re
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from device.errors import ConfigError, StationError
from device.records import Assay, Method, Modality, ScaleSource

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,31}"
"""Names that stand in topics: no wildcards, no separators, no capitals to mistype."""

SettingsOf = Callable[[str], type[Any]]
"""Gives the settings record of a kind, or raises a StationError that lists the kinds."""


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
    """The kind's own record, or None if the reader was not told how to find it."""


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
    """Identity such as `iso10993-5-extract/1`; the rule of the assay if left out."""


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


def read_config(
    path: Path, *, camera_settings: SettingsOf | None = None, publisher_settings: SettingsOf | None = None
) -> Config:
    """Return what station.toml says.

    Parameters
    ----------
    path : Path
        The file; relative paths inside it are relative to its folder.
    camera_settings, publisher_settings : callable, optional
        Give the settings record of a kind. Without one, the options of the kind are not looked at.

    Raises
    ------
    ConfigError
        If the file cannot be read, or with every fault in it.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected a station.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}; expected sections such as [camera]") from error
    reader = _Reader(path)
    reader.unknown_keys(table, [item.name for item in fields(Config) if item.name != "path"], "")
    sections: dict[str, Any] = {
        "station": reader.record(reader.section(table, "station"), StationSection, "station"),
        "scale": reader.record(reader.section(table, "scale"), ScaleSection, "scale"),
        "camera": reader.kind(reader.section(table, "camera"), "camera", camera_settings, default=None),
        "model": reader.record(reader.section(table, "model"), ModelSection, "model"),
        "publisher": reader.kind(
            reader.section(table, "publisher"), "publisher", publisher_settings, default="mqtt"
        ),
        "journal": reader.record(reader.section(table, "journal"), JournalSection, "journal"),
        "plate": reader.record(reader.section(table, "plate"), PlateSection, "plate"),
        "rule": reader.record(reader.section(table, "rule"), RuleSection, "rule"),
    }
    if reader.faults:
        raise ConfigError([f"{fault} ({path.name})" for fault in reader.faults])
    return Config(path, **sections)


def to_toml(config: Config) -> str:
    """Return the configuration with every default filled in, as TOML that `read_config` takes."""
    lines: list[str] = []
    for section in fields(config):
        value = getattr(config, section.name)
        if not is_dataclass(value) or isinstance(value, type):
            continue
        table = asdict(value)
        if isinstance(value, KindSection):
            table = {"kind": value.kind} | (asdict(value.settings) if value.settings is not None else {})
        lines.append(f"[{section.name}]")
        lines += [f"{key} = {_toml_value(item)}" for key, item in table.items() if item is not None]
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_Record = TypeVar("_Record")


class _Reader:
    """Reads tables into records and gathers every fault on the way."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.faults: list[str] = []

    def section(self, table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        found = table.get(name, {})
        if isinstance(found, Mapping):
            return found
        self.faults.append(f"{name} is {found!r}; expected a section [{name}]")
        return {}

    def kind(
        self, table: Mapping[str, Any], where: str, settings_of: SettingsOf | None, *, default: str | None
    ) -> KindSection | None:
        kind = table.get("kind", default)
        if not isinstance(kind, str):
            found = "missing" if kind is None else repr(kind)
            self.faults.append(
                f"{where}.kind is {found}; expected the name of a kind, such as {_EXAMPLE[where]}"
            )
            return None
        if settings_of is None:
            return KindSection(kind)
        try:
            settings_type = settings_of(kind)
        except StationError as error:
            self.faults.append(str(error))
            return None
        options = {key: value for key, value in table.items() if key != "kind"}
        return KindSection(kind, self.record(options, settings_type, where, also=["kind"]))

    def record(
        self, table: Mapping[str, Any], cls: type[_Record], where: str, also: list[str] | None = None
    ) -> _Record | None:
        known = {item.name: item for item in fields(cast("Any", cls))}
        self.unknown_keys(table, [*(also or []), *known], where, allowed=list(known))
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        before = len(self.faults)
        for name, item in known.items():
            if name in table:
                values[name] = self.value(table[name], hints[name], item, f"{where}.{name}")
            elif item.default is MISSING and item.default_factory is MISSING:
                expected = _expected(hints[name], item.metadata)
                self.faults.append(f"{where}.{name} is missing; expected {expected}")
            elif isinstance(item.default, Path):
                values[name] = self.folder / item.default
        if len(self.faults) > before:
            return None
        try:
            return cls(**values)
        except ValueError as error:
            self.faults.append(f"{where}: {error}")
            return None

    def value(self, found: object, hint: Any, item: Field[Any], key: str) -> Any:  # noqa: ANN401 - any option's type
        """Return `found` as `hint` wants it, or note a fault and return None."""
        try:
            value = _convert(found, hint, self.folder)
            _check_limits(value, item.metadata)
        except ValueError:
            self.faults.append(f"{key} is {found!r}; expected {_expected(hint, item.metadata)}")
            return None
        return value

    def unknown_keys(
        self, table: Mapping[str, Any], known: list[str], where: str, allowed: list[str] | None = None
    ) -> None:
        for key in table:
            if key in known:
                continue
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            names = ", ".join(known if allowed is None else allowed) or "no options"
            self.faults.append(f"{where}{'.' if where else ''}{key} is unknown; expected {names}{hint}")


_EXAMPLE = {"camera": '"folder"', "publisher": '"mqtt"'}


def _convert(found: Any, hint: Any, folder: Path) -> Any:  # noqa: ANN401 - any option's type
    """Return `found` as the type `hint`; ValueError if it is no such thing."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert(found, next(arm for arm in get_args(hint) if arm is not type(None)), folder)
    if origin is Literal:
        if found in get_args(hint) and type(found) in {type(choice) for choice in get_args(hint)}:
            return found
    elif origin is tuple:
        if isinstance(found, list):
            return tuple(_convert(item, get_args(hint)[0], folder) for item in found)
    elif hint is Path:
        if isinstance(found, str) and found:
            return folder / found
    elif hint is float:
        if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found):
            return float(found)
    elif isinstance(found, hint) and (hint is bool or not isinstance(found, bool)):
        return found
    raise ValueError(found)


def _check_limits(value: object, metadata: Mapping[str, Any]) -> None:
    if "range" in metadata and value is not None:
        low, high = metadata["range"]
        if not low <= cast("float", value) <= high:
            raise ValueError(value)
    if "pattern" in metadata and not re.fullmatch(metadata["pattern"], cast("str", value)):
        raise ValueError(value)


def _expected(hint: Any, metadata: Mapping[str, Any]) -> str:  # noqa: ANN401 - any option's type
    """Return in words what a value must be."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _expected(next(arm for arm in get_args(hint) if arm is not type(None)), metadata)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if "range" in metadata:
        low, high = metadata["range"]
        return f"{'a whole number from ' if hint is int else ''}{low:g} to {high:g}"
    if "pattern" in metadata:
        return f"text that matches {metadata['pattern']}"
    if origin is tuple:
        return f"a list, each item {_expected(get_args(hint)[0], {})}"
    words = {str: "text", Path: "a path", bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(hint, str(hint))
