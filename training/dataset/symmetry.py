"""A crop of cells has no upright: it means the same in the eight positions of a square."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)


def symmetries(images: NDArray[_Number]) -> list[NDArray[_Number]]:
    """Return (N, S, S) images turned by 0 to 270 degrees, then mirrored and turned, as views."""
    return [np.rot90(side, turn, (1, 2)) for side in (images, images[:, :, ::-1]) for turn in range(4)]
