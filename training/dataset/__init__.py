"""Dataset folders: `manifest.csv`, images, `cells.csv`, `masks/` and `dataset.json`, in one form.

Every importer (`from_<kind>.py` beside this file, found by its name) writes this form; all else reads it. Its
`import_data(source, out, options)` writes what is at `source` to the folder `out`, raises ConfigError with
every fault that it finds, and returns in words what a person should know beside the counts.
"""

import csv
import pkgutil
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device.errors import ConfigError
from device.plates import DatasetInfo, read_dataset_info, write_dataset_info
from device.records import Assay, Modality
from training.dataset.masks import mask_circles, mask_path, read_mask

MANIFEST = "manifest.csv"
CELLS = "cells.csv"
MANIFEST_COLUMNS = ("file", "label", "group", "split")
CELL_COLUMNS = ("file", "label", "xmin", "ymin", "xmax", "ymax")
SPLITS = ("train", "val", "test")
UNLABELED = "unlabeled"
"""Split of images that nobody labeled (I_U): training data of whoever asks for it by name, never truth."""
FIELD_LABELS = ("non_toxic", "toxic")
"""Labels of whole fields, in the order of a field model's logits; an empty label means unknown."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a dataset: a row of the manifest."""

    file: str
    """Path relative to the dataset's folder."""
    label: str
    """`toxic`, `non_toxic`, or empty where masks or cells are the truth."""
    group: str
    """Well or family of duplicates: what must not be divided between splits."""
    split: str
    batch: str = ""
    """Plate, day or replicate that shared light and handling, where the optional column `batch` says it."""

    @property
    def kin(self) -> str:
        """Split whose wells and copies it may share: an unlabeled image trains, if anything."""
        return "train" if self.split == UNLABELED else self.split


@dataclass(frozen=True, slots=True)
class TrueCell:
    """One cell as a person or a renderer knows it, in pixels of its file; bounds are inclusive."""

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float

    @property
    def row(self) -> float:
        """Row of its center, px."""
        return (self.ymin + self.ymax) / 2

    @property
    def col(self) -> float:
        """Column of its center, px."""
        return (self.xmin + self.xmax) / 2

    @property
    def radius_px(self) -> float:
        """Half the mean side of its box, px."""
        return (self.xmax - self.xmin + self.ymax - self.ymin + 2) / 4


def circle_cell(label: str, row: float, col: float, radius_px: float) -> TrueCell:
    """Return a cell as the box around a circle."""
    reach = radius_px - 0.5  # bounds are inclusive: the pixel itself adds a half
    return TrueCell(label, col - reach, row - reach, col + reach, row + reach)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset folder as its tables describe it; images stay on disk."""

    folder: Path
    info: DatasetInfo
    entries: tuple[Entry, ...]
    cells: dict[str, tuple[TrueCell, ...]]
    """True cells by file, from `cells.csv`, else from masks (then with empty labels); none without both."""

    @property
    def modality(self) -> Modality:
        """How the images were made; ConfigError for those that no station sees."""
        if self.info.modality is None:
            raise ConfigError(
                f"{self.folder} holds images of no modality that a station sees; expected phase or "
                "brightfield; only the watershed is measured on it (tools/make-accuracy)"
            )
        return self.info.modality

    def in_split(self, split: str) -> tuple[Entry, ...]:
        """Return the images of one split (`all` for every labeled one), in the order of the manifest."""
        chosen = SPLITS if split == "all" else (split,)
        return tuple(entry for entry in self.entries if entry.split in chosen)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What an importer may be told beside its source; each field one line: meaning, unit, range."""

    um_per_px: float | None = None
    """Scale where the source does not say it, um/px, > 0."""
    modality: Modality | None = None
    """Where the source does not say it."""
    assay: Assay | None = None
    """Where the source does not say it."""
    seed: int = 0
    """Of the splits where the source has none; for sets in 5 folds, the fold that is test, mod 5."""
    accept_proposals: bool = False
    """Take what a station said of its own cells as labels where nobody corrected it."""


def toxic_label(said: str) -> str:
    """Return the label of a field by a 1 or 0 of a table, an empty text where it says neither."""
    return {"1": "toxic", "1.0": "toxic", "0": "non_toxic", "0.0": "non_toxic"}.get(said, "")


def copy_images(targets: Mapping[Path, Path]) -> None:
    """Copy each file to its target, folders made.

    Raises
    ------
    ConfigError
        With every file that cannot be copied.
    """
    faults = []
    for source, target in targets.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError as error:
            faults.append(
                f"{source} cannot be copied to {target} ({error.strerror}); expected a readable image"
            )
    if faults:
        raise ConfigError(faults)


