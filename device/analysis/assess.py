"""From one frame to one reading: the only implementation, of the station, of files and of every test."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from device.analysis.counting import Count, accept_cells, count_cells, judge_cells, tally_cells
from device.analysis.crops import cut_crops
from device.analysis.flatten import flatten
from device.analysis.judgment import CellClassifier, FieldClassifier, check_model, judge_crops
from device.analysis.ood import is_odd_field
from device.analysis.paper.chain import segment_as_the_paper
from device.analysis.proposals import propose
from device.analysis.pyramid import WORKING_UM_PER_PX, Pyramid, build_pyramid, halve
from device.analysis.quality import QualityLimits, is_usable_scale, measure_quality, unreadable_quality
from device.analysis.repeats import cut_glimpse
from device.analysis.segmentation import Regions, find_foreground, grow_regions
from device.records import (
    NO_LABELS,
    Assay,
    CellClass,
    Frame,
    Method,
    Modality,
    Outcome,
    Quality,
    Reading,
    Reason,
    Scale,
)

Observe = Callable[[str, NDArray[np.generic] | None], None]
"""Called after each stage with its name and its picture: gray, bool, relative contrast or labels."""

REACH_UM: dict[Assay, float] = {"adherent": 32.0, "suspension": 14.0}
"""No region reaches farther from its center, um: half a spread cell, a swollen cell in a chamber."""
MERGE_LIVE_UM: dict[Assay, float] = {"adherent": 13.0, "suspension": 0.0}
"""Living cells closer than this are one, um: spread cells are wide, and their flanks look like cells."""
_AS_PRINTED = (CellClass.DEAD,)  # the paper as printed: whatever is counted is a dead cell
_NOTHING = Count((), 0, NO_LABELS, 1.0, tally_cells((), None, 0.0))


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """How a field is read; each field one line: meaning, unit, range."""

    assay: Assay
    """`adherent` or `suspension`."""
    modality: Modality
    """`phase` or `brightfield`."""
    method: Method = "hybrid"
    """`hybrid` (candidates, cell model, regions) or `paper` (the paper's chain)."""
    limits: QualityLimits = field(default_factory=QualityLimits)
    """Of the quality gate."""
    accept_min: float = 0.5
    """A candidate is a cell when 1 - p(other) reaches it, 0 to 1."""
    dead_min: float = 0.5
    """A cell is dead when p(dead | cell) reaches it, 0 to 1."""
    merge_um: float = 8.0
    """Of accepted centers that are closer the one with the best score stays, um, 0 to 50."""
    exact: bool = False
    """True for the reference without shortcuts of speed; method `paper` then works at full resolution."""

    def __post_init__(self) -> None:
        """Refuse what cannot be; all faults at once."""
        words = {"assay": get_args(Assay), "modality": get_args(Modality), "method": get_args(Method)}
        limits = {"accept_min": 1, "dead_min": 1, "merge_um": 50}
        faults = [
            f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}"
            for name, allowed in words.items()
            if getattr(self, name) not in allowed
        ]
        faults += [
            f"{name} is {getattr(self, name)}; expected 0 to {high}"
            for name, high in limits.items()
            if not 0 <= getattr(self, name) <= high
        ]
        if faults:
            raise ValueError("\n".join(faults))


def assess(
    frame: Frame,
    classify: CellClassifier | None,
    settings: AnalysisSettings,
    *,
    classify_field: FieldClassifier | None = None,
    observe: Observe | None = None,
) -> Reading:
    """Return what one frame gives.

    Parameters
    ----------
    frame : Frame
        Without a usable scale it gives an `invalid` reading without cells; not modified.
    classify : CellClassifier or None
        The cell model. None is the paper as printed and needs method `paper`: every region counts as dead.
    settings : AnalysisSettings
    classify_field : FieldClassifier, optional
        Second opinion on fields that pass the quality gate.
    observe : callable, optional
        It may measure the time between stages.

    Returns
    -------
    Reading
        `invalid` with reasons for a refused field, which still has its cells; else `inconclusive`, because
        one field decides nothing. An image that cannot be an image gives UNREADABLE_IMAGE and no exception.

    Raises
    ------
    ValueError
        If the model does not fit the method or does not keep its word on shapes.
    """
    check_model(classify, settings.method)
    watch: Observe = observe or (lambda _stage, _picture: None)
    image = frame.image
    if image.ndim != 2 or image.dtype != np.uint8 or image.size == 0:
        return refuse(frame, Reason.UNREADABLE_IMAGE, classify, settings)
    scale = frame.scale
    if scale is None or not is_usable_scale(scale):
        pyramid = build_pyramid(image, WORKING_UM_PER_PX)
        quality = measure_quality(pyramid, scale, settings.limits, tint=frame.tint)
        return _to_reading(frame, quality, _NOTHING, classify, settings)
    pyramid = build_pyramid(image, scale.um_per_px, shrink=frame.shrink, exact=settings.exact)
    watch("pyramid", pyramid.working)
    relative = flatten(pyramid)
    watch("flatten", relative)
    quality = measure_quality(pyramid, scale, settings.limits, relative=relative, tint=frame.tint)
    watch("quality", None)
    counted_in = pyramid
    if settings.method == "paper" or classify is None:  # check_model lets None pass for the paper only
        if settings.exact:
            um_per_px = scale.um_per_px * frame.shrink
            counted_in = replace(pyramid, working=image, um_per_px=um_per_px, zoom=float(frame.shrink))
        count, odd = _count_as_the_paper(counted_in, pyramid, relative, scale, classify, settings, observe)
    else:
        count, odd = _count_hybrid(pyramid, relative, scale, classify, settings, watch)
    if count.tally.n_cells < settings.limits.cells_min:
        quality = replace(quality, flags=(*quality.flags, Reason.TOO_FEW_CELLS))
    if odd is not None and odd.size:
        flags = (*quality.flags, Reason.OOD_CELLS) if is_odd_field(odd) else quality.flags
        quality = replace(quality, flags=flags, odd_cells=float(odd.mean()))
    p_toxic = None
    if classify_field is not None and quality.passed:
        p_toxic = classify_field(relative)
        watch("field", None)
    field_model = None if classify_field is None else classify_field.id
    reading = _to_reading(frame, quality, count, classify, settings)
    return replace(reading, p_toxic=p_toxic, field_model=field_model, glimpse=cut_glimpse(relative))


