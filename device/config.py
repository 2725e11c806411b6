"""station.toml: what a station is, where its camera looks and where its verdicts go.

Every fault is found in one reading, each with its key path, what was found and what was expected; options of
the camera's and the publisher's kind are read by the same rules.
"""

import hashlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from device.errors import ConfigError, StationError
from device.records import Assay, Method, Modality, ScaleSource
from device.tables import TableReader, read_toml

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
    health_s: float = field(default=30.0, metadata={"range": (1.0, 3600.0)})
    """Time between two messages on `health`, s."""
    period_s: float = field(default=60.0, metadata={"range": (1.0, 86_400.0)})
    """Usual time between two fields, s; `latest` and the overlay vanish twice this after the newest."""
    overlay: bool = False
    """Publish a picture of the newest field on `image/overlay`."""


@dataclass(frozen=True, slots=True)
class ScaleSection:
    """`[scale]`: how large a pixel is."""

    um_per_px: float = field(metadata={"range": (0.05, 10.0)})
    """Micrometers a pixel of the camera's frame; there is no default."""
    source: ScaleSource = "measured"
    """How it is known; `assumed` makes areas null and, on a live camera, rules out `non_toxic`."""
    calibration_days: int = field(default=365, metadata={"range": (1, 3650)})
    """A calibration older than this is told as CALIBRATION_OLD, days; results still refer to it."""


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
    """Name or folder of the field model, the second opinion; the shipped one if left out, or `none`."""
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
    keep_days: float = field(default=90.0, metadata={"range": (1.0, 36_500.0)})
    """Records that the broker took are deleted after this many days, if a time server has set the clock."""
    keep_gb: float = field(default=1.0, metadata={"range": (0.01, 1000.0)})
    """The oldest records that the broker took are deleted while there is more than this, GB of 10^9 bytes."""


@dataclass(frozen=True, slots=True)
class PlateSection:
    """`[plate]`: the wells that the camera shows."""

    file: Path | None = None
    """plate.csv; without it a plate is started by command, and until then readings belong to no well."""
    wait: bool = False
    """Open a camera that ends, such as `folder`, only when a plate is started, and stay for the next one."""

    def __post_init__(self) -> None:
        if self.wait and self.file is not None:
            raise ValueError("file and wait exclude each other; expected one of them")


@dataclass(frozen=True, slots=True)
class RuleSection:
    """`[rule]`: how wells are judged."""

    id: str | None = None
    """Such as `iso10993-5-extract/1`; the rule of the assay if left out."""
    file: Path | None = None
    """TOML file of a lab's own rule, instead of `id`."""

    def __post_init__(self) -> None:
        if self.id is not None and self.file is not None:
            raise ValueError("id and file exclude each other; expected one of them")


@dataclass(frozen=True, slots=True)
class FramesSection:
    """`[frames]`: images kept, so that a verdict can be computed again from what the camera saw."""

    keep: bool = False
    """Keep each analyzed frame as PNG, without loss."""
    path: Path = Path("frames")
    """Folder of them: a folder a day, a file a frame, named by its SHA-256."""
    keep_gb: float = field(default=10.0, metadata={"range": (0.001, 100_000.0)})
    """The oldest are deleted while there is more than this, GB of 10^9 bytes; never of a plate that runs."""


@dataclass(frozen=True, slots=True)
class CommandsSection:
    """`[commands]`: what the broker may ask of this station."""

    accept: bool = True
    """Carry out commands; the broker's access list must say who may write to `cmd/`."""


@dataclass(frozen=True, slots=True)
class HttpSection:
    """`[http]`: `/metrics` and `/healthz` for the lab's monitoring; anybody who reaches the port may read."""

    port: int | None = field(default=None, metadata={"range": (1024, 65_535)})
    """Port to listen on; left out, nothing listens."""
    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` is every one of the machine."""


@dataclass(frozen=True, slots=True)
class Config:
    """All of station.toml."""

    path: Path
    text: str = field(repr=False)
    """What the sections were read from, line ends as in the file."""
    station: StationSection
    scale: ScaleSection
    camera: KindSection
    model: ModelSection
    publisher: KindSection
    journal: JournalSection
    plate: PlateSection
    rule: RuleSection
    frames: FramesSection
    commands: CommandsSection
    http: HttpSection

    @property
    def sha256(self) -> str:
        """SHA-256 of the file as it was read."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_SECTIONS = [item.name for item in fields(Config) if item.name not in ("path", "text")]


def list_kinds(package: str) -> tuple[str, ...]:
    """Return the kinds of `package`, such as `device.cameras`: its modules, sorted, none of them imported.

    A module whose name begins with an underscore is no kind.
    """
    names = (module.name for module in pkgutil.iter_modules(import_module(package).__path__))
    return tuple(sorted(name for name in names if not name.startswith("_")))


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
    path: Path,
    *,
    camera_settings: SettingsOf | None = None,
    publisher_settings: SettingsOf | None = None,
    text: str | None = None,
) -> Config:
    """Return what station.toml says, or a `text` in its place; relative paths are relative to its folder.

    Options of a camera or publisher are looked at only if its finder of settings records is given.

    Raises
    ------
    ConfigError
        If the file cannot be read, or with every fault in it.
    """
    expected = "a station.toml, sections such as [camera]"
    try:
        text = path.read_bytes().decode() if text is None else text
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); expected {expected}") from error
    table = read_toml(path, expected, text)
    reader = TableReader(path.parent)
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
            sections[name] = _read_kind(reader, found, name, settings_of)
        else:
            sections[name] = reader.record(found, hints[name], name)
    if reader.faults:
        raise ConfigError([f"{fault} ({path.name})" for fault in reader.faults])
    return Config(path, text, **sections)


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


def _read_kind(
    reader: TableReader, table: Mapping[str, Any], where: str, settings_of: SettingsOf | None
) -> KindSection | None:
    default, usual = ("mqtt", "mqtt") if where == "publisher" else (None, "folder")
    kind = table.get("kind", default)
    if not isinstance(kind, str):
        found = "missing" if kind is None else repr(kind)
        reader.faults.append(f'{where}.kind is {found}; expected the name of a kind, such as "{usual}"')
    elif settings_of is None:
        return KindSection(kind)
    else:
        try:
            return KindSection(kind, reader.record(table, settings_of(kind), where, also=("kind",)))
        except StationError as error:
            reader.faults.append(str(error))
    return None
