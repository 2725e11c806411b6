"""Import of a table of images: `file,label`, optional `group,split,batch`, and a `cells.csv` beside it."""

import csv
from pathlib import Path
from typing import get_args

from device.errors import ConfigError
from device.plates import DatasetInfo
from device.records import Modality, Scale
from training.dataset import (
    Entry,
    ImportOptions,
    TrueCell,
    copy_images,
    draw_splits,
    read_cells,
    write_dataset,
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the images that a table lists as a dataset folder.

    Parameters
    ----------
    source : Path
        The table; its paths are relative to its folder. Without `group` each image is a group of
        its own; without `split` groups are drawn 70/15/15.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Scale and modality are needed.

    Raises
    ------
    ConfigError
        With every fault of table and options.
    """
    faults: list[str] = []
    if options.um_per_px is None or not options.um_per_px > 0:
        faults.append(f"um_per_px is {options.um_per_px}; expected micrometers a pixel (--um-per-px)")
    if options.modality is None:
        faults.append(f"no modality; expected --modality {' or '.join(get_args(Modality))}")
    rows = _read_table(source, faults)
    cells = read_cells(source.parent, faults)
    if faults or options.um_per_px is None or options.modality is None:
        raise ConfigError(faults)
    groups = [row.get("group") or row["file"] for row in rows]
    drawn = draw_splits(groups, options.seed)
    names = {row["file"]: f"images/{i:05d}{Path(row['file']).suffix.lower()}" for i, row in enumerate(rows)}
    entries = [
        Entry(names[row["file"]], row["label"], group, row.get("split") or drawn[group], row.get("batch", ""))
        for row, group in zip(rows, groups, strict=True)
    ]
    copy_images({source.parent / file: out / name for file, name in names.items()})
    renamed: dict[str, tuple[TrueCell, ...]] = {names[file]: c for file, c in cells.items() if file in names}
    scale = Scale(options.um_per_px, "measured")
    info = DatasetInfo(
        scale=scale, modality=options.modality, origin=source.name, licence="not stated", assay=options.assay
    )
    write_dataset(out, info, entries, renamed or None)


def _read_table(source: Path, faults: list[str]) -> list[dict[str, str]]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("file", "label") if name not in (reader.fieldnames or ())]
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        faults.append(
            f"{source} is no readable table ({error}); expected file,label and optionally group,split"
        )
        return []
    if missing:
        faults.append(
            f"{source} has no column {', '.join(missing)}; expected file,label and optionally group,split"
        )
        return []
    if not rows:
        faults.append(f"{source} lists no image; expected at least one row")
    return rows
