"""Files that are there whole or not at all, and the words for what cannot be read."""

import csv
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from device.errors import ConfigError


def write_table(path: Path, rows: Iterable[Sequence[object]], *, quoted: bool = False) -> None:
    """Write rows, the header among them, as CSV with every cell `quoted` or only those that need it.

    Raises as `write_whole`.
    """
    write_whole(path, csv_lines(rows, quoted=quoted))


def csv_lines(rows: Iterable[Sequence[object]], *, quoted: bool) -> Iterator[str]:
    """Yield rows as lines of CSV with every cell `quoted` or only those that need it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    for row in rows:
        writer.writerow(row)
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text of `parts`; the file is there whole or not at all. ConfigError if it cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(parts)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); expected a folder with rights and room"
        ) from error


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unreadable(path: Path, error: Exception, missing: str, expected: str) -> ConfigError:
    """Return what to say of a file that is `missing`, or cannot be read and should be as `expected`."""
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"{path} is missing; {missing}")
    return ConfigError(f"{path} cannot be read: {error}; {expected}")


def one_of(literal: object) -> str:
    """Return the values that a Literal allows, in words."""
    return "one of " + ", ".join(get_args(literal))
