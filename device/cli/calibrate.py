"""`nanotox calibrate`: how large a pixel is, and how even the light, as records that results refer to."""

import argparse
import getpass
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from device.options import Commands, add_config_option, positive_number, positive_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from device.calibration import Kind
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
    from device.analysis.rulings import join_periods, measure_period
    from device.errors import CameraError, ImageError
    from device.station.instruments import load_config

    config, periods, sums = load_config(args.config), [], []
    for name, image, sha256 in _images(args, config):
        try:
            periods.append(measure_period(image, args.pattern))
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from error
        sums.append(sha256)
    if not periods:
        raise CameraError("the camera gave no frame; expected some, see nanotox doctor")
    found = join_periods(periods)
    value = args.period_um / found.period_px
    _keep(
        args,
        config,
        "pixel_size",
        (value, value * found.uncertainty_px / found.period_px),
        f"{args.pattern} {args.period_um:g} um apart, {found.period_px:.3f} px by Fourier phase, "
        f"{found.n_periods:.0f} periods at {found.angle_deg:.1f} degrees",
        sums,
    )
    stated = config.scale.um_per_px
    if abs(stated / value - 1) > 0.01:
        print(f"station.toml says {stated:g}; write um_per_px = {value:.4g}, else the station does not start")
    return 0


def run_flat_field(args: argparse.Namespace) -> int:
    """Measure the evenness of the light and keep it."""
    import numpy as np

    from device.analysis.light import measure_light
    from device.analysis.pyramid import build_pyramid
    from device.calibration import station_scale
    from device.errors import CameraError, ImageError
    from device.station.instruments import load_config

    config, sums = load_config(args.config), []
    images: list[NDArray[np.uint8]] = []
    um_per_px = station_scale(config).um_per_px
    for name, image, sha256 in _images(args, config):
        if images and image.shape != images[0].shape:
            raise ImageError(f"{name} is {image.shape}; expected all of one size, {images[0].shape}")
        images.append(image)
        sums.append(sha256)
    if not images:
        raise CameraError("the camera gave no frame; expected some, see nanotox doctor")
    mean = np.rint(np.mean(images, axis=0)).astype(np.uint8)
    seen = [measure_light(build_pyramid(image, um_per_px)).flatness for image in (mean, *images)]
    if None in seen:
        raise ImageError("the fields are black; expected empty fields with the lamp on")
    value, *each = [float(flatness or 0.0) for flatness in seen]
    spread = float(np.std(each, ddof=1)) / len(each) ** 0.5 if len(each) > 1 else 0.0
    method = f"(p95 - p5) / p50 of the mean of {len(each)} empty fields"
    _keep(args, config, "flat_field", (value, max(spread, 0.5 / max(float(mean.mean()), 1.0))), method, sums)
    return 0


def _images(args: argparse.Namespace, config: "Config") -> "Iterator[tuple[str, NDArray[np.uint8], str]]":
    """Yield name, gray image and SHA-256 of each image that is asked for; ConfigError if none is."""
    from device.cameras import LostFrame, Setup, open_camera
    from device.errors import ConfigError
    from device.images import read_gray
    from device.plates import file_sha256

    if bool(args.images) == (args.camera is not None):
        raise ConfigError("images and --camera exclude each other; expected one of them")
    for path in args.images:
        yield str(path), read_gray(path), file_sha256(path)
    if args.camera is None:
        return
    setup = Setup(None, config.station.assay, config.station.modality)
    camera = open_camera(config.camera.kind, config.camera.settings, setup)
    try:
        for frame in islice(camera.frames(), args.camera):
            if not isinstance(frame, LostFrame):
                yield frame.source, frame.image, hashlib.sha256(frame.image.tobytes()).hexdigest()
    finally:
        camera.close()


def _keep(
    args: argparse.Namespace,
    config: "Config",
    kind: "Kind",
    measured: tuple[float, float],
    method: str,
    sums: list[str],
) -> None:
    from device.calibration import add_calibration, calibration_file

    value, uncertainty = measured
    operator = args.operator or getpass.getuser()
    new = add_calibration(config, kind, value, uncertainty, operator=operator, method=method, images=sums)
    unit = "um/px" if kind == "pixel_size" else "flatness"
    print(f"{new.id}: {value:.5g} {unit}, standard uncertainty {uncertainty:.2g} ({method})")
    print(f"kept in {calibration_file(config)}; the station uses it from its next start on")
