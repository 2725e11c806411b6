import struct
import zlib

import cv2
import numpy as np
import pytest

from device.errors import ImageError
from device.images import list_images, measure_tint, read_gray, read_reduced, write_png

FORMATS = ["png", "tif", "jpg", "bmp"]


@pytest.fixture
def gray():
    smooth = cv2.GaussianBlur(np.random.default_rng(5).normal(0, 1, (90, 130)), (0, 0), 6)
    return cv2.normalize(smooth, None, 10, 240, cv2.NORM_MINMAX).astype(np.uint8)


def save(path, image):
    assert cv2.imwrite(str(path), image)
    return path


def png_header(cols, rows):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", cols, rows, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_reads_as_it_was_written(tmp_path, gray, kind):
    image = read_gray(save(tmp_path / f"a.{kind}", gray))
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - gray).max() <= (4 if kind == "jpg" else 0)
    assert not image.flags.writeable


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95, 0.995])
def test_a_cut_file_is_refused_instead_of_read_as_half_an_image(tmp_path, gray, kind, share):
    path = save(tmp_path / f"a.{kind}", gray)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match=r"cut off|no image|bytes"):
        read_gray(path)


def test_a_png_with_a_wrong_check_sum_is_refused(tmp_path, gray):
    path = save(tmp_path / "a.png", gray)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        read_gray(path)


@pytest.mark.parametrize("size", [(30_000, 30_000), (5_001, 5_000), (0, 10), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(ImageError, match=f"has {size[0]} x {size[1]} pixels; expected"):
        read_gray(path)


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_gray(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_gray(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="has 0 bytes"):
        read_gray(tmp_path / "empty.png")


@pytest.mark.parametrize(
    "data",
    [b"hello world, I am text", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\x00\xff\xff\xff\xff"],
)
def test_what_is_no_image_is_refused(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="expected"):
        read_gray(path)


@pytest.mark.parametrize(
    ("brightest", "shift"), [(255, 0), (1023, 2), (4095, 4), (16383, 6), (65535, 8), (300, 2)]
)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_16_bit_is_scaled_by_its_significant_depth(tmp_path, brightest, shift, kind):
    image = np.linspace(0, brightest, 120).reshape(10, 12).astype(np.uint16)
    assert np.array_equal(read_gray(save(tmp_path / f"a.{kind}", image)), image >> shift)


def test_color_is_read_as_luma(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    image[...] = (10, 100, 200)
    assert read_gray(save(tmp_path / "a.png", image))[0, 0] == round(0.114 * 10 + 0.587 * 100 + 0.299 * 200)
    with_alpha = np.dstack([image, np.full((4, 5), 9, np.uint8)])
    assert read_gray(save(tmp_path / "b.png", with_alpha))[0, 0] == 120


def test_a_one_pixel_image_is_an_image(tmp_path):
    assert read_gray(save(tmp_path / "a.png", np.full((1, 1), 7, np.uint8))).tolist() == [[7]]


def test_float_pixels_are_refused(tmp_path):
    with pytest.raises(ImageError, match="float32; expected 8 or 16 bit"):
        read_gray(save(tmp_path / "a.tif", np.zeros((4, 4), np.float32)))


@pytest.mark.parametrize(
    ("um_per_px", "shrink"),
    [(None, 1), (0.65, 1), (0.4, 1), (0.325, 2), (0.2, 2), (0.1625, 4), (0.08, 8), (0.02, 8)],
)
def test_a_jpeg_is_decoded_no_finer_than_the_working_scale(tmp_path, um_per_px, shrink):
    rows, cols = 601, 803
    smooth = np.add.outer(np.arange(rows) // 8, np.arange(cols) // 8).astype(np.uint8)
    path = save(tmp_path / "a.jpg", cv2.merge([smooth, smooth, smooth]))
    found = read_reduced(path, um_per_px)
    image, full_size = found.image, found.full_size
    assert found.tint == pytest.approx(0, abs=0.02)
    assert image.shape == (-(-rows // shrink), -(-cols // shrink))
    assert full_size == (None if shrink == 1 else (rows, cols))
    # pixel k of the reduced image is the mean of those from k * shrink on
    half = shrink // 2
    assert np.abs(image[5:70, 5:90].astype(int) - smooth[half::shrink, half::shrink][5:70, 5:90]).max() <= 4


def test_other_files_and_small_ones_are_decoded_whole(tmp_path, gray):
    for name in ("a.png", "a.tif", "a.bmp", "a.jpg"):
        found = read_reduced(save(tmp_path / name, gray), 0.1)
        assert (found.image.shape, found.full_size, found.tint) == (gray.shape, None, None)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
@pytest.mark.parametrize(("gains", "tint"), [((1, 1, 1), 0.0), ((0.8, 1, 0.9), 0.2), ((1, 0.3, 0.3), 0.7)])
def test_a_file_tells_how_far_its_color_is_from_gray(tmp_path, name, gains, tint):
    level = np.random.default_rng(1).integers(100, 200, (90, 120, 1))
    path = save(tmp_path / name, np.rint(level * np.array(gains)).astype(np.uint8))
    assert read_reduced(path, 0.65).tint == pytest.approx(tint, abs=0.03)


def test_color_of_nothing_is_unknown():
    assert measure_tint(np.zeros((16, 16, 3), np.uint8)) is None
    assert measure_tint(np.full((16, 16), 9, np.uint8)) is None
    deep = np.full((16, 16, 4), (1000, 4000, 2000, 65535), np.uint16)
    assert measure_tint(deep) == 0.75


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_jpeg_is_refused_at_any_scale(tmp_path, share):
    path = save(tmp_path / "a.jpg", np.random.default_rng(1).integers(0, 256, (600, 800)).astype(np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImageError, match="cut off"):
        read_reduced(path, 0.1)


def test_a_png_is_written_whole_and_leaves_nothing_else(tmp_path, gray):
    labels = gray.astype(np.uint16) * 200
    write_png(tmp_path / "a.png", labels)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), labels)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(ImageError, match="cannot be written"):
        write_png(tmp_path / "none" / "a.png", gray)


def test_a_folder_lists_its_images_by_name(tmp_path):
    for name in ["b.PNG", "a.tif", "c.txt", ".hidden.png"]:
        (tmp_path / name).touch()
    (tmp_path / "d.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.tif", "b.PNG"]
    assert list_images(tmp_path / "c.txt") == [tmp_path / "c.txt"]
    with pytest.raises(ImageError, match="does not exist"):
        list_images(tmp_path / "none")
