"""The chain of the paper's section 4.1, from gray image to counted regions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.paper.gradient import differentiate, magnitude
from device.analysis.paper.morphology import dilate, disk, fill_holes, opening, top_hat
from device.analysis.paper.otsu import otsu_threshold
from device.analysis.paper.watershed import distance_to_background, find_markers, flood

Background = Literal["none", "tophat", "gaussian", "median"]


@dataclass(frozen=True, slots=True)
class PaperSettings:
    """What the paper leaves unstated; each field one line: meaning, unit, range."""

    background: Background = "none"
    """How shading is taken out before the gradient; the paper names a top-hat in another place."""
    background_um: float = 20.0
    """Radius of the background's footprint or window, um, 1 to 200."""
    dilation_um: float = 0.65
    """Radius r_d of the disk that closes outlines, um, 0 to 20."""
    opening_um: float = 2.0
    """Radius of the disk that removes noise, um, 0 to 20."""
    depth_um: float = 0.5
    """The h of the h-maxima that become markers, um, 0 to 20."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        if self.background not in get_args(Background):
            raise ValueError(f"background is {self.background!r}; expected none, tophat, gaussian or median")
        if not 1 <= self.background_um <= 200:
            raise ValueError(f"background_um is {self.background_um}; expected 1 to 200 um")
        for name in ("dilation_um", "opening_um", "depth_um"):
            if not 0 <= getattr(self, name) <= 20:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 20 um")


def segment_as_the_paper(
    image: NDArray[np.uint8],
    um_per_px: float,
    settings: PaperSettings | None = None,
    *,
    observe: Callable[[str, NDArray[np.generic] | None], None] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the regions that the paper's chain counts.

    Parameters
    ----------
    image : (M, N) ndarray of uint8
        Gray image at working scale; not modified.
    um_per_px : float
        Its scale, um/px.
    settings : PaperSettings, optional
        Sizes that the paper leaves unstated.
    observe : callable, optional
        Called with `gradient`, `filled` (figure 2), `opened` (3), `clusters` (4), `segmented` (5), `cells`
        (6) and the picture of each.

    Returns
    -------
    labels : (M, N) ndarray of int32
        Regions from 1, 0 = background. A flat image gives none.
    centers : (K, 2) ndarray of float32
        Centroid rows and columns of region k + 1.

    Notes
    -----
    The paper's order puts Otsu's threshold after a binary chain, where it means nothing. Here it splits the
    gradient magnitude first; dilation, hole filling, opening, distance transform and watershed follow.
    """
    settings = settings or PaperSettings()
    watch = observe or (lambda _stage, _picture: None)
    slopes = magnitude(*differentiate(flatten_gray(image, settings, um_per_px)))
    steepest = float(slopes.max(initial=0))
    gradient = np.rint(slopes * (255 / steepest)).astype(np.uint8) if steepest > 0 else np.zeros_like(image)
    watch("gradient", gradient)
    edges = (gradient > otsu_threshold(gradient)).astype(np.uint8)
    filled = fill_holes(dilate(edges, disk(settings.dilation_um / um_per_px)).astype(bool))
    watch("filled", filled)
    opened = opening(filled.astype(np.uint8), disk(settings.opening_um / um_per_px)).astype(bool)
    watch("opened", opened)
    distance = distance_to_background(opened)
    markers = find_markers(distance, settings.depth_um / um_per_px)
    watch("clusters", find_clusters(opened, markers))
    labels = flood(distance, markers)
    watch("segmented", labels)
    watch("cells", np.where(labels > 0, image, 0).astype(np.uint8))
    return labels, find_centroids(labels)


def flatten_gray(image: NDArray[np.uint8], settings: PaperSettings, um_per_px: float) -> NDArray[np.uint8]:
    """Return `image` without its background, by the operator that the settings name."""
    radius_px = settings.background_um / um_per_px
    if settings.background == "tophat":
        return top_hat(image, disk(radius_px))
    if settings.background == "gaussian":
        background = cv2.GaussianBlur(image, (0, 0), radius_px)
    elif settings.background == "median":
        background = cv2.medianBlur(image, 2 * round(radius_px) + 1)
    else:
        return image
    flat: NDArray[np.uint8] = np.clip(image.astype(np.int16) - background + 128, 0, 255).astype(np.uint8)
    return flat


def find_clusters(mask: NDArray[np.bool_], markers: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the components of `mask` with several markers: what figure 4 counts as one cell."""
    _, components = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    pairs = np.unique(np.stack([components[markers > 0], markers[markers > 0]], axis=1), axis=0)
    n_markers = np.bincount(pairs[:, 0], minlength=int(components.max(initial=0)) + 1)
    clusters: NDArray[np.bool_] = (n_markers > 1)[components] & mask
    return clusters


def find_centroids(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the (K, 2) mean row and column of each region, in the order of their labels."""
    n_regions = int(labels.max(initial=0))
    rows, cols = np.nonzero(labels)
    owner = labels[rows, cols]
    sizes = np.maximum(np.bincount(owner, minlength=n_regions + 1)[1:], 1)
    sums = [np.bincount(owner, place, n_regions + 1)[1:] for place in (rows, cols)]
    centroids: NDArray[np.float32] = (np.stack(sums, axis=1) / sizes[:, None]).astype(np.float32)
    return centroids
