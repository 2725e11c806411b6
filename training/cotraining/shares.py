"""Shares of classes among images that nobody labeled, and scores that call as many of each.

Labels drawn in equal numbers say nothing of how many dead cells there are. A learner that was taught by
them calls too many dead in a culture where few are: half of its errors are this alone.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.mixture import GaussianMixture

from device.classifier import softmax

NDFloat = NDArray[np.float64]
Scaling = tuple[NDFloat, float]
"""What is added to logits, so that calls are in the right shares, and what they are divided by then."""
_SHARE_MIN = 1e-3
_BALANCING_STEPS = 200
_SHARPNESS = 0.05
"""Softness of a call while scores are shifted, in standard deviations of the scores."""


def estimate_shares(logits: NDArray[np.floating]) -> NDFloat:
    """Return (K,) shares of classes among images, by a mixture of one Gaussian a class in their scores.

    Parameters
    ----------
    logits : (N, K) ndarray of float
        Of a learner, not calibrated; where all are called alike, those calls are counted.

    Notes
    -----
    The Gaussians have one covariance: with two, that of the smaller class spreads over the other. Expectation
    maximization on probabilities (Saerens et al. 2002) needs them calibrated, which 20 labels cannot do: on
    the training tiles of LDC with 20 single labels its shares of dead were off by .027 to .046 on average,
    these by .019 (12 draws, true share .18).
    """
    called = logits.argmax(axis=1)
    n_classes = logits.shape[1]
    counts = np.bincount(called, minlength=n_classes)
    if counts.min() < 2:
        return _at_least(counts / max(1, len(called)))
    scores = (logits[:, 1:] - logits[:, :1]).astype(np.float64)
    start = np.stack([scores[called == k].mean(axis=0) for k in range(n_classes)])
    mixture = GaussianMixture(n_classes, covariance_type="tied", means_init=start, random_state=0).fit(scores)
    return _at_least(np.bincount(mixture.predict(scores), minlength=n_classes) / len(scores))


def shift_to_shares(logits: NDArray[np.floating], shares: NDFloat) -> NDFloat:
    """Return the (K,) numbers that, added to (N, K) logits, make each class called in its share; mean 0."""
    z = logits.astype(np.float64)
    soft = max(1e-6, _SHARPNESS * float(np.std(z - z.mean(axis=1, keepdims=True))))
    shift = np.zeros(z.shape[1])
    for _ in range(_BALANCING_STEPS):  # Sinkhorn's scaling, with calls nearly hard
        p = softmax(((z + shift) / soft).astype(np.float32), 1.0).astype(np.float64)
        shift += soft * (np.log(shares) - np.log(np.maximum(p.mean(axis=0), 1e-12)))
    return np.asarray(shift - shift.mean(), np.float64)


def scaling_to_shares(logits: NDArray[np.floating], shares: NDFloat) -> Scaling:
    """Return the scaling that gives these logits calls in the right shares and standard deviation 1."""
    spread = float(np.std(logits - logits.mean(axis=1, keepdims=True)))
    return shift_to_shares(logits, shares), max(1e-6, spread)


def scale(logits: NDArray[np.floating], scaling: Scaling) -> NDFloat:
    """Return (N, K) logits under a scaling that these or others gave."""
    shift, spread = scaling
    return np.asarray((logits + shift) / spread, np.float64)


def temperature_of_error(logits: NDArray[np.floating], error: float) -> float:
    """Return the temperature at which (N, K) logits expect to be wrong in this share of cases, 0 to 1.

    Where there are too few labels to calibrate by, two learners that differ on a share d of the images tell:
    were their errors independent, d / 2 of each one's calls were wrong; they are not, and d is taken. Within
    e^-3 to e^3.
    """

    def surplus(log_t: float) -> float:
        p = softmax(np.asarray(logits, np.float32), float(np.exp(log_t)))
        return float(np.mean(1 - p.max(axis=1))) - error

    if surplus(-3) >= 0:
        return float(np.exp(-3))
    return float(np.exp(brentq(surplus, -3, 3, xtol=1e-3))) if surplus(3) > 0 else float(np.exp(3))


def _at_least(shares: NDFloat) -> NDFloat:
    kept = np.maximum(shares, _SHARE_MIN)
    return np.asarray(kept / kept.sum(), np.float64)
