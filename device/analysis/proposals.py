"""Where a cell could be: many candidates, so that hardly a cell is missed; the model drops the rest."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from device.analysis.pyramid import WORKING_UM_PER_PX
from device.records import Modality

SEPARATION_UM = 4.0
"""Closer candidates are one, um: a third of a dead cell."""
MAX_PROPOSALS = 1500
"""The strongest are kept: a bound on the time of one field."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """Candidate centers, strongest first; arrays are read-only."""

    centers: NDArray[np.float32]
    """(K, 2) rows and columns at working scale."""
    strength: NDArray[np.float32]
    """(K,) how much each looks like a cell, > 0; comparable within one field only."""


def propose(
    relative: NDArray[np.float32],
    modality: Modality,
    *,
    um_per_px: float = WORKING_UM_PER_PX,
    limit: int = MAX_PROPOSALS,
) -> Proposals:
    """Return candidate centers of dead and live cells.

    Parameters
    ----------
    relative : (H, W) ndarray of float32
        Relative contrast from `flatten`; not modified.
    modality : {"phase", "brightfield"}
        How the image was made.
    um_per_px : float
        Scale of `relative`, um/px.
    limit : int
        The most candidates to return, > 0.

    Returns
    -------
    Proposals
        A flat image gives none.
    """
    sigma = 3.0 / um_per_px
    response = np.abs(
        cv2.GaussianBlur(relative, (0, 0), sigma) - cv2.GaussianBlur(relative, (0, 0), 1.6 * sigma)
    )
    return _peaks(np.asarray(response, np.float32), 0.02, SEPARATION_UM / um_per_px, limit)


def _peaks(response: NDArray[np.float32], threshold: float, separation_px: float, limit: int) -> Proposals:
    reach = max(1, round(separation_px))
    footprint = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    highest = response >= cv2.dilate(response, footprint)
    rows, cols = np.nonzero(highest & (response > threshold))
    strength = response[rows, cols]
    order = np.argsort(-strength, kind="stable")[:limit]
    centers = np.stack([rows[order], cols[order]], axis=1).astype(np.float32)
    strength = strength[order].astype(np.float32)
    centers.flags.writeable = False
    strength.flags.writeable = False
    return Proposals(centers, strength)