def draw_splits(groups: Iterable[str], seed: int) -> dict[str, str]:
    """Return a split for each group: 70 % train, 15 % val, 15 % test, no split empty from three groups on."""
    names = np.random.default_rng(seed).permutation(sorted(set(groups)))
    n_held = max(1, round(0.15 * len(names))) if len(names) >= 3 else 0
    splits = ["val"] * n_held + ["test"] * n_held + ["train"] * (len(names) - 2 * n_held)
    return dict(zip((str(name) for name in names), splits, strict=True))


def list_importers() -> list[str]:
    """Return the kinds of data that can be imported: the files `from_<kind>.py` of this package."""
    return sorted(
        module.name.removeprefix("from_")
        for module in pkgutil.iter_modules(__path__)
        if module.name.startswith("from_")
    )


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset that a folder holds; images are not opened, masks where no cell is listed.

    Raises
    ------
    ConfigError
        With every fault of its tables and of `dataset.json` at once.
    """
    faults: list[str] = []
    entries = read_manifest(folder, faults)
    cells = read_cells(folder, faults)
    info = None
    try:
        info = read_dataset_info(folder)
    except ConfigError as error:
        faults += error.faults
    if faults or info is None:
        raise ConfigError(faults)
    for entry in entries:
        mask = mask_path(folder, entry.file)
        if entry.file not in cells and mask.is_file():
            cells[entry.file] = tuple(
                circle_cell("", row, col, radius) for row, col, radius, _ in mask_circles(read_mask(mask))
            )
    return Dataset(folder, info, tuple(entries), cells)


def read_manifest(folder: Path, faults: list[str]) -> list[Entry]:
    """Return the rows of `manifest.csv`; what is wrong with it is appended to `faults`."""
    path = folder / MANIFEST
    entries = [
        Entry(row["file"], row["label"], row["group"], row["split"], row.get("batch", ""))
        for _, row in read_rows(path, MANIFEST_COLUMNS, faults)
    ]
    seen: set[str] = set()
    for line, entry in enumerate(entries, 2):
        if entry.file in seen:
            faults.append(f"{path} line {line} names {entry.file} again; expected each file once")
        seen.add(entry.file)
        if entry.split not in (*SPLITS, UNLABELED):
            faults.append(
                f"{path} line {line} has split {entry.split!r}; expected {', '.join((*SPLITS, UNLABELED))}"
            )
        if entry.label not in ("", *FIELD_LABELS):
            faults.append(
                f"{path} line {line} has label {entry.label!r}; expected {', '.join(FIELD_LABELS)} or empty"
            )
        if not entry.group:
            faults.append(f"{path} line {line} has no group; expected its well or family of duplicates")
    if not entries and not faults:
        faults.append(f"{path} lists no image; expected at least one row")
    return entries


def read_cells(folder: Path, faults: list[str], table: str = CELLS) -> dict[str, tuple[TrueCell, ...]]:
    """Return the true cells by file, none without the table; what is wrong is appended to `faults`."""
    path = folder / table
    cells: dict[str, list[TrueCell]] = {}
    if not path.is_file():
        return {}
    for line, row in read_rows(path, CELL_COLUMNS, faults):
        try:
            box = [float(row[name]) for name in CELL_COLUMNS[2:]]
        except ValueError:
            faults.append(
                f"{path} line {line} has a position that is no number; expected xmin,ymin,xmax,ymax in pixels"
            )
            continue
        label = row["label"] and (row.get("cell_class") or row["label"])  # a renderer knows the finer class
        cells.setdefault(row["file"], []).append(TrueCell(label, *box))
    return {file: tuple(several) for file, several in cells.items()}


def write_dataset(
    folder: Path,
    info: DatasetInfo,
    entries: Iterable[Entry],
    cells: dict[str, tuple[TrueCell, ...]] | None = None,
) -> None:
    """Write manifest, cells and dataset.json of a folder whose images are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(entry.file, entry.label, entry.group, entry.split, entry.batch) for entry in entries]
    n_columns = 5 if any(row[-1] for row in rows) else 4
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*MANIFEST_COLUMNS, "batch")[:n_columns])
        table.writerows(row[:n_columns] for row in rows)
    if cells is not None:
        with (folder / CELLS).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(CELL_COLUMNS)
            for name, several in cells.items():
                table.writerows(
                    (name, c.label, *(f"{v:g}" for v in (c.xmin, c.ymin, c.xmax, c.ymax))) for c in several
                )
    write_dataset_info(folder, info)


def read_rows(path: Path, columns: tuple[str, ...], faults: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a table with their line numbers, none without a column; appends to `faults`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                faults.append(
                    f"{path} has no column {', '.join(missing)}; expected at least {','.join(columns)}"
                )
                return []
            return [
                (reader.line_num, {name: (value or "").strip() for name, value in row.items() if name})
                for row in reader
            ]
    except FileNotFoundError:
        faults.append(
            f"{path} is missing; expected a table with {','.join(columns)} (see `nanotox-train data import`)"
        )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        faults.append(f"{path} is no UTF-8 table ({error}); expected {','.join(columns)}")
    return []
