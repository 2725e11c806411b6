"""What a station keeps and for how long: records by age and size, frames by size; what goes is noted."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import cv2

from device.config import Config
from device.journal import Journal, StorageFullError
from device.records import ClockState, Frame

log = logging.getLogger(__name__)

UPKEEP_S = 60.0
"""Time between two rounds."""
_BATCH = 500
"""Frames of one note, so that it stays small."""


def frame_path(folder: Path, taken_at: datetime, sha256: str) -> Path:
    """Return where a frame is kept: under its day in UTC, by the SHA-256 of its file."""
    return folder / f"{taken_at.astimezone(UTC):%Y-%m-%d}" / f"{sha256}.png"


def keep_frame(folder: Path, frame: Frame) -> str:
    """Return the SHA-256 of the PNG file that holds the image of `frame`, under `folder` and its day in UTC.

    OSError if it cannot be written; what lies there is whole or absent.
    """
    _, png = cv2.imencode(".png", frame.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    sha256 = hashlib.sha256(png.data).hexdigest()
    file = frame_path(folder, frame.taken_at, sha256)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        try:
            with partial.open("wb") as stream:
                stream.write(png.data)
                stream.flush()
                # The journal's own sync, which follows, brings the name to the disk.
                os.fsync(stream.fileno())
            partial.replace(file)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    return sha256


def keep_up(config: Config, journal: Journal, clock_state: ClockState) -> None:
    """Let go of what the configuration does not keep; the plate that runs keeps all of its own.

    Records go by age only if a time server has set the clock: one that jumps ahead must not delete them.
    JournalError if the journal cannot be trusted any more.
    """
    section, frames = config.journal, config.frames
    last = journal.notes("plate_start", "plate_end", limit=1)
    begun = last[0][1]["after_seq"] + 1 if last and last[0][0] == "plate_start" else None
    is_set = clock_state == "synced"
    before = datetime.now(UTC) - timedelta(days=section.keep_days) if is_set else None
    try:
        while n := journal.let_go(before=before, max_bytes=section.keep_gb * 1e9, keep_from=begun):
            log.info("%d records are let go, as [journal] keep_days and keep_gb say", n)
        hold_quota(frames.path, frames.keep_gb * 1e9, journal, begun)
    except StorageFullError as error:
        log.info("%s", error)  # told as a condition; the next round tries again


def hold_quota(folder: Path, max_bytes: float, journal: Journal, begun: int | None) -> None:
    """Delete the oldest kept frames above `max_bytes`, never those of readings with a seq from `begun` on."""
    over = sum(entry.stat().st_size for day in _days(folder) for entry in _frames(day)) - max_bytes
    if over <= 0:
        return
    kept = set() if begun is None else journal.frames_of(begun)
    for day in _days(folder):
        by_age = sorted(_frames(day), key=lambda entry: entry.stat().st_mtime_ns)
        going = iter([entry for entry in by_age if entry.name.removesuffix(".png") not in kept])
        while over > 0 and (batch := list(islice(_until(going, over), _BATCH))):
            names = [entry.name.removesuffix(".png") for entry in batch]
            journal.note("frames_let_go", day=day.name, sha256=names)
            for entry in batch:
                over -= entry.stat().st_size
                Path(entry.path).unlink(missing_ok=True)
            log.info("%d frames of %s are let go, as [frames] keep_gb says", len(batch), day.name)
        with suppress(OSError):
            day.rmdir()  # only if it is empty


def _days(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(day for day in folder.iterdir() if re.fullmatch(r"\d{4}-\d\d-\d\d", day.name))
    return []


def _frames(day: Path) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(day) as entries:
        return [entry for entry in entries if entry.name.endswith(".png")]
    return []


def _until(entries: Iterator[os.DirEntry[str]], over: float) -> Iterator[os.DirEntry[str]]:
    """Yield entries until their sizes make up for what is `over`."""
    while over > 0 and (entry := next(entries, None)) is not None:
        over -= entry.stat().st_size
        yield entry
