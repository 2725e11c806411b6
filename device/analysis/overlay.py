"""A picture of a reading for people: classes by outline color, by the shape of a mark and by a letter."""

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.counting import labels_in_frame
from device.records import CellClass, Outcome, Reading

_LINE = cv2.LINE_AA
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# blue, green, red: Okabe and Ito's palette, told apart by color-blind people
_COLORS: dict[CellClass, tuple[int, int, int]] = {
    CellClass.LIVE: (233, 180, 86),
    CellClass.DEAD: (0, 94, 213),
    CellClass.ROUNDED: (0, 94, 213),
    CellClass.LYSED: (167, 121, 204),
    CellClass.OTHER: (66, 228, 240),
}
_WORDS: dict[CellClass, str] = {kind: f"{kind[0].upper()} {kind}" for kind in CellClass} | {
    CellClass.LYSED: "Y lysed",  # L is taken
}
_BAR_LENGTHS_UM = (10, 20, 50, 100, 200, 500, 1000)
_MARKER_UM = 3.0
_REPORT_PX, _REPORT_BYTES = 640, 60_000
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def draw_overlay(image: NDArray[np.uint8], reading: Reading) -> NDArray[np.uint8]:
    """Return `image` with the outline of each region, a mark for each cell, a legend and a scale bar.

    Live cells have a circle, dead ones a cross, lysed ones a square; regions that are no cells an outline.
    The scale bar stands only where the scale is measured or published.

    Returns
    -------
    (M, N, 3) ndarray of uint8
        Blue, green, red.

    Raises
    ------
    ValueError
        If the (M, N) `image` is not of the size of the reading's frame.
    """
    if image.shape != (reading.height_px, reading.width_px):
        raise ValueError(
            f"image is {image.shape}; expected {(reading.height_px, reading.width_px)}, the reading's frame"
        )
    picture = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    _draw_outlines(picture, reading)
    radius_px = max(3, round(_MARKER_UM / (reading.quality.um_per_px or 1.0)))
    for cell in reading.cells:
        _draw_mark(picture, (round(cell.col), round(cell.row)), cell.cell_class, radius_px)
    _draw_legend(picture, reading)
    um_per_px = reading.quality.um_per_px
    if um_per_px and reading.quality.um_per_px_source in {"measured", "published"}:
        _draw_scale_bar(picture, um_per_px)
    return picture


def overlay_jpeg(image: NDArray[np.uint8], reading: Reading) -> bytes:
    """Return the overlay of a field as a JPEG file for a report: 640 px wide at most, 60 kB at most.

    `image` is (M, N) gray, the reading's frame or its half, quarter or eighth as it was decoded.
    """
    if image.shape != (reading.height_px, reading.width_px):
        image = cv2.resize(image, (reading.width_px, reading.height_px), interpolation=cv2.INTER_LINEAR)
    picture = draw_overlay(image, reading)
    shrink = min(1.0, _REPORT_PX / picture.shape[1])
    picture = np.asarray(cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA))
    encoded = b""
    for quality in range(85, 0, -10):
        encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(encoded) <= _REPORT_BYTES:
            break
    return encoded


