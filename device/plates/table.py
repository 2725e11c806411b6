"""plate.csv: which wells a plate has, what is in them, and where their fields come from.

A comma separated UTF-8 table with the columns

    file | position   where the fields of the well come from (leave both out for rendered wells)
    well              name on the plate, such as B03
    sample            name of the item
    role              blank, negative, positive or test
    dose, dose_unit   such as 100, ug/mL; both empty for controls and undiluted samples
    replicate         from 1; empty counts the wells of one sample and dose
    dead_fraction     0 to 1, rendered wells only
    fields            planned number of fields, optional

A well with several fields has either one row per file, each with the same other columns, or one row whose
`file` is a pattern (`B03/*.png`). Paths are relative to the folder of images and never leave it.
"""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import cast, get_args

from device.errors import ConfigError
from device.records import PlateWell, Role

COLUMNS = (
    "file",
    "position",
    "well",
    "sample",
    "role",
    "dose",
    "dose_unit",
    "replicate",
    "dead_fraction",
    "fields",
)
REQUIRED = ("well", "sample", "role")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_FIELDS_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Plate:
    """A set of wells with their controls."""

    name: str
    wells: tuple[PlateWell, ...]


def read_plate(path: Path, *, name: str | None = None) -> Plate:
    """Return the plate that the file `path` describes.

    Parameters
    ----------
    path : Path
        plate.csv as described at the top of this module.
    name : str, optional
        Name of the plate; the file's name without its ending if left out.

    Raises
    ------
    ConfigError
        If the file cannot be read or states what cannot be. Lists all faults, each with its line number.
    """
    faults: list[str] = []
    rows = _read_rows(path, faults)
    parsed = [(line, _parse_row(row, _Cells(path, line, faults))) for line, row in rows]
    wells = _join_rows(path, parsed, faults)
    if not faults and not wells:
        faults.append(f"{path} has no wells; expected a header line and at least one row")
    if faults:
        raise ConfigError(sorted(faults, key=_line_number))
    return Plate(name if name is not None else path.stem, tuple(wells))


def write_plate(path: Path, plate: Plate) -> None:
    """Write `plate` as plate.csv so that `read_plate` gives it back: a row per file or position."""
    rows = [
        (*place, w.well, w.sample, w.role, _text(w.dose), w.dose_unit or "", *map(_text, _numbers(w)))
        for w in plate.wells
        for place in ([(f, "") for f in w.files] or [("", p) for p in w.positions] or [("", "")])
    ]
    used = [i for i, name in enumerate(COLUMNS) if name in COLUMNS[2:8] or any(row[i] for row in rows)]
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow([COLUMNS[i] for i in used])
        table.writerows([row[i] for i in used] for row in rows)
    partial.replace(path)


