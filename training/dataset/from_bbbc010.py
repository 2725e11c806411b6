"""Import of BBBC010: living and dead worms of one plate, whose wells give the label away; evaluation only."""

from dataclasses import replace
from pathlib import Path

from device.errors import ConfigError
from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import MANIFEST, Entry, ImportOptions, copy_images, read_cells, read_rows, write_dataset
from training.dataset.masks import mask_path

INFO = DatasetInfo(
    scale=Scale(um_per_px=8.0, source="assumed"),  # makes a well of 384, about 410 px wide, 3.3 mm
    modality=None,  # worms: no station sees them
    origin="BBBC010v1, Broad Bioimage Benchmark Collection (Ljosa et al., Nature Methods 2012)",
    licence="unclear, evaluation only, not to be redistributed",
)
_COLUMNS = ("file", "mask", "toxic", "well", "split")


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set at `source` as a dataset folder: labels of wells, and of worms by their stain.

    Parameters
    ----------
    source : Path
        Folder with `manifest.csv` (file, mask, toxic, well, split), `worms.csv`, `images/` and `masks/`.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Not looked at: the set states all itself.

    Raises
    ------
    ConfigError
        If a table, a column or a file is missing.

    Notes
    -----
    Labels of fields are those of the plate's columns. Worms between the two humps of the stain have none.
    """
    faults: list[str] = []
    rows = [row for _, row in read_rows(source / MANIFEST, _COLUMNS, faults)]
    worms = read_cells(source, faults, "worms.csv")
    if faults:
        raise ConfigError(faults)
    images = {source / row["file"]: out / row["file"] for row in rows}
    masks = {source / row["mask"]: mask_path(out, row["file"]) for row in rows}
    copy_images(images | masks)
    entries = [
        Entry(row["file"], "toxic" if row["toxic"] == "1" else "non_toxic", row["well"], row["split"])
        for row in rows
    ]
    cells = {
        file: tuple(replace(worm, label="") if worm.label == "uncertain" else worm for worm in several)
        for file, several in worms.items()
    }
    write_dataset(out, INFO, entries, cells)