def stage_picture(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return what a stage showed to `observe`, (M, N), as a picture to look at.

    uint8 stays, a bool mask is black and white, integer labels become (M, N, 3) BGR, a color a label and 0 or
    less black; of real numbers the lowest is black, the highest white.
    """
    if picture.dtype == np.uint8:
        return picture.astype(np.uint8)
    if np.issubdtype(picture.dtype, np.integer):
        labels = np.maximum(picture.astype(np.int64), 0)
        # hues a golden angle apart: neighbors in number differ in color
        hue = (np.arange(labels.max() + 1) * 0.618 % 1 * 180).astype(np.uint8)
        bright = np.where(np.arange(hue.size) > 0, 255, 0).astype(np.uint8)
        hsv = np.stack([hue, np.full_like(hue, 160), bright], axis=-1)
        palette = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2BGR)
        return np.asarray(palette[0][labels], np.uint8)
    if picture.dtype == np.bool_:
        return np.where(picture, 255, 0).astype(np.uint8)
    real = picture.astype(np.float32)
    low, high = float(real.min()), float(real.max())
    return np.asarray(np.rint((real - low) * (255 / max(high - low, 1e-12))), np.uint8)


def _draw_outlines(picture: NDArray[np.uint8], reading: Reading) -> None:
    labels = labels_in_frame(reading)
    inner = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for step in (1, -1):
            inner |= np.roll(labels, step, axis) != labels
    colors = np.zeros((int(labels.max(initial=0)) + 1, 3), np.uint8)
    colors[1:] = _COLORS[CellClass.OTHER]
    for cell in reading.cells:
        colors[cell.region] = _COLORS[cell.cell_class]
    outline = inner & (labels > 0)
    picture[outline] = colors[labels[outline]]


def _draw_mark(picture: NDArray[np.uint8], place: tuple[int, int], kind: CellClass, radius_px: int) -> None:
    col, row = place
    for color, width in ((_BLACK, 3), (_COLORS[kind], 1)):
        if kind is CellClass.LIVE:
            cv2.circle(picture, place, radius_px, color, width, _LINE)
        elif kind is CellClass.LYSED:
            corners = (col - radius_px, row - radius_px), (col + radius_px, row + radius_px)
            cv2.rectangle(picture, *corners, color, width, _LINE)
        else:
            cv2.drawMarker(picture, place, color, cv2.MARKER_TILTED_CROSS, 2 * radius_px + 1, width, _LINE)


def _draw_legend(picture: NDArray[np.uint8], reading: Reading) -> None:
    counts = {kind: sum(cell.cell_class is kind for cell in reading.cells) for kind in CellClass}
    counts[CellClass.OTHER] = reading.n_other
    lines: list[tuple[str, CellClass | None]] = [
        (f"{_WORDS[kind]}: {number}", kind) for kind, number in counts.items() if number
    ]
    if reading.outcome is Outcome.INVALID:
        lines.append(("INVALID " + " ".join(reading.quality.refused_by), None))
    size = _text_size(picture)
    line_px, pad = round(36 * size), round(10 * size)
    widths = [cv2.getTextSize(text, _FONT, size, 1)[0][0] for text, _ in lines]
    panel = picture[: len(lines) * line_px + 2 * pad, : max(widths, default=0) + line_px + 3 * pad]
    if lines:
        panel[:] = panel // 3
    for number, (text, kind) in enumerate(lines, start=1):
        row = number * line_px
        if kind is not None and kind is not CellClass.OTHER:
            _draw_mark(picture, (pad + line_px // 2, row - line_px // 4), kind, max(3, line_px // 4))
        _write(picture, text, (line_px + 2 * pad, row), _WHITE if kind is None else _COLORS[kind], size)


def _draw_scale_bar(picture: NDArray[np.uint8], um_per_px: float) -> None:
    height, width = picture.shape[:2]
    fitting = [length for length in _BAR_LENGTHS_UM if length / um_per_px <= width / 4]
    if not fitting:
        return
    size = _text_size(picture)
    pad, bar_px = round(16 * size), round(fitting[-1] / um_per_px)
    end = (width - pad, height - pad)
    for color, thickness in ((_BLACK, round(12 * size)), (_WHITE, round(6 * size))):
        cv2.line(picture, (end[0] - bar_px, end[1]), end, color, max(2, thickness))
    _write(picture, f"{fitting[-1]} um", (end[0] - bar_px, end[1] - round(14 * size)), _WHITE, size)


def _text_size(picture: NDArray[np.uint8]) -> float:
    return float(np.clip(min(picture.shape[:2]) / 900, 0.4, 3))


def _write(
    picture: NDArray[np.uint8], text: str, place: tuple[int, int], color: tuple[int, int, int], size: float
) -> None:
    cv2.putText(picture, text, place, _FONT, size, color, max(1, round(2 * size)), _LINE)