def find_fields(plate: Plate, folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the image files of each well, in the order of its fields.

    Parameters
    ----------
    plate : Plate
        Its `files` are paths or patterns relative to `folder`.
    folder : Path
        Folder of images.

    Returns
    -------
    dict of str to tuple of Path
        By well, in the order of the plate. Files of one pattern are sorted by name.

    Raises
    ------
    ConfigError
        If a path or pattern finds no file, or a file is found for two wells. Lists all faults.
    """
    faults: list[str] = []
    owner: dict[Path, str] = {}
    found: dict[str, tuple[Path, ...]] = {}
    for well in plate.wells:
        files: list[Path] = []
        if not well.files:
            faults.append(
                f"well {well.well} names no file; expected a path or pattern below {folder} in column file"
            )
        for pattern in well.files:
            matches = _matches(folder, pattern)
            if not matches:
                faults.append(f"no file {pattern} in {folder} for well {well.well}; expected an image there")
            for match in matches:
                other = owner.setdefault(match, well.well)
                if other != well.well:
                    faults.append(
                        f"{match} is in wells {other} and {well.well}; expected each file in one well"
                    )
                elif match not in files:
                    files.append(match)
        found[well.well] = tuple(files)
    if faults:
        raise ConfigError(faults)
    return found


class _Cells:
    """One row of plate.csv while it is checked; faults gather with their line number."""

    def __init__(self, path: Path, line: int, faults: list[str]) -> None:
        self.path, self.line, self.faults = path, line, faults

    def fault(self, column: str, found: str, expected: str) -> None:
        self.faults.append(f"{self.path} line {self.line}: {column} is {found!r}; expected {expected}")

    def number(
        self, column: str, text: str, *, high: float, whole: bool = False, low: float = 0
    ) -> float | None:
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value) or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number with a decimal point"
            limit = "" if math.isinf(high) else f" to {high:g}"
            self.fault(column, text, f"{kind}, {low:g}{limit}{' or more' if not limit else ''}, or nothing")
            return None
        return value


def _read_rows(path: Path, faults: list[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(table, [])]
            lines = [(table.line_num, [cell.strip() for cell in row]) for row in table if any(row)]
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} is missing; expected a plate.csv with columns {', '.join(COLUMNS)}"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; expected a comma separated UTF-8 table"
        ) from error
    for name in dict.fromkeys(header):
        if name not in COLUMNS:
            faults.append(f"{path} line 1: unknown column {name!r}; expected {', '.join(COLUMNS)}")
        elif header.count(name) > 1:
            faults.append(f"{path} line 1: column {name} stands twice; expected it once")
    faults.extend(
        f"{path} line 1: column {name} is missing; expected {', '.join(REQUIRED)}"
        for name in REQUIRED
        if name not in header
    )
    if faults:
        return []
    faults.extend(
        f"{path} line {line}: {len(row)} cells; expected {len(header)} as in line 1"
        for line, row in lines
        if len(row) != len(header)
    )
    return [(line, dict(zip(header, row, strict=True))) for line, row in lines if len(row) == len(header)]


def _parse_row(row: dict[str, str], cells: _Cells) -> PlateWell:
    well, sample, role = row["well"], row["sample"], row["role"]
    if not _NAME.fullmatch(well):
        cells.fault("well", well, "a name such as B03: letters, digits, . _ -, at most 32")
    if not sample or len(sample) > 64 or not sample.isprintable():
        cells.fault("sample", sample, "a name of at most 64 characters")
    if role not in get_args(Role):
        cells.fault("role", role, one_of(Role))
    file, position = row.get("file", ""), row.get("position", "")
    if file and position:
        cells.fault("position", position, "nothing, because the row has a file")
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
        cells.fault("file", file, "a path or pattern inside the folder of images")
    dose = cells.number("dose", row.get("dose", ""), high=math.inf)
    unit = row.get("dose_unit", "")
    if (dose is None) != (not unit) and not (dose is None and row.get("dose")):
        cells.fault("dose_unit", unit, "a unit such as ug/mL with a dose, and nothing without one")
    replicate = cells.number("replicate", row.get("replicate", ""), low=1, high=_FIELDS_LIMIT, whole=True)
    fields = cells.number("fields", row.get("fields", ""), low=1, high=_FIELDS_LIMIT, whole=True)
    return PlateWell(
        well=well,
        sample=sample,
        role=cast("Role", role),
        dose=dose,
        dose_unit=unit or None,
        replicate=int(replicate or 0),  # 0 until the wells of its sample and dose are known
        files=(file,) if file else (),
        positions=(position,) if position else (),
        dead_fraction=cells.number("dead_fraction", row.get("dead_fraction", ""), high=1),
        fields=None if fields is None else int(fields),
    )


def _join_rows(path: Path, rows: Sequence[tuple[int, PlateWell]], faults: list[str]) -> list[PlateWell]:
    wells: dict[str, PlateWell] = {}
    first: dict[str, int] = {}
    for line, row in rows:
        known = wells.setdefault(row.well, row)
        start = first.setdefault(row.well, line)
        if start == line:
            continue
        if replace(row, files=(), positions=()) != replace(known, files=(), positions=()):
            faults.append(
                f"{path} line {line}: well {row.well} is not as in line {start}; "
                "expected rows of one well to differ in file or position only"
            )
        elif not (row.files and known.files) and not (row.positions and known.positions):
            faults.append(
                f"{path} line {line}: well {row.well} stands in line {start} already; "
                "expected another file or position"
            )
        wells[row.well] = replace(
            known, files=known.files + row.files, positions=known.positions + row.positions
        )
    return _number_replicates(path, list(wells.values()), first, faults)


def _number_replicates(
    path: Path, wells: list[PlateWell], first: dict[str, int], faults: list[str]
) -> list[PlateWell]:
    roles: dict[str, PlateWell] = {}
    taken: dict[tuple[str, float | None, str | None, int], str] = {}
    numbered: list[PlateWell] = []
    for well in wells:
        line = first[well.well]
        other = roles.setdefault(well.sample, well)
        if other.role != well.role:
            faults.append(
                f"{path} line {line}: sample {well.sample} is {well.role}, but {other.role} in line "
                f"{first[other.well]}; expected one role for a sample"
            )
        same = [
            w for w in numbered if (w.sample, w.dose, w.dose_unit) == (well.sample, well.dose, well.dose_unit)
        ]
        replicate = well.replicate or len(same) + 1
        key = (well.sample, well.dose, well.dose_unit, replicate)
        owner = taken.setdefault(key, well.well)
        if owner != well.well:
            faults.append(
                f"{path} line {line}: replicate {replicate} of {well.sample} is well {owner} already; "
                "expected another number for each well of a sample and dose"
            )
        numbered.append(replace(well, replicate=replicate))
    return numbered


def _matches(folder: Path, pattern: str) -> list[Path]:
    if (folder / pattern).is_file():
        return [folder / pattern]
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _line_number(fault: str) -> int:
    line = re.search(r" line (\d+): ", fault)
    return int(line[1]) if line else 0


def one_of(literal: object) -> str:
    """Return the words that a Literal allows, as an error names them."""
    return "one of " + ", ".join(get_args(literal))


def _numbers(well: PlateWell) -> tuple[float | None, ...]:
    return well.replicate, well.dead_fraction, well.fields


def _text(value: float | None) -> str:
    return "" if value is None else f"{value!r}".removesuffix(".0")
