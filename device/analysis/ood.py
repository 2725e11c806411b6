"""Whether crops look like what a model was validated on; what it says of others means nothing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ODD_SHARE = 0.1
"""A field is odd when more of its cells are, 0 to 1."""
EXPECTED_SHARE = 0.02
"""Most odd cells in fields like those of the validation: beyond each of two thresholds lies one in 100."""
SURE = 0.001
"""A field is odd only if chance gives as many odd cells less often than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Familiar:
    """Where the validation crops lie among the features of a model, and how far they reach."""

    means: NDArray[np.float32]
    """(C, D) mean features of each class."""
    whitening: NDArray[np.float32]
    """(D, D) matrix after which features have unit covariance within the classes."""
    energy_max: float
    """Energy above which a crop is odd: no logit stands out."""
    distance_max: float
    """Squared Mahalanobis distance from the nearest class mean above which a crop is odd, > 0."""


def find_odd(
    logits: NDArray[np.float32], features: NDArray[np.float32], temperature: float, familiar: Familiar
) -> NDArray[np.bool_]:
    """Return (K,) whether each crop is odd, from its (K, C) logits and (K, D) features."""
    energy = measure_energy(logits, temperature)
    distance = measure_distance(features, familiar.means, familiar.whitening)
    odd: NDArray[np.bool_] = (energy > familiar.energy_max) | (distance > familiar.distance_max)
    return odd


def measure_energy(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the energy -T log(sum(exp(z / T))) of (K, C) logits: high where no class is likely."""
    scaled = logits / np.float32(temperature)
    top = scaled.max(axis=1, initial=-np.inf)
    total = np.exp(scaled - top[:, None]).sum(axis=1)
    return np.asarray(-temperature * (top + np.log(total)), np.float32)


def measure_distance(
    features: NDArray[np.float32], means: NDArray[np.float32], whitening: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (K,) the squared Mahalanobis distance of (K, D) features from the nearest class mean."""
    # einsum, not @: BLAS would wake a second thread, which then spins through the next stages
    points, centers = (np.einsum("kd,de->ke", rows, whitening) for rows in (features, means))
    squares = np.square(points).sum(axis=1)[:, None] + np.square(centers).sum(axis=1)
    distances = squares - 2 * np.einsum("kd,cd->kc", points, centers)
    return np.asarray(distances.min(axis=1), np.float32)


def is_odd_field(odd: NDArray[np.bool_]) -> bool:
    """Return whether more than a tenth of (K,) cells are odd, and more than chance would give."""
    n, n_odd = odd.size, int(odd.sum())
    if n_odd <= ODD_SHARE * n:
        return False
    term = (1 - EXPECTED_SHARE) ** n
    fewer = 0.0
    for k in range(n_odd):
        fewer += term
        term *= (n - k) / (k + 1) * EXPECTED_SHARE / (1 - EXPECTED_SHARE)
    return 1 - fewer < SURE
