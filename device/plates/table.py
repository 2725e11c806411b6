"""The wells of a plate as a lab plans them: plate.csv.

It is a comma separated UTF-8 table with the columns

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
import fnmatch
import io
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import cast, get_args

from device.errors import ConfigError
from device.plates.files import one_of, unreadable, write_table
from device.records import PlateWell, Role

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
        raise unreadable(path, error, missing, _TABLE) from error


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


def find_fields(plate: Plate, folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the image files below `folder` of each well, in the order of its fields (of a pattern: by name).

    Raises
    ------
    ConfigError
        If a path or pattern finds no file, or a file is found for two wells. Lists all faults.
    """
    faults: list[str] = []
    owner: dict[Path, str] = {}
    listed: dict[Path, list[str]] = {}
    for well in plate.wells:
        if not well.files:
            faults.append(
                f"well {well.well} names no file; expected a path or pattern below {folder} in column file"
            )
        for pattern in well.files:
            named = folder / pattern
            matches = (
                [named]
                if named.is_file()
                else sorted(p for p in _match(folder, pattern, listed) if p.is_file())
            )
            if not matches:
                faults.append(f"no file {pattern} in {folder} for well {well.well}; expected an image there")
            faults.extend(
                f"{match} is in wells {owner[match]} and {well.well}; expected each file in one well"
                for match in matches
                if owner.setdefault(match, well.well) != well.well
            )
    if faults:
        raise ConfigError(faults)
    fields: dict[str, list[Path]] = {well.well: [] for well in plate.wells}
    for file, name in owner.items():
        fields[name].append(file)
    return {name: tuple(files) for name, files in fields.items()}


def _match(folder: Path, pattern: str, listed: dict[Path, list[str]]) -> Iterable[Path]:
    """Return what a pattern finds below a folder; `listed` keeps what was seen in one."""
    *above, name = PurePosixPath(pattern).parts
    if "**" in name or any(char in part for part in above for char in "*?["):
        return folder.glob(pattern)
    # a station with 100 wells in one folder finds them anew at each start, and a glob each takes it 0.15 s
    place = folder.joinpath(*above)
    if place not in listed:
        listed[place] = [path.name for path in place.iterdir()] if place.is_dir() else []
    return [place / found for found in fnmatch.filter(listed[place], name)]


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
    check("role", row["role"] in get_args(Role), one_of(Role))
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


def _text(value: object) -> object:
    return str(value).removesuffix(".0") if isinstance(value, float) else value
