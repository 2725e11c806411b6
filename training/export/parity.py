"""The parity gate: what changes when a float network becomes an int8 model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device.classifier import softmax
from training.evaluation import expected_calibration_error

NEAR_TIE = 0.05
"""Labels may only change where the float probabilities of both labels are this close, each to the other."""
LIMITS: dict[str, float] = {
    "agreement": 0.995,
    "mean_dp": 0.01,
    "p99_dp": 0.05,
    "max_dp": 0.10,
    "balanced_accuracy_drop": 0.005,
    "ece_increase": 0.01,
    "share_shift": 0.01,
}
"""Agreement at least, all others at most; our own choice."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Float against int8 on the same crops, both after the same temperature."""

    n: int
    agreement: float
    """Share of equal labels, 0 to 1."""
    n_far_disagreements: int
    """Labels that changed although the float network was not near a tie."""
    mean_dp: float
    """Of the absolute differences of probability of the float network's label."""
    p99_dp: float
    max_dp: float
    balanced_accuracy_float: float
    balanced_accuracy_int8: float
    ece_float: float
    ece_int8: float
    share_shift: float
    """Largest change of a class's share of the labels, absolute."""

    @property
    def failures(self) -> list[str]:
        """Which limits do not hold, in words; empty when the gate passes."""
        measured = {
            "mean_dp": self.mean_dp,
            "p99_dp": self.p99_dp,
            "max_dp": self.max_dp,
            "balanced_accuracy_drop": self.balanced_accuracy_float - self.balanced_accuracy_int8,
            "ece_increase": self.ece_int8 - self.ece_float,
            "share_shift": self.share_shift,
        }
        failures = [
            f"{k} is {v:.4f}, expected at most {LIMITS[k]}" for k, v in measured.items() if v > LIMITS[k]
        ]
        if self.agreement < LIMITS["agreement"]:
            failures.append(f"agreement is {self.agreement:.4f}, expected at least {LIMITS['agreement']}")
        if self.n_far_disagreements:
            failures.append(f"{self.n_far_disagreements} labels changed away from a tie, expected none")
        return failures


def measure_parity(
    float_logits: NDArray[np.float32],
    int8_logits: NDArray[np.float32],
    y: NDArray[np.intp],
    temperature: float,
) -> Parity:
    """Return how far int8 departs from float.

    Parameters
    ----------
    float_logits, int8_logits : (N, K) ndarray of float32
        Of the same crops, N > 0; the int8 ones dequantized.
    y : (N,) ndarray of int
        True classes.
    temperature : float
        Divides both, > 0.

    Raises
    ------
    ValueError
        If there are no crops.
    """
    if len(y) == 0:
        raise ValueError("no crops to measure parity on; expected at least one")
    before, after = softmax(float_logits, temperature), softmax(int8_logits, temperature)
    label, changed = before.argmax(axis=1), after.argmax(axis=1)
    rows = np.arange(len(y))
    dp = np.abs(before[rows, label] - after[rows, label])
    # for two classes this is |p - 0.5| < 0.05
    far = (label != changed) & (before[rows, label] - before[rows, changed] >= 2 * NEAR_TIE)
    n_classes = before.shape[1]
    shares = [np.bincount(labels, minlength=n_classes) / len(y) for labels in (label, changed)]
    return Parity(
        n=len(y),
        agreement=float(np.mean(label == changed)),
        n_far_disagreements=int(far.sum()),
        mean_dp=float(dp.mean()),
        p99_dp=float(np.quantile(dp, 0.99)),
        max_dp=float(dp.max()),
        balanced_accuracy_float=_balanced_accuracy(label, y),
        balanced_accuracy_int8=_balanced_accuracy(changed, y),
        ece_float=_calibration_error(before, y),
        ece_int8=_calibration_error(after, y),
        share_shift=float(np.abs(shares[0] - shares[1]).max()),
    )


def _balanced_accuracy(labels: NDArray[np.intp], y: NDArray[np.intp]) -> float:
    return float(np.mean([np.mean(labels[y == k] == k) for k in np.unique(y)]))


def _calibration_error(probabilities: NDArray[np.float32], y: NDArray[np.intp]) -> float:
    """Return the expected calibration error of the top label."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    return expected_calibration_error(confidence.astype(np.float64), right)
