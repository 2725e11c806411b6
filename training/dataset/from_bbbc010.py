"""Import of BBBC010: living and dead worms of one plate, whose wells give the label away; evaluation only."""

from dataclasses import replace
from pathlib import Path

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import Entry, ImportOptions, toxic_label
from training.dataset.public import read_set, write_set

INFO = DatasetInfo(
    scale=Scale(um_per_px=8.0, source="assumed"),  # makes a well of 384, about 410 px wide, 3.3 mm
    modality=None,  # worms: no station sees them
    origin="BBBC010v1, Broad Bioimage Benchmark Collection (Ljosa et al., Nature Methods 2012)",
    licence="unclear, evaluation only, not to be redistributed",
)


def import_data(source: Path, out: Path, _options: ImportOptions) -> None:
    """Write the set, which states all itself: labels by the plate's columns, of worms by their stain.

    Worms between the two humps of the stain (`worms.csv`) have none.
    """
    rows, worms = read_set(source, "file", "mask", "toxic", "well", "split", cells="worms.csv")
    entries = [Entry(row["file"], toxic_label(row["toxic"]), row["well"], row["split"]) for row in rows]
    cells = {
        file: tuple(replace(worm, label="") if worm.label == "uncertain" else worm for worm in several)
        for file, several in worms.items()
    }
    write_set(source, out, INFO, rows, entries, cells)
