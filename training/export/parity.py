"""The parity gate: what changes when a float network becomes an int8 model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.classifier import softmax
from training.evaluation.binary import balanced_accuracy, expected_calibration_error
from training.evaluation.resampling import group_bootstrap

NEAR_TIE = 0.05
"""Labels may only change where the float probabilities of both labels are this close, each to the other."""
LIMITS: dict[str, float] = {
    "agreement": 0.995,
    "mean_dp": 0.01,
    "p99_dp": 0.05,
    "max_dp": 0.10,
    "balanced_accuracy_drop": 0.005,
    "drop_upper": 0.01,
    "ece_increase": 0.01,
    "share_shift": 0.01,
    "float_gap": 1e-4,
}
"""Agreement at least, all others at most; our own choice."""
N_DRAWS = 500


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
    drop_upper: float
    """Upper end of the one-sided 95 % interval of the drop, crops drawn in pairs."""
    ece_float: float
    ece_int8: float
    share_shift: float
    """Largest change of a class's share of the labels, absolute."""
    float_gap: float = 0.0
    """Largest difference of a logit between keras and the float TFLite file; 0 where there was only one."""

    @property
    def measured(self) -> dict[str, float]:
        """What `LIMITS` are for, by the same names."""
        return {
            "agreement": self.agreement,
            "mean_dp": self.mean_dp,
            "p99_dp": self.p99_dp,
            "max_dp": self.max_dp,
            "balanced_accuracy_drop": self.balanced_accuracy_float - self.balanced_accuracy_int8,
            "drop_upper": self.drop_upper,
            "ece_increase": self.ece_int8 - self.ece_float,
            "share_shift": self.share_shift,
            "float_gap": self.float_gap,
        }

    @property
    def failures(self) -> list[str]:
        """Which limits do not hold, in words; empty when the gate passes."""
        failures = []
        for name, value in self.measured.items():
            least = name == "agreement"
            if (value < LIMITS[name]) if least else (value > LIMITS[name]):
                word = "least" if least else "most"
                failures.append(f"{name} is {value:.4g}, expected at {word} {LIMITS[name]:g}")
        if self.n_far_disagreements:
            failures.append(f"{self.n_far_disagreements} labels changed away from a tie, expected none")
        return failures


def measure_parity(
    float_logits: NDArray[np.float32],
    int8_logits: NDArray[np.float32],
    y: NDArray[np.intp],
    temperature: float,
    float_gap: float = 0.0,
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
    float_gap : float
        Of `float_gap`, where the float network itself is at hand.

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
    dp = probability_changes(before, after)
    # for two classes this is |p - 0.5| < 0.05
    far = (label != changed) & (before[rows, label] - before[rows, changed] >= 2 * NEAR_TIE)

    def drop(index: NDArray[np.intp]) -> float:
        return balanced_accuracy(label[index], y[index]) - balanced_accuracy(changed[index], y[index])

    # the two-sided 90 % interval ends where the one-sided 95 % one does
    names = [str(i) for i in range(len(y))]
    interval = group_bootstrap(names, drop, n_resamples=N_DRAWS, level=0.9)
    n_classes = before.shape[1]
    shares = [np.bincount(labels, minlength=n_classes) / len(y) for labels in (label, changed)]
    return Parity(
        n=len(y),
        agreement=float(np.mean(label == changed)),
        n_far_disagreements=int(far.sum()),
        mean_dp=float(dp.mean()),
        p99_dp=float(np.quantile(dp, 0.99)),
        max_dp=float(dp.max()),
        balanced_accuracy_float=balanced_accuracy(label, y),
        balanced_accuracy_int8=balanced_accuracy(changed, y),
        drop_upper=interval.high if interval else drop(rows),
        ece_float=_calibration_error(before, y),
        ece_int8=_calibration_error(after, y),
        share_shift=float(np.abs(shares[0] - shares[1]).max()),
        float_gap=float_gap,
    )


def whole_fields(
    logits: NDArray[np.float32], y: NDArray[np.intp], whole: NDArray[np.intp] | None
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return logits and classes of whole fields, as a station takes them: the mean over the tiles of each.

    Parameters
    ----------
    logits : (N, K) ndarray of float32
    y : (N,) ndarray of int
        Classes, given back where there are no tiles.
    whole : (N, 2) ndarray of int or None
        Number and class of the field that each is a tile of.
    """
    if whole is None:
        return logits, y
    _, first, place = np.unique(whole[:, 0], return_index=True, return_inverse=True)
    total = np.zeros((len(first), logits.shape[1]))
    np.add.at(total, place, logits)
    return (total / np.bincount(place)[:, None]).astype(np.float32), whole[first, 1]


def probability_changes(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N,) absolute differences of the probability of the label that `before` (N, K) gives."""
    rows, label = np.arange(len(before)), before.argmax(axis=1)
    return np.asarray(np.abs(before[rows, label] - after[rows, label]))


def parity_table(parity: Parity) -> str:
    """Return a line for each limit: what was measured, what is allowed, whether it holds."""
    lines = [f"{'':24}{'measured':>10}{'limit':>11}"]
    for name, value in parity.measured.items():
        sign, kept = (">=", value >= LIMITS[name]) if name == "agreement" else ("<=", value <= LIMITS[name])
        lines.append(f"{name:24}{value:10.4g} {sign} {LIMITS[name]:<7g} {'holds' if kept else 'FAILED'}")
    far = parity.n_far_disagreements
    lines.append(f"{'changed away from a tie':24}{far:10d} <= 0       {'FAILED' if far else 'holds'}")
    return "\n".join(lines)


def draw_changes(path: Path, changes: NDArray[np.float32]) -> None:
    """Write the histogram of `probability_changes` with its two limits as a PNG file; the folder is made."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot(xlabel="|dp|", ylabel="crops", yscale="log", title=f"{len(changes)} crops")
    axes.hist(changes, bins=60, range=(0, max(0.12, float(changes.max()))))
    for name in ("p99_dp", "max_dp"):
        axes.axvline(LIMITS[name], color="gray", linestyle="--", label=f"limit of {name}")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _calibration_error(probabilities: NDArray[np.float32], y: NDArray[np.intp]) -> float:
    """Return the expected calibration error of the top label."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    return expected_calibration_error(confidence.astype(np.float64), right)
