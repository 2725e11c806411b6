"""Image files read within limits: headers are checked before decoding, a cut file is never half an image."""

import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import WORKING_UM_PER_PX
from device.errors import ImageError

MAX_PIXELS = 25_000_000
"""Largest image that is decoded; a Pi HQ camera gives 12.3 million."""
MAX_BYTES = 256 * 1024 * 1024
"""Largest file that is read."""
SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"})
"""What `list_images` takes for an image in a folder."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JPEG_READS = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_REDUCED_MIN_PX = 64  # of the shorter side, after the reduction


def read_gray(path: Path | str) -> NDArray[np.uint8]:
    """Return a PNG, TIFF, JPEG or BMP file as one gray image, (M, N) and read-only.

    Color becomes luma. 16 bit are scaled by their significant bits: the smallest of 8, 10, 12, 14 and 16 that
    hold the brightest pixel. Pixels are as stored (no EXIF rotation), of several pages the first.

    Raises
    ------
    ImageError
        If the file is missing, no such image, over 25 million pixels, cut off or damaged.
    """
    return read_reduced(path, None).image


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A file as analysis needs it; the names are those of `Frame`."""

    image: NDArray[np.uint8]
    """(M, N) gray, read-only."""
    full_size: tuple[int, int] | None
    """Rows and columns of the file where `image` is less, else None."""
    tint: float | None
    """How far its color is from gray, as `measure_tint` gives it; None for a gray file."""


def read_reduced(path: Path | str, um_per_px: float | None) -> Decoded:
    """Return `read_gray` of a file, but no finer than analysis needs.

    A JPEG of `um_per_px` is decoded at the half, quarter or eighth that is still no coarser than the working
    scale: 12 megapixels in 30-35 ms instead of 55 (gray) or 90 (color). Other files, and any file where None
    asks for all of it, are read whole. Raises as `read_gray`.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        size = _checked_size(data)
        shrink = _find_shrink(data, size, um_per_px)
        decoded = _decode(data, size, shrink)
        gray = _to_8_bit(_to_luma(decoded))
        colors = _decode_colors(data) if data.startswith(_JPEG) else decoded
    except ImageError as fault:
        raise ImageError(f"{path} {fault}") from None
    except (struct.error, IndexError):
        raise ImageError(
            f"{path} is cut off or damaged in its header; expected a whole image, copy it again"
        ) from None
    gray.flags.writeable = False
    return Decoded(gray, None if shrink == 1 else size, measure_tint(colors))


def measure_tint(image: NDArray[np.generic]) -> float | None:
    """Return how far the color of an image is from gray: 0 is gray, 1 lacks one of the three colors.

    1 less the median of the weakest channel over that of the strongest, from every eighth pixel of (M, N, 3
    or 4) with blue, green and red first. None for (M, N) and for black.
    """
    if image.ndim < 3 or image.shape[2] < 3:
        return None
    medians = np.median(image[::8, ::8, :3].astype(np.float32), axis=(0, 1))
    return float(1 - medians.min() / medians.max()) if medians.max() > 0 else None


def write_png(path: Path | str, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write `image` ((M, N) gray or label, or (M, N, 3) BGR) as PNG; the file is there whole or not at all.

    Raises
    ------
    ImageError
        If it cannot be written.
    """
    path = Path(path)
    done, encoded = cv2.imencode(".png", image)
    if not done:
        raise ImageError(
            f"{path} cannot be encoded from {image.dtype} of shape {image.shape}; expected gray or BGR"
        )
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
            file.write(encoded.tobytes())
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be written ({error.strerror}); expected a folder with space and rights"
        ) from error


def list_images(path: Path | str) -> list[Path]:
    """Return the images of a folder by name, not those of its subfolders; or the one file that `path` names.

    Raises
    ------
    ImageError
        If `path` does not exist. A folder without images gives an empty list.
    """
    path = Path(path)
    if path.is_dir():
        found = (item for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
        return sorted(item for item in found if item.is_file() and not item.name.startswith("."))
    if not path.exists():
        raise ImageError(f"{path} does not exist; expected an image or a folder of images, check the path")
    return [path]


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        found = (
            "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
        )
        raise ImageError(f"{path} {found}; expected a PNG, TIFF, JPEG or BMP file, check the path")
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise ImageError(
                f"{path} has {size} bytes; expected 1 to {MAX_BYTES}, give a whole and smaller image"
            )
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read ({error.strerror}); expected a readable file, check its rights"
        ) from error


def _checked_size(data: bytes) -> tuple[int, int]:
    rows, cols = _size(data)
    if rows < 1 or cols < 1 or rows * cols > MAX_PIXELS:
        raise ImageError(f"has {cols} x {rows} pixels; expected 1 to {MAX_PIXELS} in all, crop or reduce it")
    return rows, cols


