"""Import of U2OS monolayers, treated or not (MIT): images whose replicate gives the label away."""

from pathlib import Path

from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import Entry, ImportOptions, draw_splits, toxic_label
from training.dataset.public import read_set, write_set

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.65, source="assumed"),  # not published; the images were halved
    modality="phase",  # not stated; cells have the halos of phase contrast
    origin="https://github.com/miriukaLab/celldeath (La Greca et al., PLoS ONE 2021)",
    licence="MIT, 2020",
    assay="adherent",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set; group and batch of a field are its replicate, fewer than three are all `train`."""
    rows, _ = read_set(source, "file", "toxic", "replicate")
    splits = draw_splits((row["replicate"] for row in rows), options.seed)
    labeled = [(row["file"], toxic_label(row["toxic"]), row["replicate"]) for row in rows]
    entries = [Entry(*known, splits[known[-1]], batch=known[-1]) for known in labeled]
    write_set(source, out, INFO, rows, entries)
