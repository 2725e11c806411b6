"""What a lab says of its images: plate.csv (wells) and dataset.json (scale, modality, origin).

plate.csv is a comma separated UTF-8 table with the columns

    file | position   where the fields of the well come from (leave both out for rendered wells)
    well              name on the plate, such as B03
    sample            name of the item
    role              blank, negative, positive or test
    dose, dose_unit   such as 100, ug/mL; both empty for controls and undiluted samples
    replicate         from 1; empty counts the wells of one sample and dose
    dead_fraction     0 to 1, rendered wells only
    fields            planned number of fields, optional

A well of several fields has a row per file, with the same other columns, or a pattern (`B03/*.png`) as
`file`. Paths are relative to the folder of images and never leave it.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, cast, get_args

from device.errors import ConfigError
from device.records import Assay, Modality, PlateWell, Role, Scale, ScaleSource

DATASET_FILE = "dataset.json"
_DATASET_KEYS = ("modality", "assay", "origin", "licence", "simulated")
REQUIRED = ("well", "sample", "role")
ALWAYS_WRITTEN = (*REQUIRED, "dose", "dose_unit", "replicate")
COLUMNS = ("file", "position", *ALWAYS_WRITTEN, "dead_fraction", "fields")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_FIELDS_LIMIT = 10_000
_TABLE = "expected a comma separated UTF-8 table"

Faults = list[tuple[int, str]]  # line of plate.csv, and what is wrong with it


@dataclass(frozen=True, slots=True)
class Plate:
    """A set of wells with their controls."""

    name: str
    wells: tuple[PlateWell, ...]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What dataset.json says of a folder of images."""

    scale: Scale
    modality: Modality | None
    """Null for images that no station sees, such as fluorescence: they test the watershed only."""
    origin: str
    """Where the images come from, in words."""
    licence: str
    assay: Assay | None = None
    """Null where the folder does not say it."""
    simulated: bool = False
    """True for rendered images."""


def read_plate(path: Path, *, name: str | None = None) -> Plate:
    """Return the plate that the table `path` describes, called like the file if `name` is left out.

    Raises
    ------
    ConfigError
        If the file cannot be read or states what cannot be. Lists all faults, each with its line number.
    """
    return parse_plate(read_text(path), name=path.stem if name is None else name, where=str(path))


def read_text(path: Path) -> str:
    """Return the text of a plate.csv; ConfigError if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        missing = f"expected a plate.csv with columns {', '.join(COLUMNS)}"
        raise _unreadable(path, error, missing, _TABLE) from error


def parse_plate(text: str, *, name: str, where: str = "plate.csv") -> Plate:
    """Return the plate that a table describes; ConfigError as `read_plate`, which calls the table `where`."""
    faults: Faults = []
    try:
        rows = [(line, _parse_row(line, row, faults)) for line, row in _split_rows(text, faults)]
    except csv.Error as error:
        raise ConfigError(f"{where} cannot be read: {error}; {_TABLE}") from error
    wells = _join_rows(rows, faults)
    if faults:
        faults.sort(key=itemgetter(0))
        raise ConfigError([f"{where} line {line}: {what}" for line, what in faults])
    if not wells:
        raise ConfigError(f"{where} has no wells; expected a header line and at least one row")
    return Plate(name, tuple(wells))


def write_plate(path: Path, plate: Plate) -> None:
    """Write `plate` as plate.csv so that `read_plate` gives it back: a row per file or position."""
    rows: list[dict[str, object]] = []
    for well in plate.wells:
        same = {column: _text(value) for column, value in asdict(well).items()}
        files, positions = [{"file": f} for f in well.files], [{"position": p} for p in well.positions]
        rows.extend(same | place for place in files or positions or [{}])
    used = [name for name in COLUMNS if name in ALWAYS_WRITTEN or any(row.get(name) for row in rows)]
    write_table(path, [used, *([row.get(name, "") for name in used] for row in rows)])


def write_table(path: Path, rows: Iterable[Sequence[object]], *, quoted: bool = False) -> None:
    """Write rows, the header among them, as CSV with every cell `quoted` or only those that need it.

    Raises as `write_whole`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerows(rows)
    write_whole(path, [text.getvalue()])


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text of `parts`; the file is there whole or not at all. ConfigError if it cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(parts)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); expected a folder with rights"
        ) from error


