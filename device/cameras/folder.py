"""Camera kind `folder`: image files instead of a microscope, each exactly once, in order."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from device.cameras import LostFrame, Setup
from device.errors import CameraError, ImageError
from device.images import list_images, read_reduced
from device.plates import Plate, find_dataset_info, find_fields
from device.records import Frame, Reason


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[camera]` for kind `folder`."""

    live: ClassVar = False
    path: Path
    """Folder of images, or one image. With a plate its wells name the files, relative to this folder."""
    loop: bool = False
    """Begin again after the last file, for soak tests; sequence numbers run on."""


def open_camera(settings: Settings, setup: Setup) -> "FolderCamera":
    """Return a camera over the files of a folder; a fault of plate or dataset.json is a ConfigError."""
    path = settings.path
    if not path.exists():
        raise CameraError(f"camera.path is {path}, which does not exist; expected a folder of images")
    if setup.wells:
        found = find_fields(Plate(path.name, setup.wells), path)
        shots = [(file, well, number) for well, files in found.items() for number, file in enumerate(files)]
        return FolderCamera(settings, setup, shots)
    try:
        files = list_images(path)
    except ImageError as error:
        raise CameraError(f"camera.path: {error}") from error
    if not files:
        raise CameraError(f"camera.path is {path}, which holds no images; expected PNG, TIFF, JPEG or BMP")
    return FolderCamera(settings, setup, [(file, None, None) for file in files])


class FolderCamera:
    """Files as frames; a damaged file is a LostFrame and the next one follows.

    Rendered images are marked as simulated where dataset.json, beside them or in the folder above, says so.
    """

    live = Settings.live

    def __init__(
        self, settings: Settings, setup: Setup, shots: Sequence[tuple[Path, str | None, int | None]]
    ) -> None:
        self._settings, self._scale, self._shots = settings, setup.scale, shots
        infos = {folder: find_dataset_info(folder) for folder in {file.parent for file, _, _ in shots}}
        self._simulated = {folder for folder, info in infos.items() if info is not None and info.simulated}
        self._closed = False

    def frames(self) -> Iterator[Frame | LostFrame]:
        """Yield one frame, or one LostFrame, for each file."""
        shots = itertools.cycle(self._shots) if self._settings.loop else self._shots
        for sequence, (file, well, number) in enumerate(shots):
            if self._closed:
                return
            yield self._read(file, sequence, well, number)

    def close(self) -> None:
        """End after the present file."""
        self._closed = True

    def _read(self, file: Path, sequence: int, well: str | None, number: int | None) -> Frame | LostFrame:
        now = datetime.now(UTC)
        source = str(file.relative_to(self._settings.path)) if file != self._settings.path else file.name
        place = (well, number, file.parent in self._simulated)
        try:
            um_per_px = None if self._scale is None else self._scale.um_per_px
            found = read_reduced(file, um_per_px)
        except ImageError as error:
            return LostFrame(Reason.UNREADABLE_IMAGE, str(error), now, source, sequence, *place)
        return Frame(found.image, now, source, sequence, self._scale, *place, found.full_size, found.tint)
