"""The control chart of a station: each watched number over its runs, with the baseline's limits."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.control import WATCHED, Comparison, ControlRun, Learned, limits_of

_PANEL_PX = (260, 460)
_MARGIN_PX = (44, 30, 60, 16)  # top, bottom, left, right
_WHITE, _BLACK, _GRAY, _GREEN, _RED = (255,) * 3, (30,) * 3, (190,) * 3, (115, 158, 0), (0, 94, 213)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_RUNS = 40
"""The newest runs are drawn."""


def draw_control_chart(runs: Sequence[ControlRun], learned: Learned) -> NDArray[np.uint8]:
    """Return the chart of the newest runs as a BGR picture, in their order.

    A run in control is a green disk, one out of control a red cross; dashed lines are the limits.
    """
    compared = [(run.at, run.comparison) for run in runs if run.comparison is not None][-_RUNS:]
    panels = [_draw_panel(name, [found for _, found in compared], learned) for name in WATCHED]
    rows = [np.hstack(panels[start : start + 3]) for start in (0, 3)]
    foot = np.full((30, rows[0].shape[1], 3), 255, np.uint8)
    when = f"{compared[0][0][:10]} to {compared[-1][0][:10]}, " if compared else ""
    text = f"{when}{len(compared)} runs, baseline of {learned.n_fields} fields; for research use only"
    _write(foot, text, (16, 18))
    return np.vstack([*rows, foot])


def _draw_panel(name: str, runs: Sequence[Comparison], learned: Learned) -> NDArray[np.uint8]:
    picture = np.full((*_PANEL_PX, 3), 255, np.uint8)
    spread = learned.spreads[name]
    values = [run.medians[name] for run in runs]
    limits = [limit for limit in limits_of(name, spread) if limit is not None]
    shown = [*values, *limits, spread.median - spread.deviation, spread.median + spread.deviation]
    low, high = min(shown), max(shown)
    top, bottom, left, right = _MARGIN_PX
    height, width = _PANEL_PX[0] - top - bottom, _PANEL_PX[1] - left - right

    def row_of(value: float) -> int:
        return top + round(height * (0.92 - 0.84 * (value - low) / (high - low)))

    cv2.rectangle(picture, (left, top), (left + width, top + height), _GRAY)
    _write(picture, name.replace("_", " "), (left, top - 14), 0.55)
    for value, dashed in [(spread.median, False), *((limit, True) for limit in limits)]:
        row, step = row_of(value), 10 if dashed else width
        for start in range(left, left + width, step):
            cv2.line(picture, (start, row), (min(start + step // (1 + dashed), left + width), row), _BLACK)
        _write(picture, f"{value:.3g}", (6, row + 4))
    places = [
        (left + round(width * (i + 0.5) / max(len(runs), 1)), row_of(value)) for i, value in enumerate(values)
    ]
    cv2.polylines(picture, [np.array(places, np.int32).reshape(-1, 1, 2)], False, _GRAY, 1, cv2.LINE_AA)
    for place, run in zip(places, runs, strict=True):
        if name in run.out:
            cv2.drawMarker(picture, place, _RED, cv2.MARKER_TILTED_CROSS, 13, 3, cv2.LINE_AA)
        else:
            cv2.circle(picture, place, 4, _GREEN, cv2.FILLED, cv2.LINE_AA)
    return picture


def _write(picture: NDArray[np.uint8], text: str, place: tuple[int, int], size: float = 0.4) -> None:
    cv2.putText(picture, text, place, _FONT, size, _BLACK, 1, cv2.LINE_AA)
