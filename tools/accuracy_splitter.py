"""The watershed alone, for docs/accuracy.md: nuclei whose foreground and size are given."""

from collections.abc import Mapping

import cv2
import numpy as np
from accuracy_reading import cut, markdown, tell

from device.analysis.paper.watershed import distance_to_background, find_markers, flood
from training.dataset import Dataset
from training.dataset.masks import mask_circles, mask_path, read_mask
from training.evaluation.counts import count_errors
from training.evaluation.detection import detection_scores, match_regions
from training.evaluation.resampling import group_bootstrap
from training.export.acceptance import Figure


def splitter_table(sets: Mapping[str, Dataset], limit: int | None) -> str:
    """Split true foreground of nuclei by the watershed alone, and not at all."""
    rows = []
    for kind in ("dsb2018", "hepg2_huh7"):
        if kind not in sets:
            continue
        tell(f"splitting nuclei of {kind}")
        for how, split in (("watershed", split_nuclei), ("components, not split", split_nothing)):
            scores, groups, numbers = [], [], []
            for entry in cut(sets[kind].entries, limit):
                true = read_mask(mask_path(sets[kind].folder, entry.file))
                matches = match_regions(true, split(true))
                scores.append((matches.tp, matches.fp, matches.fn))
                numbers.append((matches.n_true, matches.n_found))
                groups.append(entry.group)
            counts = np.array(scores)

            def f1(index: np.ndarray, counts: np.ndarray = counts) -> float | None:
                return detection_scores(*map(int, counts[index].sum(axis=0))).f1

            interval = group_bootstrap(groups, f1, n_resamples=500)
            true_n, found_n = np.array(numbers).T
            errors = count_errors(true_n, found_n)
            shown = Figure(f1(np.arange(len(counts))), interval, int(true_n.sum()), "nuclei", 3)
            rows.append(
                [
                    f"`{kind}`",
                    how,
                    len(counts),
                    shown,
                    f"{errors.bias:+.1f}",
                    f"{100 * (errors.mape or 0):.1f} %",
                ]
            )
    return markdown(("set", "how", "images", "F1 at IoU 0.5", "count bias", "count MAPE"), rows)


def split_nuclei(true: np.ndarray) -> np.ndarray:
    """Return the true foreground split by the paper's watershed."""
    diameter = 2 * float(np.median([radius for _, _, radius, _ in mask_circles(true)]))
    distance = distance_to_background(true > 0)
    return flood(distance, find_markers(distance, 0.5 / (13 / diameter)))


def split_nothing(true: np.ndarray) -> np.ndarray:
    """Return the components of the true foreground."""
    return cv2.connectedComponents((true > 0).astype(np.uint8), connectivity=8)[1]
