"""Healthy fields spoiled past use for tools/check-verdicts: no well of them may be non_toxic."""

import argparse
from collections.abc import Iterable
from itertools import count, islice

import cv2
import numpy as np
from accuracy_reading import markdown, tell
from verdict_plates import (
    FIELDS,
    HEALTHY,
    OUTCOMES,
    RENDERED,
    Image,
    Judged,
    controls,
    judge,
    outcomes,
    reasons,
    share,
)

from device.analysis.phantom import Culture, Phantom, render_field, render_plate, render_well
from device.records import PlateWell

SEVERITIES = {
    "blur": (4.0, 6.0),  # sigma, px
    "black": (0.05, 0.0),  # gain
    "saturated": (3.0, 6.0),  # gain
    "noise": (40.0, 60.0),  # sigma, gray levels
    "tint": (0.3, 0.1),  # share left of one or two of the three colors
    "bubble": (0.25, 0.45),  # least share of the field under bubbles of 110 um
}
"""How bad each kind is at severity 4 and 5."""
WELLS = 96
"""Wells of spoiled fields on a plate, beside three controls."""


def spoil(kind: str, image: Image, badness: float, rng: np.random.Generator) -> Image:
    """Return an image spoiled; bubbles are in the dish already. A tinted one is (M, N, 3), BGR."""
    if kind == "blur":
        return np.asarray(cv2.GaussianBlur(image, (0, 0), badness))
    values = image.astype(float)
    if kind in ("black", "saturated"):
        values = values * badness
    elif kind == "noise":
        values = values + rng.normal(0, badness, image.shape)
    elif kind == "tint":
        values = values[..., None] * np.where(np.isin(range(3), rng.integers(3, size=2)), 1.0, badness)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def render_bubbles(n: int, least: float, seed: int) -> list[Image]:
    """Return `n` healthy fields of which bubbles cover at least a share."""
    culture = Culture(bubbles=4, bubble_radius_um=110.0)
    options = {"modality": "phase", "dead_fraction": HEALTHY, "culture": culture}
    shots = (render_field(seed=1000 * seed + i, **options) for i in count())
    return [phantom.image for phantom in islice((p for p in shots if _covered(p) >= least), n)]


def _covered(phantom: Phantom) -> float:
    rows, cols = np.indices(phantom.image.shape)
    bubbles = [thing for thing in phantom.objects if thing.kind == "bubble"]
    px = 1 / RENDERED.scale.um_per_px
    return float(
        np.any([np.hypot(rows - b.row, cols - b.col) < b.radius_um * px for b in bubbles], axis=0).mean()
    )


def check_corrupted(args: argparse.Namespace) -> bool:
    """Judge wells of ten spoiled fields beside valid controls; return whether none is non_toxic."""
    n_pool = max(FIELDS, min(40, args.n // 12))
    tell(f"rendering {3 * n_pool} fields")
    good = [p.image for p in render_well(HEALTHY, seed=args.seed, fields=n_pool, modality="phase")]
    pools = {least: render_bubbles(n_pool, least, args.seed) for least in SEVERITIES["bubble"]}
    kinds = {f"{kind} {4 + i}": (kind, x) for kind, both in SEVERITIES.items() for i, x in enumerate(both)}
    tests = [
        PlateWell(f"{name.replace(' ', '')}-{i}", name, "test", None, None, i, dead_fraction=HEALTHY)
        for i in range(1, -(-args.n // (FIELDS * len(kinds))) + 1)
        for name in kinds
    ]

    def images_of(well: PlateWell) -> Iterable[Image]:
        if well.role != "test":
            yield from (p.image for _, _, p in render_plate([well], seed=args.seed, modality="phase"))
            return
        kind, badness = kinds[well.sample]
        rng = np.random.default_rng([args.seed, *well.well.encode()])
        pool = pools[badness] if kind == "bubble" else good
        for index in rng.choice(len(pool), FIELDS, replace=False):
            turned = pool[index][:: rng.choice((1, -1)), :: rng.choice((1, -1))]
            yield spoil(kind, np.ascontiguousarray(turned), badness, rng)

    judged: Judged = []
    for start in range(0, len(tests), WELLS):
        judged += judge(controls(1) + tests[start : start + WELLS], images_of, RENDERED, args.jobs)[0]
        tell(f"{len(judged)} of {len(tests)} wells judged")
    rows = []
    for name in kinds:
        here = [item for item in judged if item["sample"] == name]
        refused = sum(item["n_fields_refused"] for item in here)
        rows.append([name, share(refused, FIELDS * len(here)), *outcomes(here), reasons(here)])
    print(markdown(("kind, severity", "fields refused", *OUTCOMES, "reasons of wells"), rows))
    harmful = [item for item in judged if item["outcome"] == "non_toxic"]
    print(f"- wells of spoiled fields that are non_toxic: {share(len(harmful), len(judged))}; goal 0")
    return not harmful
