"""Import of a table of images: `file,label`, optional `group,split,batch`, and a `cells.csv` beside it."""

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
    read_rows,
    write_dataset,
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the images that the table `source` lists; their scale and modality are needed.

    Paths are relative to its folder. Without `group` each image is a group of its own; without `split` groups
    are drawn 70/15/15.
    """
    faults: list[str] = []
    if options.um_per_px is None or not options.um_per_px > 0:
        faults.append(f"um_per_px is {options.um_per_px}; expected micrometers a pixel (--um-per-px)")
    if options.modality is None:
        faults.append(f"no modality; expected --modality {' or '.join(get_args(Modality))}")
    rows = [row for _, row in read_rows(source, ("file", "label"), faults)]
    if not rows and not faults:
        faults.append(f"{source} lists no image; expected at least one row")
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
