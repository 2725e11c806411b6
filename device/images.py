"""Image files read within limits: headers are checked before decoding, a cut file is never half an image."""

import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from device.errors import ImageError

MAX_PIXELS = 25_000_000
"""Largest image that is decoded; a Pi HQ camera gives 12.3 million."""
MAX_BYTES = 256 * 1024 * 1024
"""Largest file that is read."""
SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"})
"""What `list_images` takes for an image in a folder."""
_DEPTHS_BITS = (8, 10, 12, 14, 16)
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_SIZES = {1: 1, 3: 2, 4: 4}


class _DamagedError(Exception):
    """What is wrong with the bytes of a file; becomes an ImageError with its path."""


def read_gray(path: Path | str, *, depth_bits: int | None = None) -> NDArray[np.uint8]:
    """Return a PNG, TIFF, JPEG or BMP file as one gray image.

    Parameters
    ----------
    path : Path or str
        File of at most 25 million pixels; of several pages the first is read.
    depth_bits : int, optional
        Significant bits of a 16-bit file, 8 to 16. By default the smallest of 8, 10, 12, 14 and 16 that
        holds its brightest pixel.

    Returns
    -------
    (M, N) ndarray of uint8
        Color as luma, 16 bit without its lowest bits, as stored (no EXIF rotation); read-only.

    Raises
    ------
    ImageError
        If the file is missing, no such image, too large, cut off or damaged.
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        gray = _read_whole(data, depth_bits)
    except _DamagedError as fault:
        raise ImageError(f"{path} {fault}") from None
    except (struct.error, IndexError):
        raise ImageError(
            f"{path} is cut off or damaged in its header; expected a whole image, copy it again"
        ) from None
    gray.flags.writeable = False
    return gray


def _read_whole(data: bytes, depth_bits: int | None) -> NDArray[np.uint8]:
    rows, cols = _check_file(data)
    if rows < 1 or cols < 1 or rows * cols > MAX_PIXELS:
        raise _DamagedError(
            f"has {cols} x {rows} pixels; expected 1 to {MAX_PIXELS} in all, crop or reduce it"
        )
    image = _decode(data)
    if image.shape[:2] != (rows, cols):
        raise _DamagedError(f"decodes to shape {image.shape}; expected {rows} rows and {cols} columns")
    return _to_8_bit(_to_luma(image), depth_bits)


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
        return sorted(
            item for item in path.iterdir() if item.suffix.lower() in SUFFIXES and _is_visible_file(item)
        )
    if not path.exists():
        raise ImageError(f"{path} does not exist; expected an image or a folder of images, check the path")
    return [path]


def _is_visible_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


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


def _check_file(data: bytes) -> tuple[int, int]:
    """Return rows and columns after checking that the file is whole, without decoding it."""
    if data.startswith(_PNG):
        return _check_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _check_jpeg(data)
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return _check_tiff(data)
    if data.startswith(b"BM"):
        return _check_bmp(data)
    raise _DamagedError("is no image that is read here; expected PNG, TIFF, JPEG or BMP, convert it")


def _check_png(data: bytes) -> tuple[int, int]:
    cols, rows = struct.unpack_from(">II", data, 16)
    start, kind = len(_PNG), b""
    while kind != b"IEND":
        if start + 12 > len(data):
            raise _DamagedError("is cut off before its end; expected a whole PNG, copy it again")
        (length,) = struct.unpack_from(">I", data, start)
        kind, end = data[start + 4 : start + 8], start + 8 + length
        if end + 4 > len(data):
            raise _DamagedError("is cut off before its end; expected a whole PNG, copy it again")
        # OpenCV returns a partly gray image where a check sum is wrong, without an error
        if zlib.crc32(memoryview(data)[start + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise _DamagedError(f"is damaged (check sum of {kind!r}); expected a whole PNG, copy it again")
        start = end + 4
    return rows, cols


def _check_jpeg(data: bytes) -> tuple[int, int]:
    at, size = 2, (0, 0)
    while True:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        (length,) = struct.unpack_from(">H", data, at + 1)
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            size = struct.unpack_from(">HH", data, at + 4)
        at += 1 + length
        if marker == 0xDA:
            break
    if data.rfind(b"\xff\xd9") < at:
        raise _DamagedError("is cut off before its end; expected a whole JPEG, copy it again")
    return size


def _check_tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (n_entries,) = struct.unpack_from(order + "H", data, directory)
    tags = {}
    for entry in range(directory + 2, directory + 2 + 12 * n_entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
        if tag in {256, 257, 273, 279, 324, 325} and kind in _TIFF_SIZES:
            tags[tag] = _tiff_values(data, order, entry, kind, count)
    if 256 not in tags or 257 not in tags:
        raise _DamagedError("states no size; expected a TIFF with width and height, save it again")
    offsets = tags.get(273) or tags.get(324) or ()
    counts = tags.get(279) or tags.get(325) or (1,) * len(offsets)
    if not offsets or len(counts) != len(offsets):
        raise _DamagedError("names no image data; expected a TIFF with strips or tiles, save it again")
    if max(offset + count for offset, count in zip(offsets, counts, strict=True)) > len(data):
        raise _DamagedError("is cut off before its end; expected a whole TIFF, copy it again")
    return tags[257][0], tags[256][0]


def _tiff_values(data: bytes, order: str, entry: int, kind: int, count: int) -> tuple[int, ...]:
    size = _TIFF_SIZES[kind]
    start = entry + 8
    if size * count > 4:
        (start,) = struct.unpack_from(order + "I", data, start)
    if start + size * count > len(data):
        raise _DamagedError("is cut off before its end; expected a whole TIFF, copy it again")
    return struct.unpack_from(f"{order}{count}{ {1: 'B', 2: 'H', 4: 'I'}[size] }", data, start)


def _check_bmp(data: bytes) -> tuple[int, int]:
    pixels, header, cols, rows = struct.unpack_from("<IIii", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if header < 40 or compression not in {0, 3}:
        raise _DamagedError("is a packed or ancient BMP; expected a plain one, save it again")
    row_bytes = (cols * bits + 31) // 32 * 4
    if pixels + row_bytes * abs(rows) > len(data):
        raise _DamagedError("is cut off before its end; expected a whole BMP, copy it again")
    return abs(rows), cols


def _decode(data: bytes) -> NDArray[np.generic]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise _DamagedError("cannot be decoded; expected a whole PNG, TIFF, JPEG or BMP, save it again")
    if image.dtype not in (np.uint8, np.uint16):
        raise _DamagedError(f"has pixels of {image.dtype}; expected 8 or 16 bit, convert it")
    decoded: NDArray[np.generic] = image
    return decoded


def _to_luma(image: NDArray[np.generic]) -> NDArray[np.generic]:
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels == 1:
        return image.reshape(image.shape[:2])
    if channels not in {3, 4}:
        raise _DamagedError(f"has {channels} channels; expected gray or color, convert it")
    luma: NDArray[np.generic] = cv2.cvtColor(
        image, cv2.COLOR_BGR2GRAY if channels == 3 else cv2.COLOR_BGRA2GRAY
    )
    return luma


def _to_8_bit(image: NDArray[np.generic], depth_bits: int | None) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image, np.uint8)
    brightest = int(image.max())
    if depth_bits is None:
        depth_bits = next(bits for bits in _DEPTHS_BITS if brightest < 2**bits)
    if not 8 <= depth_bits <= 16 or brightest >= 2**depth_bits:
        raise _DamagedError(f"holds {brightest}; expected at most {depth_bits} bits a pixel, state its depth")
    return (image.astype(np.uint16) >> (depth_bits - 8)).astype(np.uint8)
