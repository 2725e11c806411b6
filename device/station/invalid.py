"""The reading of a field that could not be read: `invalid`, with its reason, and nothing counted."""

from device.analysis.assess import AnalysisSettings
from device.cameras import LostFrame
from device.records import Frame, ModelId, Outcome, Quality, Reading, Reason, Tally


def invalid_reading(
    frame: Frame | LostFrame | Reading,
    reason: Reason,
    settings: AnalysisSettings,
    *,
    cell_model: ModelId | None,
    field_model: ModelId | None,
) -> Reading:
    """Return an `invalid` reading for `frame`, refused because of `reason`."""
    scale = frame.scale if isinstance(frame, Frame) else None
    height_px, width_px = frame.image.shape[:2] if isinstance(frame, Frame) else (0, 0)
    quality = Quality(
        passed=False,
        refused_by=(reason,),
        flags=(),
        focus_laplacian=None,
        focus_tenengrad=None,
        focus_slope=None,
        clipped_high=0.0,
        clipped_low=0.0,
        level=0.0,
        flatness=None,
        um_per_px=scale.um_per_px if scale else None,
        um_per_px_source=scale.source if scale else None,
    )
    return Reading(
        source=frame.source,
        sequence=frame.sequence,
        taken_at=frame.taken_at,
        well=frame.well,
        field=frame.field,
        simulated=frame.simulated,
        outcome=Outcome.INVALID,
        reasons=(reason,),
        n_live=0,
        n_dead=0,
        n_other=0,
        affected=None,
        p_toxic=None,
        tally=Tally(0, 0, 0, None, 0.0),
        quality=quality,
        cells=(),
        height_px=height_px,
        width_px=width_px,
        assay=settings.assay,
        modality=settings.modality,
        method=settings.method,
        cell_model=cell_model,
        field_model=field_model,
    )
