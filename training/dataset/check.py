"""What is wrong with a dataset folder, all of it at once, and what it holds when nothing is."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device.errors import ConfigError, ImageError
from device.images import read_gray
from device.plates import read_dataset_info
from training.dataset import UNLABELED, Entry, Samples, TrueCell, read_cells, read_manifest


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of a check: faults, or counts where there are none."""

    faults: tuple[str, ...]
    n_images: dict[str, int]
    """Images by split."""
    n_groups: dict[str, int]
    """Groups by split."""
    n_labels: dict[str, dict[str, int]]
    """By split: true cells by label, or images by label where the dataset lists no cells."""


def check_dataset(folder: Path) -> Check:
    """Return every fault of a dataset folder, and its counts.

    Parameters
    ----------
    folder : Path
        A dataset folder; every image is decoded once.

    Notes
    -----
    Faults: missing tables, columns and files, unreadable images, a group in two splits, exact copies (by
    pixels) in two splits, a split with one class where others have more, cells of images that the manifest
    does not list.
    """
    faults: list[str] = []
    entries = read_manifest(folder, faults)
    cells = read_cells(folder, faults)
    try:
        read_dataset_info(folder)
    except ConfigError as error:
        faults += error.faults
    faults += _divided_groups(entries)
    faults += _image_faults(folder, entries)
    unlisted = sorted(set(cells) - {entry.file for entry in entries})
    faults += [f"cells.csv has cells of {file}, which manifest.csv does not list" for file in unlisted]
    n_labels = _label_counts(entries, cells)
    faults += _single_classes(n_labels)
    groups: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        groups[entry.split].add(entry.group)
    return Check(
        tuple(faults),
        dict(Counter(entry.split for entry in entries)),
        {split: len(several) for split, several in groups.items()},
        n_labels,
    )


def require_apart(known: Samples, judged: Samples) -> None:
    """Raise if generated images, or groups or images (turned or not) of `known`, are among those that judge.

    Raises
    ------
    ConfigError
        With what was found of each kind.
    """
    faults = []
    if judged.source == "generated" or (judged.group == "generated").any():
        faults.append("generated images")
    shared = sorted(set(known.group.tolist()) & set(judged.group.tolist()))
    if shared:
        faults.append(f"{len(shared)} groups that are trained on ({', '.join(shared[:3])})")
    images = {image.tobytes() for image in known.x}
    turned = [np.rot90(x, k, axes=(1, 2)) for x in (judged.x, judged.x[:, :, ::-1]) for k in range(4)]
    n_copies = sum(any(x.tobytes() in images for x in several) for several in zip(*turned, strict=True))
    if n_copies:
        faults.append(f"{n_copies} copies of images that are trained on")
    if faults:
        raise ConfigError(
            f"the samples that judge hold {' and '.join(faults)}; expected real images of groups of their "
            "own (check the splits with `nanotox-train data check`)"
        )


def _divided_groups(entries: list[Entry]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        splits[entry.group].add(
            "train" if entry.split == UNLABELED else entry.split
        )  # it trains, if anything
    return [
        f"group {group} is in splits {', '.join(sorted(several))}; expected one, as its images are kin"
        for group, several in splits.items()
        if group and len(several) > 1
    ]


def _image_faults(folder: Path, entries: list[Entry]) -> list[str]:
    faults = []
    first: dict[str, Entry] = {}
    for entry in entries:
        path = folder / entry.file
        if not path.is_file():
            faults.append(f"{path} is missing; expected an image, as manifest.csv lists it")
            continue
        try:
            image = read_gray(path)
        except ImageError as error:
            faults.append(str(error))
            continue
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        twin = first.setdefault(key, entry)
        if twin.split != entry.split and {twin.split, entry.split} != {"train", UNLABELED}:
            faults.append(
                f"{entry.file} ({entry.split}) is an exact copy of {twin.file} ({twin.split}); "
                "expected copies in one group of one split"
            )
    return faults


def _label_counts(entries: list[Entry], cells: dict[str, tuple[TrueCell, ...]]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        labels = [cell.label for cell in cells.get(entry.file, ())] if cells else [entry.label]
        counts[entry.split].update(label for label in labels if label)
    return {split: dict(counter) for split, counter in counts.items()}


def _single_classes(n_labels: dict[str, dict[str, int]]) -> list[str]:
    if len({label for labels in n_labels.values() for label in labels}) == 1:
        return []  # a healthy culture: it still tells how many cells are found, and called dead
    return [
        f"split {split} holds only {next(iter(labels))}; expected two classes or more to learn or judge by"
        for split, labels in n_labels.items()
        if len(labels) == 1
    ]
