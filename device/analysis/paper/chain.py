"""The chain of the paper's section 4.1, from gray image to counted regions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.paper.clusters import find_centroids, find_clusters, split_clusters
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
    exact: bool = False,
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
    exact : bool
        Find distances, markers and watershed over the whole image instead of only in components that may
        hold several cells: the slow reference.
    observe : callable, optional
        Called with `gradient`, `filled` (figure 2), `opened` (3), `clusters` (4), `segmented` (5), `cells`
        (6) and the picture of each; those of the clusters and the cells are made for it alone.

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
    gradient = np.asarray(cv2.convertScaleAbs(slopes, alpha=255 / steepest if steepest > 0 else 0), np.uint8)
    watch("gradient", gradient)
    _, edges = cv2.threshold(gradient, otsu_threshold(gradient), 1, cv2.THRESH_BINARY)
    filled = fill_holes(dilate(edges, disk(settings.dilation_um / um_per_px)).view(bool))
    watch("filled", filled)
    opened = opening(filled.view(np.uint8), disk(settings.opening_um / um_per_px)).view(bool)
    watch("opened", opened)
    depth_px = settings.depth_um / um_per_px
    if exact:
        distance = distance_to_background(opened)
        labels = flood(distance, find_markers(distance, depth_px))
        centers = find_centroids(labels)
    else:
        labels, centers = split_clusters(opened, depth_px)
    if observe is not None:
        observe("clusters", find_clusters(opened, labels))
        observe("segmented", labels)
        observe("cells", np.where(labels > 0, image, 0).astype(np.uint8))
    return labels, centers


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
