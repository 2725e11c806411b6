"""The tables of a bundle: which reading each image is, what the station and what persons say of its cells."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device.journal.reviews import Review
    from device.plates import DatasetInfo

_MANIFEST = (
    *("file", "label", "group", "split", "why"),
    *("site", "station", "ledger_id", "seq", "cell_model.sha256", "taken_at"),
)
_BOX = ("file", "label", "xmin", "ymin", "xmax", "ymax")
_PROPOSALS = (*_BOX, "p_dead")
_CELLS = (*_BOX, "label_source", "operator", "reviewed_at", "transaction")
_REVIEWS = (
    *("file", "seq", "hash", "reviewed", "decision", "outcome", "n_cells", "reason"),
    *("operator", "reviewed_at", "transaction"),
)
_RADIUS_UM = 9.0
"""Of a proposed box where the scale is assumed and areas are null: half the side of the cell model's crop."""


@dataclass(frozen=True, slots=True)
class BundleImage:
    """One chosen reading with its frame, as the bundle holds it."""

    file: str
    values: Mapping[str, Any]
    why: str
    shrink: int
    """Pixels of the reading per pixel of `file`: a large image may have been decoded smaller."""


def write_tables(folder: Path, images: Sequence[BundleImage], reviews: "Sequence[Review]") -> None:
    """Write all tables and dataset.json; cells.csv only where a person has corrected cells of `images`."""
    from device.journal.reviews import corrections
    from device.plates import write_dataset_info, write_table

    proposals = (row for image in images for row in _propose(image))
    write_table(folder / "proposals.csv", [_PROPOSALS, *proposals])
    write_table(folder / "manifest.csv", [_MANIFEST, *(_manifest_row(image) for image in images)])
    write_table(folder / "reviews.csv", [_REVIEWS, *_review_rows(images, reviews)])
    corrected = corrections(reviews)
    if cells := [row for image in images for row in _corrected_cells(image, corrected)]:
        write_table(folder / "cells.csv", [_CELLS, *cells])
    write_dataset_info(folder, _info(images[0]))


def _manifest_row(image: BundleImage) -> list[object]:
    """Return a row of manifest.csv; a group, never divided between splits, is a well, else a day."""
    v = image.values
    place = (v["site"], v["station"], v["taken_at"][:10]) if v["well"] is None else (v["plate"], v["well"])
    model = (v["cell_model"] or {}).get("sha256")
    identity = (v["site"], v["station"], v["ledger_id"], v["seq"])
    return [image.file, "", "/".join(place), "unlabeled", image.why, *identity, model, v["taken_at"]]


def _info(image: BundleImage) -> "DatasetInfo":
    from device.plates import DatasetInfo
    from device.records import Scale

    v = image.values
    return DatasetInfo(
        scale=Scale(v["quality"]["um_per_px"] * image.shrink, v["quality"]["um_per_px_source"]),
        modality=v["modality"],
        origin=f"station {v['site']}/{v['station']}",
        licence="not stated",
        assay=v["assay"],
        simulated=v["simulated"],
    )


def _propose(image: BundleImage) -> Iterator[tuple[object, ...]]:
    """Yield a row for each cell: its class and the box of a disk as large as it, in pixels of its file."""
    for cell in image.values["cells"]:
        yield image.file, cell["cell_class"], *_box(image, cell), f"{cell['p_dead']:.3f}"


def _box(image: BundleImage, cell: Mapping[str, Any]) -> Iterator[str]:
    # bounds are inclusive: the pixel itself adds a half
    reach = _radius_px(image, cell) / image.shrink - 0.5
    row, col = ((cell[name] + 0.5) / image.shrink - 0.5 for name in ("row", "col"))
    return (f"{bound:.1f}" for bound in (col - reach, row - reach, col + reach, row + reach))


def _radius_px(image: BundleImage, cell: Mapping[str, Any]) -> float:
    """Return the radius of a cell in pixels of its reading."""
    area_um2 = cell.get("area_um2")
    radius_um = _RADIUS_UM if area_um2 is None else math.sqrt(area_um2 / math.pi)
    return float(radius_um / image.values["quality"]["um_per_px"])


def _review_rows(images: Iterable[BundleImage], reviews: "Iterable[Review]") -> Iterator[tuple[object, ...]]:
    """Yield a row for each review, with the file of its record where the bundle holds that."""
    files = {image.values["seq"]: image.file for image in images}
    for r in reviews:
        said = (r.decision, r.outcome or "", len(r.cells), r.reason, r.operator, r.at, r.transaction)
        yield files.get(r.seq, ""), r.seq, r.hash, r.reviewed, *said


def _corrected_cells(
    image: BundleImage, reviews: "Mapping[int, list[Review]]"
) -> Iterator[tuple[object, ...]]:
    """Yield a row for each cell of a field whose cells a person corrected: only those cells have a label.

    A correction is of the nearest cell that it lies in, else of one that the station missed.
    """
    cells: list[Mapping[str, Any]] = list(image.values["cells"])
    said: dict[int, tuple[object, ...]] = {}
    for review in reviews.get(image.values["seq"], ()):
        for seen in review.cells:
            away, index = min(
                ((math.dist(_center(seen), _center(cell)), index) for index, cell in enumerate(cells)),
                default=(math.inf, 0),
            )
            if not cells or away > _radius_px(image, cells[index]):
                index = len(cells)
                cells.append(seen)
            said[index] = (seen["label"], "person", review.operator, review.at, review.transaction)
    if said:
        for index, cell in enumerate(cells):
            label, *who = said.get(index, ("", "", "", "", ""))
            yield image.file, label, *_box(image, cell), *who


def _center(cell: Mapping[str, Any]) -> tuple[float, float]:
    return cell["row"], cell["col"]
