"""Binary and gray morphology: equations 4 to 7."""

import cv2
import numpy as np
from numpy.typing import NDArray


def disk(radius_px: float) -> NDArray[np.uint8]:
    """Return the flat footprint S_L: 1 where row^2 + col^2 <= radius^2, at least the center."""
    reach = max(0, int(radius_px))
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    footprint: NDArray[np.uint8] = (rows**2 + cols**2 <= max(radius_px, 0) ** 2).astype(np.uint8)
    return footprint


def dilate(image: NDArray[np.uint8], footprint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the flat dilation: the maximum of I(x - x', y - y') over the footprint (equations 4 and 5).

    Notes
    -----
    The paper calls one image I and A, and equation 5 lost "| (x', y') in D", its overline being the sign of
    membership. Adding (x', y') to a gray level, as printed, has no meaning.
    """
    # cv2 takes the maximum over I(x + x', y + y'): the footprint is turned by half to agree with the equation
    return np.asarray(cv2.dilate(image, footprint[::-1, ::-1].copy()), np.uint8)


def erode(image: NDArray[np.uint8], footprint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the flat erosion: the minimum of I(x + x', y + y') over the footprint, inside the image."""
    return np.asarray(cv2.erode(image, footprint), np.uint8)


def fill_holes(image: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the 8-connected `image` with its holes filled: what no path joins to the border (equation 6).

    H = [R(F)]^c, the complement of the reconstruction of the marker F under the complement of the image: of
    repeating "dilate by a cross, keep inside" until nothing changes, which is a flood from the border.

    Notes
    -----
    Equation 6 is the marker of this operation, not its result: F = 1 - I on the border and 0 elsewhere,
    where the paper prints x. The reconstruction itself is missing there.
    """
    # a frame of background joins all that touches the border
    flooded = cv2.copyMakeBorder(image.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(flooded, None, (0, 0), 2, flags=4)
    filled: NDArray[np.bool_] = flooded[1:-1, 1:-1] != 2
    return filled


def opening(image: NDArray[np.uint8], footprint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the erosion dilated again: what is smaller than the footprint goes (equation 7).

    Notes
    -----
    Equation 7 subtracts the footprint from the image and is titled top-hat, while the text removes noise:
    that is an opening, f o S = dilate(erode(f)). `top_hat` is the other operator.
    """
    return dilate(erode(image, footprint), footprint)


def top_hat(image: NDArray[np.uint8], footprint: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return f - (f o S), the white top-hat of equation 7's title: what the opening takes away.

    It makes sense on gray levels before the gradient, where it takes out the background.
    """
    return np.asarray(cv2.subtract(image, opening(image, footprint)), np.uint8)
