"""Reviews: what a person says of a published record, kept beside it and linked by seq and hash."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device.journal import Row
from device.journal.read import is_journal, open_read_only
from device.messages.commands import Annotate
from device.messages.replies import Refusal


@dataclass(frozen=True, slots=True)
class Review:
    """A review as the journal keeps it."""

    at: str
    """When it was stored, RFC 3339, UTC."""
    operator: str
    transaction: str
    seq: int
    hash: str
    """Of the record."""
    reviewed: str
    """Form of the record, such as `reading/1`."""
    decision: str
    outcome: str | None
    """What the record should have stated; None where that stands."""
    cells: tuple[dict[str, Any], ...]
    """Corrected or added ones: `row`, `col`, px, and `label`."""
    reason: str


def find_fault(row: Row, args: Annotate) -> Refusal | None:
    """Return why a review cannot be of a record, None if it can."""
    if row.leaf == "alert":
        found = f"record {row.seq} is an alert; expected a reading, a verdict or a plate"
        return Refusal("UNKNOWN_RECORD", found, "args.seq")
    if args.outcome is not None and row.leaf == "plate":
        found = f"record {row.seq} is a plate, which has no outcome; expected a reading or a verdict"
        return Refusal("UNKNOWN_RECORD", found, "args.outcome")
    if args.cells and row.leaf != "reading":
        found = f"record {row.seq} is a {row.leaf}; expected a reading, which has cells"
        return Refusal("UNKNOWN_RECORD", found, "args.cells")
    values = json.loads(row.message) if args.cells else {}
    for i, cell in enumerate(args.cells):
        if cell.row > values["height_px"] - 0.5 or cell.col > values["width_px"] - 0.5:
            size = f"{values['height_px']} x {values['width_px']}"
            found = f"cell {i} is at row {cell.row:g}, column {cell.col:g}; expected it within {size}"
            return Refusal("UNKNOWN_RECORD", found, "args.cells")
    return None


def read_reviews(source: Path) -> list[Review]:
    """Return all reviews in a journal, the oldest first; none where `source` is no journal.

    Raises as `read_records`.
    """
    if not is_journal(source):
        return []
    with open_read_only(source) as database:
        query = "SELECT ts, body FROM event WHERE kind = 'review' ORDER BY id"
        rows = [(at, json.loads(body)) for at, body in database.execute(query)]
    return [
        Review(
            at,
            body["operator"],
            body["transaction"],
            body["result"]["seq"],
            body["result"]["hash"],
            body["result"]["reviewed"],
            body["args"]["decision"],
            body["args"].get("outcome"),
            tuple(body["args"].get("cells", ())),
            body["args"].get("reason", ""),
        )
        for at, body in rows
    ]


def corrections(reviews: Iterable[Review]) -> dict[int, list[Review]]:
    """Return by seq the reviews that correct a record; one that accepts it takes back those before."""
    found: dict[int, list[Review]] = {}
    for review in reviews:
        if review.decision == "accept":
            found.pop(review.seq, None)
        else:
            found.setdefault(review.seq, []).append(review)
    return found
