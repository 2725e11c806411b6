"""The journal's file: locked for one station, its errors in the words of a person."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from device.errors import JournalError

# A write that fails for want of space is rolled back and may be tried again; after a failed fsync nobody
# knows what the disk holds, so that handle is never used again.
_NO_SPACE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}


_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageFullError(JournalError):
    """There is no room for the record; nothing was written, and it may be tried again."""


BALLAST_BYTES = 8 << 20
"""Room held for what must be told when a disk is full."""


def ballast(path: Path, *, held: bool) -> None:
    """Hold room beside the journal `path`, or give it up; StorageFullError where there is none to hold.

    A file system that cannot hold room ahead does without.
    """
    file = path.with_name(path.name + ".ballast")
    try:
        if not held:
            file.unlink(missing_ok=True)
        elif not file.exists() or file.stat().st_size != BALLAST_BYTES:
            with file.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, BALLAST_BYTES)
    except OSError as error:
        if held:
            file.unlink(missing_ok=True)
        if error.errno in _FULL:
            raise StorageFullError(f"{path} has no room beside it: the disk is full; make room") from error


@contextmanager
def guarded(path: Path, done: str) -> Iterator[None]:
    """Turn errors of SQLite into a JournalError saying what could not be `done`."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in _NO_SPACE:
            found = f"{path} cannot be {done}: the disk is full ({error}); make room"
            raise StorageFullError(found) from error
        found = f"{path} cannot be {done} ({error}); expected a journal on a writable disk"
        raise JournalError(found) from error


def lock(path: Path) -> IO[str]:
    """Return the held lock file of a database: a second station on a journal would break the numbering.

    Raises
    ------
    JournalError
        If another process holds it, or the folder cannot be written.
    """
    file = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = file.open("a", encoding="utf-8")
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(f"{path} cannot be made: the disk is full ({error}); make room") from error
        found = f"{path} cannot be opened ({error}); expected a folder that can be written"
        raise JournalError(found) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        if error.errno in (errno.EAGAIN, errno.EACCES):
            found = f"{path} is in use by another process; stop it or name another file"
        else:
            found = f"{file} cannot be locked ({error}); keep the journal on a local disk"
        raise JournalError(found) from error
    return held
