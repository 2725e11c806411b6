"""`nanotox calibrate`: how large a pixel is, and how even the light, as records that results refer to."""

import argparse
import getpass
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from device.options import Commands, add_config_option, positive_number, positive_whole

if TYPE_CHECKING:
    from device.calibration import Measurement, Shown
    from device.config import Config


def add_parser(commands: Commands) -> None:
    """Add `nanotox calibrate` to the commands."""
    parser = commands.add_parser(
        "calibrate",
        help="measure pixel size or evenness of light, and keep it with date and operator",
        description="Measure something of the microscope from images or the station's camera and keep it "
        "beside the journal, with id, date, operator, uncertainty and the SHA-256 of the images. The station "
        "reads it at its start and writes the id into its results.",
        epilog="Example: nanotox calibrate pixel-size micrometer.png --period-um 10",
    )
    kinds = parser.add_subparsers(metavar="WHAT", required=True)
    size = kinds.add_parser(
        "pixel-size",
        help="micrometers a pixel, from a stage micrometer",
        description="Measure how many micrometers a pixel shows from a ruling: lines at an even distance, "
        "sharp, straight and all over the image, at any angle. station.toml must say the same within 1 %%.",
        epilog="Example: nanotox calibrate pixel-size --camera --period-um 10 --operator 'A. Curie'",
    )
    size.add_argument(
        "--period-um", type=positive_number, required=True, metavar="P", help="distance of its lines, um"
    )
    size.add_argument("--pattern", choices=("lines", "grid"), default="lines", help="default: lines")
    size.set_defaults(run=run_pixel_size)
    flat = kinds.add_parser(
        "flat-field",
        help="evenness of the light, from empty fields",
        description="Measure how even the light is, from fields without cells: (p95 - p5) / p50 of their "
        "mean. It is kept to be compared; every frame is freed of its own shading anyway.",
        epilog="Example: nanotox calibrate flat-field empty/*.png",
    )
    flat.set_defaults(run=run_flat_field)
    for kind in (size, flat):
        kind.add_argument("images", type=Path, nargs="*", metavar="IMAGE", help="images of it")
        kind.add_argument(
            "--camera",
            type=positive_whole,
            nargs="?",
            const=5,
            metavar="N",
            help="N frames (5) of the station's camera instead; the station must not run meanwhile",
        )
        kind.add_argument("--operator", metavar="NAME", help="who measures; default: the login name")
        add_config_option(kind)


def run_pixel_size(args: argparse.Namespace) -> int:
    """Measure the pixel size and keep it."""
    from device.calibration import measure_pixel_size
    from device.station.instruments import load_config

    config = load_config(args.config)
    found = measure_pixel_size(_images(args, config), args.period_um, args.pattern)
    _keep(args, config, found)
    if abs(config.scale.um_per_px / found.value - 1) > 0.01:
        print(
            f"station.toml says {config.scale.um_per_px:g}; write um_per_px = {found.value:.4g}, "
            "else the station does not start"
        )
    return 0


def run_flat_field(args: argparse.Namespace) -> int:
    """Measure the evenness of the light and keep it."""
    from device.calibration import measure_flat_field, station_scale
    from device.station.instruments import load_config

    config = load_config(args.config)
    _keep(args, config, measure_flat_field(_images(args, config), station_scale(config).um_per_px))
    return 0


def _images(args: argparse.Namespace, config: "Config") -> "Iterator[Shown]":
    """Yield each image that is asked for; ConfigError if none is."""
    from device.calibration import Shown, show_frame
    from device.cameras import LostFrame, Setup, open_camera
    from device.errors import ConfigError
    from device.images import read_gray
    from device.plates import file_sha256

    if bool(args.images) == (args.camera is not None):
        raise ConfigError("images and --camera exclude each other; expected one of them")
    for path in args.images:
        yield Shown(str(path), read_gray(path), file_sha256(path))
    if args.camera is None:
        return
    setup = Setup(None, config.station.assay, config.station.modality)
    camera = open_camera(config.camera.kind, config.camera.settings, setup)
    try:
        for frame in islice(camera.frames(), args.camera):
            if not isinstance(frame, LostFrame):
                yield show_frame(frame)
    finally:
        camera.close()


def _keep(args: argparse.Namespace, config: "Config", found: "Measurement") -> None:
    from device.calibration import add_calibration, calibration_file

    new = add_calibration(config, found, operator=args.operator or getpass.getuser())
    unit = "um/px" if new.kind == "pixel_size" else "flatness"
    print(f"{new.id}: {new.value:.5g} {unit}, standard uncertainty {new.uncertainty:.2g} ({new.method})")
    print(f"kept in {calibration_file(config)}; the station uses it from its next start on")
