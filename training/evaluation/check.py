"""What is wrong with a dataset folder, all of it at once: each check with its number and its limit."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.errors import ConfigError, ImageError
from device.images import read_gray
from device.records import Interval
from training.dataset import Dataset, Entry, read_dataset
from training.dataset.masks import mask_path, read_mask
from training.dataset.twins import find_twins, make_thumbnail
from training.evaluation.confounds import (
    GIVEN_AWAY_FROM,
    GROUPS_MIN,
    describe_background,
    drown_small_differences,
    hide_cells,
    judge_batches,
    judge_features,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; field names are those of `--json`."""

    code: str
    """FILES, LEAKAGE, DUPLICATE, NEAR_DUPLICATE, SINGLE_CLASS, LABEL_FROM_BACKGROUND or LABEL_FROM_BATCH."""
    passed: bool | None
    """None where the set does not allow to judge."""
    measure: str
    """What `value` is, in words."""
    value: float | None
    interval: Interval | None
    """Of `value`, 95 %; its lower end is what is compared with the limit."""
    limit: float
    found: tuple[str, ...]
    """Faults, or why it was not judged."""
    expected: str
    """What was expected, and what to do."""


@dataclass(slots=True)
class _Seen:
    """What one pass over the images leaves."""

    entries: list[Entry] = field(default_factory=list)
    """Those that could be read, in their order; the lists below go with them."""
    digests: list[str] = field(default_factory=list)
    thumbnails: list[NDArray[np.float32]] = field(default_factory=list)
    light: list[NDArray[np.float64]] = field(default_factory=list)
    taken: list[NDArray[np.float64]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check_dataset(folder: Path) -> tuple[Dataset, tuple[Finding, ...]]:
    """Return a dataset and what each check found, in the order of the codes of `Finding`.

    Parameters
    ----------
    folder : Path
        A dataset folder; every image is decoded once.

    Raises
    ------
    ConfigError
        If its tables or `dataset.json` cannot be worked with. Lists all faults.

    Notes
    -----
    docs/datasets.md tells what each code means and how its limit was chosen. The same folder gives the same.
    """
    dataset = read_dataset(folder)
    seen = _look(dataset)
    unlisted = sorted(set(dataset.cells) - {entry.file for entry in dataset.entries})
    seen.faults += [f"cells.csv has cells of {file}, which manifest.csv does not list" for file in unlisted]
    return dataset, (
        _counted("FILES", "faults", seen.faults, "each image readable and listed once"),
        _counted(
            "LEAKAGE", "groups in two splits", _divided_groups(dataset.entries), "each group in one split"
        ),
        _counted("DUPLICATE", "copies across splits", _copies(seen), "copies in one group of one split"),
        _near_duplicates(seen),
        _single_classes(dataset),
        *_given_away(seen, outlined=bool(dataset.cells)),
    )


def label_counts(dataset: Dataset, split: str) -> dict[str, dict[str, int]]:
    """Return how many `images` and how many `cells` of a split have each label; none without labels."""
    entries = dataset.in_split(split)
    fields = Counter(entry.label for entry in entries if entry.label)
    cells = Counter(
        cell.label for entry in entries for cell in dataset.cells.get(entry.file, ()) if cell.label
    )
    return {name: dict(sorted(n.items())) for name, n in (("images", fields), ("cells", cells)) if n}


def _look(dataset: Dataset) -> _Seen:
    seen = _Seen()
    for entry in dataset.entries:
        path = dataset.folder / entry.file
        mask = mask_path(dataset.folder, entry.file)
        try:
            image = read_gray(path)
            labels = read_mask(mask) if mask.is_file() else None
        except (ImageError, ConfigError) as error:
            missing = f"{path} is missing; expected an image, as manifest.csv lists it"
            seen.faults.append(str(error) if path.is_file() else missing)
            continue
        if labels is not None and labels.shape != image.shape:
            seen.faults.append(f"{mask} is {labels.shape}; expected {image.shape}, as its image")
            continue
        boxes = dataset.cells.get(entry.file, ()) if labels is None else ()
        background = hide_cells(image.shape, labels, boxes)
        light, taken = describe_background(image, background)
        seen.entries.append(entry)
        seen.digests.append(hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest())
        seen.thumbnails.append(make_thumbnail(image))
        seen.light.append(light)
        seen.taken.append(taken)
    return seen


def _counted(code: str, measure: str, found: Sequence[str], expected: str) -> Finding:
    return Finding(code, not found, measure, len(found), None, 0, tuple(found), expected)


def _divided_groups(entries: Sequence[Entry]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        splits[entry.group].add(entry.kin)
    return [
        f"group {group} is in splits {', '.join(sorted(several))}"
        for group, several in splits.items()
        if len(several) > 1
    ]


def _copies(seen: _Seen) -> list[str]:
    first: dict[str, list[Entry]] = defaultdict(list)
    found = []
    for entry, digest in zip(seen.entries, seen.digests, strict=True):
        twin = next((other for other in first[digest] if other.kin != entry.kin), None)
        if twin:
            found.append(f"{entry.file} ({entry.split}) is an exact copy of {twin.file} ({twin.split})")
        first[digest].append(entry)
    return found


def _near_duplicates(seen: _Seen) -> Finding:
    twins = find_twins(np.array(seen.thumbnails, np.float32), [entry.kin for entry in seen.entries])
    pairs = [
        (seen.entries[i], seen.entries[j], r) for i, j, r in twins.pairs if seen.digests[i] != seen.digests[j]
    ]
    return Finding(
        "NEAR_DUPLICATE",
        not pairs,
        "highest correlation across splits, shifts and mirror images included",
        round(twins.highest, 4),
        None,
        round(twins.limit, 4),
        tuple(f"{a.file} ({a.split}) shows {b.file} ({b.split}), correlation {r:.3f}" for a, b, r in pairs),
        "a field and its shifted, mirrored or brighter copies in one group of one split",
    )


def _single_classes(dataset: Dataset) -> Finding:
    """Judge images and cells, each by their labels; one class of the one is no fault if the other has two."""
    whole = label_counts(dataset, "all")
    judged = [name for name, labels in whole.items() if len(labels) > 1] or list(whole)
    fewest, found = None, []
    for split in sorted({entry.split for entry in dataset.entries}):
        counts = label_counts(dataset, split)
        for name in (name for name in judged if name in counts):
            labels = list(counts[name])
            fewest = min(fewest or len(labels), len(labels))
            if len(labels) == 1:
                found.append(f"split {split} holds only {name} that are {labels[0]}")
    return Finding(
        "SINGLE_CLASS",
        not found if fewest else None,
        "fewest classes in a split",
        fewest,
        None,
        2,
        tuple(found) if fewest else ("nothing is labeled",),
        "two classes or more in each split to learn and judge by",
    )


def _given_away(seen: _Seen, *, outlined: bool) -> Iterator[Finding]:
    """Yield what is told by background, by light and by batch."""
    known = [i for i, entry in enumerate(seen.entries) if entry.label]
    entries = [seen.entries[i] for i in known]
    toxic = np.array([entry.label == "toxic" for entry in entries], bool)
    groups = [entry.group for entry in entries]
    few = f"a label has fewer than {GROUPS_MIN} groups"
    light = np.array([seen.light[i] for i in known])
    taken = np.array([seen.taken[i] for i in known])
    if not outlined and known:
        taken[:, 1] = 0  # noise and sharpness of a whole image are also those of its cells: no giveaway
    two = 0 < toxic.sum() < len(toxic)
    yield _judged(
        "LABEL_FROM_BACKGROUND",
        "AUC of the light on 4x4 blocks of background, across groups",
        judge_features(light, toxic, groups) if two else None,
        few,
    )
    yield _judged(
        "LABEL_FROM_BATCH",
        "AUC of level, noise and size of the background, across groups",
        judge_features(drown_small_differences(taken), toxic, groups) if two else None,
        few,
    )
    batches = _batches(entries)
    yield _judged(
        "LABEL_FROM_BATCH",
        "balanced accuracy of what most of a batch is",
        judge_batches(toxic, batches) if two and batches else None,
        "no column batch (plate, day, replicate) in manifest.csv, and no label has one group only",
    )


def _batches(entries: Sequence[Entry]) -> list[str] | None:
    """Return the batch of each image: its group where a label has but one, as nothing tells the two apart."""
    if any(entry.batch for entry in entries):
        return [entry.batch or entry.group for entry in entries]
    groups: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        groups[entry.label].add(entry.group)
    return [entry.group for entry in entries] if any(len(names) == 1 for names in groups.values()) else None


def _judged(code: str, measure: str, judged: tuple[float, Interval] | None, why_not: str) -> Finding:
    expected = {
        "LABEL_FROM_BACKGROUND": "labels that need the cells: mix labels over the plate or cut cells out",
        "LABEL_FROM_BATCH": "both labels in each batch, taken alike: add plates with controls of both",
    }[code]
    if judged is None:
        return Finding(code, None, measure, None, None, GIVEN_AWAY_FROM, (why_not,), expected)
    value, interval = judged
    passed = interval.low < GIVEN_AWAY_FROM
    found = () if passed else ("labels can be told without looking at a cell",)
    return Finding(code, passed, measure, round(value, 4), interval, GIVEN_AWAY_FROM, found, expected)