def _find_shrink(data: bytes, size: tuple[int, int], um_per_px: float | None) -> int:
    if um_per_px is None or not data.startswith(_JPEG):
        return 1
    largest = min(WORKING_UM_PER_PX / um_per_px, min(size) / _REDUCED_MIN_PX)
    return max((shrink for shrink in _JPEG_READS if shrink <= largest), default=1)


def _decode(data: bytes, size: tuple[int, int], shrink: int) -> NDArray[np.generic]:
    rows, cols = (-(-side // shrink) for side in size)
    how = cv2.IMREAD_UNCHANGED
    if data.startswith(_JPEG):  # its luma is stored as such: color need not be made to be taken out again
        how = _JPEG_READS[shrink] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image: NDArray[np.generic] | None = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(
            "is cut off, damaged or cannot be decoded; expected a whole PNG, TIFF, JPEG or BMP, copy it again"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"has pixels of {image.dtype}; expected 8 or 16 bit, convert it")
    if image.shape[:2] != (rows, cols):
        raise ImageError(f"decodes to shape {image.shape}; expected {rows} rows and {cols} columns")
    return image


def _decode_colors(data: bytes) -> NDArray[np.generic]:
    """Return an eighth of a JPEG that can be decoded, in color if it has any."""
    how = cv2.IMREAD_REDUCED_COLOR_8 if _jpeg_channels(data) > 1 else cv2.IMREAD_REDUCED_GRAYSCALE_8
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION))


def _size(data: bytes) -> tuple[int, int]:
    """Return rows and columns by the header, so that a bomb is refused before it is decoded."""
    if data.startswith(_PNG):
        return _png_size(data)
    if data.startswith(_JPEG):
        return _jpeg_size(data)
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return _tiff_size(data)
    if data.startswith(b"BM"):
        return _bmp_size(data)
    raise ImageError("is no image that is read here; expected PNG, TIFF, JPEG or BMP, convert it")


def _png_size(data: bytes) -> tuple[int, int]:
    """Check all check sums too: OpenCV returns a partly gray image where one is wrong, without an error."""
    cols, rows = struct.unpack_from(">II", data, 16)
    start, kind = len(_PNG), b""
    while kind != b"IEND":
        length = struct.unpack_from(">I", data, start)[0] if start + 12 <= len(data) else 0
        kind, end = data[start + 4 : start + 8], start + 8 + length
        if end + 4 > len(data):
            raise ImageError("is cut off before its end; expected a whole PNG, copy it again")
        if zlib.crc32(memoryview(data)[start + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ImageError(f"is damaged (check sum of {kind!r}); expected a whole PNG, copy it again")
        start = end + 4
    return rows, cols


def _jpeg_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">HH", data, _jpeg_frame(data) + 4)


def _jpeg_channels(data: bytes) -> int:
    return data[_jpeg_frame(data) + 8]


def _jpeg_frame(data: bytes) -> int:
    """Return where the marker of the frame header stands."""
    at = 2
    while True:
        while data[at] == 0xFF:
            at += 1
        if 0xC0 <= data[at] <= 0xCF and data[at] not in {0xC4, 0xC8, 0xCC}:
            return at
        at += 1 + struct.unpack_from(">H", data, at + 1)[0]


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (n_entries,) = struct.unpack_from(order + "H", data, directory)
    sides = {256: 0, 257: 0}
    for entry in range(directory + 2, directory + 2 + 12 * n_entries, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in sides:
            (sides[tag],) = struct.unpack_from(order + ("I" if kind == 4 else "H"), data, entry + 8)
    return sides[257], sides[256]


def _bmp_size(data: bytes) -> tuple[int, int]:
    header, cols, rows = struct.unpack_from("<Iii", data, 14)
    (compression,) = struct.unpack_from("<I", data, 30)
    if header < 40 or compression not in {0, 3}:
        raise ImageError("is a packed or ancient BMP; expected a plain one, save it again")
    return abs(rows), cols


def _to_luma(image: NDArray[np.generic]) -> NDArray[np.generic]:
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 1:
        return image.reshape(image.shape[:2])
    if channels not in {3, 4}:
        raise ImageError(f"has {channels} channels; expected gray or color, convert it")
    luma: NDArray[np.generic] = cv2.cvtColor(
        image, cv2.COLOR_BGR2GRAY if channels == 3 else cv2.COLOR_BGRA2GRAY
    )
    return luma


def _to_8_bit(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image, np.uint8)
    depth_bits = next(bits for bits in (8, 10, 12, 14, 16) if image.max() < 2**bits)
    return (image.astype(np.uint16) >> (depth_bits - 8)).astype(np.uint8)