def refuse(
    frame: Frame, reason: Reason, classify: CellClassifier | None, settings: AnalysisSettings
) -> Reading:
    """Return the `invalid` reading of a field that cannot be read because of `reason`: nothing is counted."""
    return _to_reading(frame, unreadable_quality(frame.scale, reason), _NOTHING, classify, settings)


def _count_hybrid(
    pyramid: Pyramid,
    relative: NDArray[np.uint8],
    scale: Scale,
    classify: CellClassifier,
    settings: AnalysisSettings,
    watch: Observe,
) -> tuple[Count, NDArray[np.bool_] | None]:
    coarse, coarse_um = halve(relative), 2 * pyramid.um_per_px
    foreground = find_foreground(coarse, coarse_um, assay=settings.assay, modality=settings.modality)
    watch("foreground", foreground)
    centers = propose(
        coarse, foreground, assay=settings.assay, modality=settings.modality, um_per_px=coarse_um
    )
    watch("proposals", None)
    crops = cut_crops(relative, centers)
    watch("crops", None)
    judgment = judge_crops(classify, crops)
    watch("classify", None)
    judged, rejected = accept_cells(
        centers,
        judgment.probabilities,
        classify.classes,
        accept_min=settings.accept_min,
        dead_min=settings.dead_min,
        merge_px=settings.merge_um / pyramid.um_per_px,
        merge_live_px=MERGE_LIVE_UM[settings.assay] / pyramid.um_per_px,
    )
    seeds, others = (0.5 * centers - np.float32(0.25) for centers in (judged.centers, rejected))
    reach_um = REACH_UM[settings.assay]
    regions = grow_regions(foreground, seeds, others, um_per_px=coarse_um, reach_um=reach_um)
    judged = replace(judged, in_layer=settings.assay == "adherent")
    count = count_cells(judged, regions, pyramid, scale)
    watch("regions", count.labels)
    return count, None if judgment.odd is None else judgment.odd[judged.candidates]


def _count_as_the_paper(
    counted_in: Pyramid,
    pyramid: Pyramid,
    relative: NDArray[np.uint8],
    scale: Scale,
    classify: CellClassifier | None,
    settings: AnalysisSettings,
    observe: Observe | None,
) -> tuple[Count, NDArray[np.bool_] | None]:
    labels, centers = segment_as_the_paper(
        counted_in.working, counted_in.um_per_px, exact=settings.exact, observe=observe
    )
    odd = None
    if classify is None:
        ones = np.ones((len(centers), 1), np.float32)
        judged = judge_cells(centers, ones, _AS_PRINTED, dead_min=0)
    else:
        places = centers if counted_in is pyramid else pyramid.from_frame(counted_in.to_frame(centers))
        judgment = judge_crops(classify, cut_crops(relative, places))
        judged = judge_cells(centers, judgment.probabilities, classify.classes, dead_min=settings.dead_min)
        odd = judgment.odd
        if observe is not None:
            observe("classify", None)
    areas = np.bincount(labels.ravel(), minlength=len(centers) + 1)[1:]
    anchors = np.rint(centers).astype(np.intp)
    found = Regions(labels.astype(np.uint16), counted_in.um_per_px, 0, areas, centers, anchors)
    return count_cells(judged, found, counted_in, scale), odd


def _to_reading(
    frame: Frame,
    quality: Quality,
    count: Count,
    classify: CellClassifier | None,
    settings: AnalysisSettings,
) -> Reading:
    tally, n_dead = count.tally, sum(cell.label == "dead" for cell in count.cells)
    height_px, width_px = frame.size
    return Reading(
        source=frame.source,
        sequence=frame.sequence,
        taken_at=frame.taken_at,
        well=frame.well,
        field=frame.field,
        simulated=frame.simulated,
        outcome=Outcome.INCONCLUSIVE if quality.passed else Outcome.INVALID,
        reasons=(*quality.refused_by, *quality.flags),
        n_live=len(count.cells) - n_dead,
        n_dead=n_dead,
        n_other=count.n_other,
        affected=tally.n_dead / tally.n_cells if tally.n_cells else None,
        p_toxic=None,
        tally=tally,
        quality=quality,
        cells=count.cells,
        height_px=height_px,
        width_px=width_px,
        assay=settings.assay,
        modality=settings.modality,
        method=settings.method,
        cell_model=None if classify is None else classify.id,
        field_model=None,
        labels=count.labels,
        zoom=count.zoom,
    )
