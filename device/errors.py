"""Errors that the edges of the station raise for a person to read.

    StationError
    ├── ConfigError       station.toml, plate.csv, dataset.json or a command line says what cannot be
    ├── ImageError        a file is missing, damaged, too large or no image
    ├── CameraError       a camera could not be opened, hangs, or was lost
    ├── ModelError        a model bundle is missing, damaged, untested here or does not fit the station
    ├── JournalError      the journal cannot be opened or written
    └── PublishError      the broker refuses what it can never accept

Each message says what was found, what was expected, and what to do. The command line prints it in one
line and exits with 2 (`ConfigError`, `ModelError`) or 1 (the others); nobody sees a traceback for a
mistake of their own.
"""


class StationError(Exception):
    """Something outside the program is not as it has to be."""

    def in_one_line(self) -> str:
        """Return all that it says in one line, as a command prints it."""
        return "; ".join(line.strip() for line in str(self).splitlines() if line.strip())


class ConfigError(StationError):
    """A configuration, plate or dataset file, or the command line, states what cannot be: all `faults`."""

    def __init__(self, faults: str | list[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class ImageError(StationError):
    """A file cannot be read as one gray image within the limits."""


class CameraError(StationError):
    """A camera cannot be opened, delivers nothing in time, or is gone."""


class ModelError(StationError):
    """A model bundle is missing, damaged, answers otherwise than where it was made, or does not fit."""


class JournalError(StationError):
    """The journal cannot be opened, written or trusted."""


class PublishError(StationError):
    """The broker refuses for good: a wrong password, a forbidden topic, a message it will never take."""