def find_fields(plate: Plate, folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the image files below `folder` of each well, in the order of its fields (of a pattern: by name).

    Raises
    ------
    ConfigError
        If a path or pattern finds no file, or a file is found for two wells. Lists all faults.
    """
    faults: list[str] = []
    owner: dict[Path, str] = {}
    for well in plate.wells:
        if not well.files:
            faults.append(
                f"well {well.well} names no file; expected a path or pattern below {folder} in column file"
            )
        for pattern in well.files:
            named = folder / pattern
            matches = [named] if named.is_file() else sorted(p for p in folder.glob(pattern) if p.is_file())
            if not matches:
                faults.append(f"no file {pattern} in {folder} for well {well.well}; expected an image there")
            faults.extend(
                f"{match} is in wells {owner[match]} and {well.well}; expected each file in one well"
                for match in matches
                if owner.setdefault(match, well.well) != well.well
            )
    if faults:
        raise ConfigError(faults)
    return {well.well: tuple(file for file in owner if owner[file] == well.well) for well in plate.wells}


def read_dataset_info(folder: Path) -> DatasetInfo:
    """Return what `folder`/dataset.json says.

    Raises
    ------
    ConfigError
        If the file is missing, is no JSON object, or lacks or misstates a key. Lists all faults.
    """
    path = folder / DATASET_FILE
    try:
        content: Any = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        missing = "expected it to state um_per_px, modality, origin, licence"
        raise _unreadable(path, error, missing, "expected a JSON object") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    said: dict[str, Any] = {"assay": None, "simulated": False} | content
    checks = {
        "um_per_px": (_is_positive(said.get("um_per_px")), "a number > 0, micrometers a pixel"),
        "um_per_px_source": (said.get("um_per_px_source") in get_args(ScaleSource), _one_of(ScaleSource)),
        "modality": (said.get("modality", "") in (None, *get_args(Modality)), _one_of(Modality) + " or null"),
        "origin": (isinstance(said.get("origin"), str), "words"),
        "licence": (isinstance(said.get("licence"), str), "words"),
        "assay": (said["assay"] in (None, *get_args(Assay)), _one_of(Assay) + " or null"),
        "simulated": (isinstance(said["simulated"], bool), "true or false"),
    }
    wrong = [(key, expected) for key, (fits, expected) in checks.items() if not fits]
    if wrong:
        raise ConfigError([f"{path}: {key} is {json.dumps(said.get(key))}; expected {x}" for key, x in wrong])
    scale = Scale(float(said["um_per_px"]), said["um_per_px_source"])
    return DatasetInfo(scale, **{key: said[key] for key in _DATASET_KEYS})


def find_dataset_info(folder: Path) -> DatasetInfo | None:
    """Return what dataset.json says of the images in `folder`: its own, else its parent's; None without one.

    Raises as `read_dataset_info`.
    """
    for place in (folder, folder.resolve().parent):
        if (place / DATASET_FILE).is_file():
            return read_dataset_info(place)
    return None


def write_dataset_info(folder: Path, info: DatasetInfo) -> None:
    """Write `info` as `folder`/dataset.json so that `read_dataset_info` gives it back."""
    content = {"um_per_px": info.scale.um_per_px, "um_per_px_source": info.scale.source}
    content |= {key: getattr(info, key) for key in _DATASET_KEYS}
    write_whole(folder / DATASET_FILE, [json.dumps(content, indent=2, allow_nan=False), "\n"])


def scale_of(info: DatasetInfo | None, um_per_px: float | None) -> Scale | None:
    """Return the scale of a folder's images: `um_per_px` overrides the value only, never how it is known.

    Its source is that of `info`, else `measured`. None where neither says a value; ConfigError for a value
    that is not a finite number above 0.
    """
    if um_per_px is None:
        return None if info is None else info.scale
    if not _is_positive(um_per_px):
        raise ConfigError(f"um_per_px is {um_per_px}; expected a number > 0, micrometers a pixel")
    return Scale(um_per_px, "measured") if info is None else replace(info.scale, um_per_px=um_per_px)


def _split_rows(text: str, faults: Faults) -> list[tuple[int, dict[str, str]]]:
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [name.strip() for name in next(table, [])]
    lines = [(table.line_num, [cell.strip() for cell in row]) for row in table if any(row)]
    for name in dict.fromkeys((*header, *REQUIRED)):
        if name not in COLUMNS:
            faults.append((1, f"unknown column {name!r}; expected {', '.join(COLUMNS)}"))
        elif header.count(name) > 1:
            faults.append((1, f"column {name} stands twice; expected it once"))
        elif name not in header:
            faults.append((1, f"column {name} is missing; expected {', '.join(REQUIRED)}"))
    if faults:
        return []
    n = len(header)
    faults += [(line, f"{len(row)} cells; expected {n} as in line 1") for line, row in lines if len(row) != n]
    empty = dict.fromkeys(COLUMNS, "")
    return [(line, empty | dict(zip(header, row, strict=True))) for line, row in lines if len(row) == n]


def _parse_row(line: int, row: dict[str, str], faults: Faults) -> PlateWell:
    def check(column: str, fits: object, expected: str) -> None:
        if not fits:
            faults.append((line, f"{column} is {row[column]!r}; expected {expected}"))

    def number(column: str, low: float, high: float, *, whole: bool = False) -> float | None:
        if not row[column]:
            return None
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        fits = low <= value <= high and math.isfinite(value) and (not whole or value == int(value))
        kind = "a whole number" if whole else "a number with a decimal point"
        limit = " or more" if math.isinf(high) else f" to {high:g}"
        check(column, fits, f"{kind}, {low:g}{limit}, or nothing")
        return value if fits else None

    sample, file, position, unit = (row[key] for key in ("sample", "file", "position", "dose_unit"))
    check("well", _NAME.fullmatch(row["well"]), "a name such as B03: letters, digits, . _ -, at most 32")
    check("sample", 0 < len(sample) <= 64 and sample.isprintable(), "a name of at most 64 characters")
    check("role", row["role"] in get_args(Role), _one_of(Role))
    check("position", not (file and position), "nothing, because the row has a file")
    outside = PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts
    check("file", not outside, "a path or pattern inside the folder of images")
    dose = number("dose", 0, math.inf)
    matching = bool(unit) is (dose is not None) or (dose is None and row["dose"])
    check("dose_unit", matching, "a unit such as ug/mL with a dose, and nothing without one")
    replicate = number("replicate", 1, _FIELDS_LIMIT, whole=True)
    fields = number("fields", 1, _FIELDS_LIMIT, whole=True)
    return PlateWell(
        well=row["well"],
        sample=sample,
        role=cast("Role", row["role"]),
        dose=dose,
        dose_unit=unit or None,
        replicate=int(replicate or 0),  # 0 until the wells of its sample and dose are known
        files=(file,) if file else (),
        positions=(position,) if position else (),
        dead_fraction=number("dead_fraction", 0, 1),
        fields=None if fields is None else int(fields),
    )


def _join_rows(rows: list[tuple[int, PlateWell]], faults: Faults) -> list[PlateWell]:
    wells: dict[str, PlateWell] = {}
    first: dict[str, int] = {}
    for line, row in rows:
        start, known = first.setdefault(row.well, line), wells.setdefault(row.well, row)
        if known is row:
            continue
        if replace(row, files=(), positions=()) != replace(known, files=(), positions=()):
            expected = "expected rows of one well to differ in file or position only"
            faults.append((line, f"well {row.well} is not as in line {start}; {expected}"))
        elif not (row.files and known.files) and not (row.positions and known.positions):
            expected = "expected another file or position"
            faults.append((line, f"well {row.well} stands in line {start} already; {expected}"))
        files, positions = known.files + row.files, known.positions + row.positions
        wells[row.well] = replace(known, files=files, positions=positions)
    roles: dict[str, PlateWell] = {}
    groups: dict[tuple[str, float | None, str | None], list[PlateWell]] = {}
    for well in wells.values():
        line, other = first[well.well], roles.setdefault(well.sample, well)
        if other.role != well.role:
            found = f"sample {well.sample} is {well.role}, but {other.role} in line {first[other.well]}"
            faults.append((line, f"{found}; expected one role for a sample"))
        same = groups.setdefault((well.sample, well.dose, well.dose_unit), [])
        replicate = well.replicate or len(same) + 1
        owner = next((w for w in same if w.replicate == replicate), None)
        if owner:
            found = f"replicate {replicate} of {well.sample} is well {owner.well} already"
            faults.append((line, f"{found}; expected another number for each well of a sample and dose"))
        same.append(replace(well, replicate=replicate))
        wells[well.well] = same[-1]
    return list(wells.values())


def _unreadable(path: Path, error: Exception, missing: str, expected: str) -> ConfigError:
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"{path} is missing; {missing}")
    return ConfigError(f"{path} cannot be read: {error}; {expected}")


def _one_of(literal: object) -> str:
    return "one of " + ", ".join(get_args(literal))


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _text(value: object) -> object:
    return str(value).removesuffix(".0") if isinstance(value, float) else value
