"""Import of frames that a station kept and a person labeled: a folder of `nanotox dataset bundle`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from device.errors import ConfigError
from device.plates import file_sha256, read_dataset_info
from device.records import CellClass
from training.dataset import (
    CELLS,
    MANIFEST,
    UNLABELED,
    Entry,
    ImportOptions,
    TrueCell,
    copy_images,
    draw_splits,
    read_cells,
    read_manifest,
    write_dataset,
)

PROPOSALS = "proposals.csv"
_SUMS = "SHA256SUMS"


def import_data(source: Path, out: Path, options: ImportOptions) -> str:
    """Write a labeled bundle as a dataset folder, and return how much of it nobody labeled or corrected.

    A person made its `cells.csv` of its `proposals.csv`; an image without a row in it counts as not labeled.
    `bundle.csv` in `out` keeps which reading each image is and why it was chosen.

    Notes
    -----
    Images without labels stay in the split `unlabeled`, but for those of a well whose labeled images validate
    or test: these are left out.
    """
    faults: list[str] = []
    sums = _read_sums(source, faults)
    entries, cells = read_manifest(source, faults), read_cells(source, faults)
    proposals = read_cells(source, faults, PROPOSALS)
    if faults:
        raise ConfigError(faults)
    faults += _altered_files(source, sums, {entry.file for entry in entries})
    faults += _unknown_labels(source, cells)
    same = [file for file in proposals if set(cells.get(file, ())) == set(proposals[file])]
    is_untouched = len(same) == len(proposals | cells) or _sum(source / CELLS) in (None, sums.get(PROPOSALS))
    if is_untouched and not (options.accept_proposals and proposals | cells):
        found = "holds what the station proposed" if cells else "is missing"
        faults.append(
            f"{source / CELLS} {found}; expected what a person made of {PROPOSALS} by looking at the images, "
            "or --accept-proposals"
        )
    if faults:
        raise ConfigError(faults)
    cells = cells or proposals
    placed = _place(entries, cells, options.seed)
    info = replace(read_dataset_info(source), label_source="station" if is_untouched else "person")
    copy_images({source / entry.file: out / entry.file for entry in placed})
    write_dataset(out, info, placed, cells)
    copy_images({source / MANIFEST: out / "bundle.csv"})
    n_left_out, n_unlabeled = len(entries) - len(placed), sum(entry.split == UNLABELED for entry in placed)
    return (
        f"{n_unlabeled} images without labels, {n_left_out} more left out for their wells; {len(same)} of "
        f"{len(cells)} labeled images stand as the station proposed them"
    )


def _place(entries: list[Entry], cells: Mapping[str, tuple[TrueCell, ...]], seed: int) -> list[Entry]:
    """Return the entries that may stay with their splits, drawn among groups that have labels."""
    drawn = draw_splits((entry.group for entry in entries if entry.file in cells), seed)
    placed = []
    for entry in entries:
        split = drawn.get(entry.group, "train")
        if entry.file in cells:
            placed.append(replace(entry, split=split))
        elif split == "train":
            placed.append(replace(entry, split=UNLABELED))
    return placed


def _read_sums(source: Path, faults: list[str]) -> dict[str, str]:
    """Return the SHA-256 of each file by name, as the bundle says them."""
    path = source / _SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path} cannot be read ({error}); expected a whole folder of `nanotox dataset bundle`")
        return {}
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def _altered_files(source: Path, sums: Mapping[str, str], images: set[str]) -> list[str]:
    """Return a fault for each file that is not as it was bundled; proposals.csv may have been renamed."""
    faults = [f"{source / _SUMS} does not name {file}; expected all" for file in sorted(images - sums.keys())]
    for name, expected in sums.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            faults.append(f"{source / _SUMS} names {name}; expected files inside of the bundle only")
            continue
        found = _sum(source / name)
        if found != expected and (found, name) != (None, PROPOSALS):
            faults.append(
                f"{source / name} is {'missing' if found is None else 'altered'}; expected it with SHA-256 "
                f"{expected[:12]}... by {_SUMS}: copy the bundle again, and change {CELLS} only"
            )
    return faults


def _unknown_labels(source: Path, cells: Mapping[str, tuple[TrueCell, ...]]) -> list[str]:
    labels = {cell.label for several in cells.values() for cell in several}
    return [
        f"{source / CELLS} has label {label!r}; expected {', '.join(CellClass)} or, if nobody can tell, none"
        for label in sorted(labels - {"", *CellClass})
    ]


def _sum(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None
