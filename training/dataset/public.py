"""Public sets as their folders lie: `manifest.csv` with the columns file and perhaps mask, images, masks."""

from collections.abc import Iterable
from pathlib import Path

from device.errors import ConfigError
from device.plates import DatasetInfo
from training.dataset import MANIFEST, Entry, TrueCell, copy_images, read_cells, read_rows, write_dataset
from training.dataset.masks import mask_path

Rows = list[dict[str, str]]
Cells = dict[str, tuple[TrueCell, ...]]


def read_set(source: Path, *columns: str, cells: str | None = None) -> tuple[Rows, Cells]:
    """Return the rows of a set's manifest, which needs these columns, and the cells of the table `cells`.

    ConfigError with every fault of both.
    """
    faults: list[str] = []
    rows = [row for _, row in read_rows(source / MANIFEST, columns, faults)]
    found = read_cells(source, faults, cells) if cells else {}
    if cells and not (source / cells).is_file():
        faults.append(f"{source} has no {cells}; expected the whole folder of the set")
    if faults:
        raise ConfigError(faults)
    return rows, found


def write_set(
    source: Path,
    out: Path,
    info: DatasetInfo,
    rows: Rows,
    entries: Iterable[Entry],
    cells: Cells | None = None,
) -> None:
    """Write the images of `rows`, their masks if they have such, and what is known of them."""
    images = {source / row["file"]: out / row["file"] for row in rows}
    masks = {source / row["mask"]: mask_path(out, row["file"]) for row in rows if "mask" in row}
    copy_images(images | masks)
    write_dataset(out, info, entries, cells)
