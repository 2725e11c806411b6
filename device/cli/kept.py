"""Frames that a station kept, read again as it read them: for `report`, `audit` and `dataset`."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.options import add_config_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from device.records import Reading


def add_frames_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add `--frames` and `--config`, which say where kept frames are and what reads them."""
    parser.add_argument(
        "--frames",
        type=Path,
        required=required,
        metavar="DIR",
        help="folder where the station of --config kept its frames",
    )
    add_config_option(parser)


class KeptFrames:
    """The frames that the station of `--config` kept below `--frames`, and what reads them again.

    Raises
    ------
    ConfigError
        If the folder is missing or the configuration has faults.
    ModelError
        If a model of the station cannot be used.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from device.cameras import is_live
        from device.errors import ConfigError
        from device.station import load_config, open_instruments

        self._folder: Path = args.frames
        if not self._folder.is_dir():
            raise ConfigError(
                f"{self._folder} is no folder; expected the one where the station kept its frames"
            )
        self.config = config = load_config(args.config)
        self.tools = open_instruments(config)
        self.cell_model = self.tools.classify.id
        self.live = is_live(config.camera.settings)
        """Whether fields came by themselves, so that one without a well may be a repeated one."""

    def read(self, values: Mapping[str, Any]) -> "tuple[NDArray[np.uint8], Reading]":
        """Return the kept frame of a reading's payload, and what it gives now.

        ImageError if none was kept, it is not there, its bytes have another SHA-256 than the reading says, or
        the reading is one of another version.
        """
        from device.analysis.assess import assess
        from device.errors import ImageError
        from device.messages.recompute import parse
        from device.records import Frame, Quality, Scale

        (_, image), size = self.find(values), (values["height_px"], values["width_px"])
        try:
            quality = parse(Quality, values["quality"])
        except ValueError as error:
            raise ImageError(f"the record is of another version of nanotox: {error}") from error
        um_per_px, source = quality.um_per_px, quality.um_per_px_source
        frame = Frame(
            image,
            datetime.fromisoformat(values["taken_at"]),
            values["source"],
            values["sequence"],
            None if um_per_px is None or source is None else Scale(um_per_px, source),
            values["well"],
            values["field"],
            values["simulated"],
            None if image.shape == size else size,
            quality.tint,
        )
        tools = self.tools
        reading = assess(frame, tools.classify, tools.settings, classify_field=tools.classify_field)
        plate, sha256, used = (values[name] for name in ("plate", "frame_sha256", "calibrations"))
        return image, replace(reading, plate=plate, frame_sha256=sha256, calibrations=tuple(used))

    def find(self, values: Mapping[str, Any]) -> "tuple[Path, NDArray[np.uint8]]":
        """Return the file of a reading's kept frame, and its pixels.

        ImageError if none was kept, it is not there, or its bytes have another SHA-256 than the reading says.
        """
        from device.errors import ImageError
        from device.images import read_gray
        from device.plates import file_sha256
        from device.station.upkeep import frame_path

        sha256 = values["frame_sha256"]
        if sha256 is None:
            raise ImageError("no frame was kept; expected keep = true in [frames] of station.toml")
        path = frame_path(self._folder, datetime.fromisoformat(values["taken_at"]), sha256)
        image = read_gray(path)
        found = file_sha256(path)
        if found != sha256:
            raise ImageError(f"{path} is altered: its SHA-256 is {found}; expected that of its name")
        return path, image
