"""Import of U2OS monolayers, treated or not (MIT): images whose replicate gives the label away."""

from pathlib import Path

from device.errors import ConfigError
from device.plates import DatasetInfo
from device.records import Scale
from training.dataset import (
    MANIFEST,
    Entry,
    ImportOptions,
    copy_images,
    draw_splits,
    read_rows,
    write_dataset,
)

INFO = DatasetInfo(
    scale=Scale(um_per_px=0.65, source="assumed"),  # not published; the images were halved
    modality="phase",  # not stated; cells have the halos of phase contrast
    origin="https://github.com/miriukaLab/celldeath (La Greca et al., PLoS ONE 2021)",
    licence="MIT, 2020",
    assay="adherent",
)


def import_data(source: Path, out: Path, options: ImportOptions) -> None:
    """Write the set at `source` as a dataset folder; group and batch of a field are its replicate.

    Parameters
    ----------
    source : Path
        Folder with `manifest.csv` (file, toxic, replicate) and `images/`.
    out : Path
        Dataset folder to write.
    options : ImportOptions
        Its seed draws the splits of replicates; fewer than three are all `train`.

    Raises
    ------
    ConfigError
        If the table, a column or a file is missing.
    """
    faults: list[str] = []
    rows = [row for _, row in read_rows(source / MANIFEST, ("file", "toxic", "replicate"), faults)]
    if faults:
        raise ConfigError(faults)
    copy_images({source / row["file"]: out / row["file"] for row in rows})
    splits = draw_splits((row["replicate"] for row in rows), options.seed)
    entries = [
        Entry(
            row["file"],
            "toxic" if row["toxic"] == "1" else "non_toxic",
            row["replicate"],
            splits[row["replicate"]],
            row["replicate"],
        )
        for row in rows
    ]
    write_dataset(out, INFO, entries)
