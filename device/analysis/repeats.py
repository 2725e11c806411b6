"""Whether a field is the one before it again: counted twice, it would make an interval falsely narrow."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import WORKING_UM_PER_PX, halve
from device.records import Outcome, Reading, Reason

GLIMPSE_PX = 128
"""Side of what is kept of a field to know it again, px of a quarter of the working scale."""
GLIMPSE_UM_PER_PX = 4 * WORKING_UM_PER_PX
ALIKE = 0.8
"""Fields that correlate better once they are aligned show the same cells: rendered ones under fresh noise do
by 0.87 to 1, shifts between the pixels included, different ones by 0.37 at most."""
NEAR = 0.05
"""... unless the stage moved by more than this share of the field."""
STILL_UM = WORKING_UM_PER_PX
"""A repeated field that moved by more was taken while something shook, um."""
_SIGMA_PX = 1.0  # blur before the comparison: noise is not the same in two images of one field
_SPREAD_MIN = 1.0  # gray levels; below it there is nothing to know again


def cut_glimpse(relative: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle of the (H, W) relative gray at a quarter of its scale, at most 128 px a side."""
    small = halve(halve(relative))
    rows, cols = (max(0, side - GLIMPSE_PX) // 2 for side in small.shape)
    glimpse: NDArray[np.uint8] = small[rows : rows + GLIMPSE_PX, cols : cols + GLIMPSE_PX].copy()
    glimpse.flags.writeable = False
    return glimpse


def refuse_repeat(reading: Reading, before: Reading | None, *, live: bool = False) -> Reading:
    """Return the reading, refused as DUPLICATE_FIELD if it shows the field of `before` once more.

    `before` is the last accepted reading. Only fields of one well are compared, and those without a well on a
    `live` camera, which are judged as one. MOTION is added where the field moved in between.
    """
    together = before is not None and before.well == reading.well and (live or reading.well is not None)
    if before is None or not together or not reading.quality.passed:
        return reading
    found = _align(before.glimpse, reading.glimpse)
    field_um = max(reading.height_px, reading.width_px) * (reading.quality.um_per_px or 0.0)
    if found is None or found[0] <= ALIKE or found[1] >= NEAR * field_um:
        return reading
    refused_by = (Reason.DUPLICATE_FIELD,) + (Reason.MOTION,) * (found[1] > STILL_UM)
    return replace(
        reading,
        outcome=Outcome.INVALID,
        reasons=(*refused_by, *reading.reasons),
        quality=replace(reading.quality, passed=False, refused_by=refused_by),
        p_toxic=None,
    )


def _align(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[float, float] | None:
    """Return how two glimpses correlate once aligned, and how far apart they were, um; None if flat."""
    reach = min(after.shape) // 6
    if before.shape != after.shape or reach < 3:
        return None
    first, second = (cv2.GaussianBlur(g.astype(np.float32), (0, 0), _SIGMA_PX) for g in (before, after))
    if min(first.std(), second.std()) < _SPREAD_MIN:
        return None
    middle = first[reach:-reach, reach:-reach]
    alike = cv2.matchTemplate(second, middle, cv2.TM_CCOEFF_NORMED)
    row, col = (int(place) for place in np.unravel_index(alike.argmax(), alike.shape))
    shifts = (_top(alike[:, col], row) - reach, _top(alike[row], col) - reach)
    return float(alike[row, col]), float(np.hypot(*shifts)) * GLIMPSE_UM_PER_PX


def _top(line: NDArray[np.float32], peak: int) -> float:
    """Return where the parabola through the highest value and its neighbors has its top."""
    if not 0 < peak < line.size - 1:
        return float(peak)
    before, middle, after = (float(value) for value in line[peak - 1 : peak + 2])
    return peak + (after - before) / (2 * max(2 * middle - before - after, 1e-9))
