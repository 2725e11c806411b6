"""Scores of cells found, of counts and of probabilities, each with an interval over independent groups.

`detection` matches found to true cells, `counts` compares numbers, `binary` judges probabilities,
`resampling` gives intervals. Results hold None where a figure does not exist (no cell, one class only), never
NaN.
"""

from training.evaluation.binary import (
    BinaryScores,
    binary_scores,
    expected_calibration_error,
    measure,
    rank_auc,
)
from training.evaluation.counts import CountErrors, count_errors
from training.evaluation.detection import (
    DetectionScores,
    Matches,
    detection_scores,
    match_cells,
    match_classes,
    match_gate_um,
    match_regions,
    pool_matches,
)
from training.evaluation.resampling import group_bootstrap, share_wilson

__all__ = [
    "BinaryScores",
    "CountErrors",
    "DetectionScores",
    "Matches",
    "binary_scores",
    "count_errors",
    "detection_scores",
    "expected_calibration_error",
    "group_bootstrap",
    "match_cells",
    "match_classes",
    "match_gate_um",
    "match_regions",
    "measure",
    "pool_matches",
    "rank_auc",
    "share_wilson",
]
