"""A station's own baseline and the history of its control runs: one small JSON file beside the journal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from device.analysis.assess import AnalysisSettings
from device.analysis.control import FIELDS_MIN, ControlRun, Learned, Seen, compare, learn, see_field
from device.config import Config
from device.errors import ConfigError
from device.model_card.strict import read_record
from device.records import Assay, Modality, ModelId, Reading


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was learned, when and with what."""

    learned_at: str
    """RFC 3339, UTC."""
    um_per_px: float
    cell_model: ModelId | None
    learned: Learned


@dataclass(frozen=True, slots=True)
class QcState:
    """All that `qc run` knows of a station with this assay and modality."""

    schema: Literal["qc/1"]
    assay: Assay
    modality: Modality
    baseline: Baseline | None = None
    pending: tuple[Seen, ...] = ()
    """Accepted fields that a baseline will be learned from; empty once it is."""
    runs: tuple[ControlRun, ...] = ()


def qc_file(config: Config) -> Path:
    """Return where a station keeps its baseline: `journal.qc.json` beside `journal.db`."""
    return config.journal.path.with_suffix(".qc.json")


def read_qc(path: Path, assay: Assay, modality: Modality) -> QcState:
    """Return the state of a file, an empty one where there is none.

    Raises
    ------
    ConfigError
        If it is damaged, or of another assay or modality.
    """
    advice = "learn anew with `nanotox qc run --relearn`"
    state = read_record(QcState, path, f"expected a baseline, {advice}")
    if state is None:
        return QcState("qc/1", assay, modality)
    if (state.assay, state.modality) != (assay, modality):
        raise ConfigError(
            f"{path} was learned for {state.assay} cells in {state.modality}; "
            f"expected {assay} in {modality}, {advice}"
        )
    return state


def note_run(state: QcState, readings: Sequence[Reading], at: str) -> QcState:
    """Return the state after a run: compared with the baseline, or learned from once there are enough fields.

    `readings` may be refused ones; `at` is RFC 3339, UTC.
    """
    seen = [field for reading in readings if (field := see_field(reading)) is not None]
    comparison = None
    if state.baseline is not None and seen:
        learned = state.baseline.learned
        if readings[0].cell_model != state.baseline.cell_model:  # another model measures cells otherwise
            learned = replace(learned, histograms={})
        comparison = compare(seen, learned)
    run = ControlRun(at, len(readings), len(readings) - len(seen), comparison)
    state = replace(state, runs=(*state.runs, run))
    if state.baseline is not None:
        return state
    pending = (*state.pending, *seen)
    if len(pending) < FIELDS_MIN:
        return replace(state, pending=pending)
    first = readings[0]
    baseline = Baseline(at, first.quality.um_per_px or 0.0, first.cell_model, learn(pending))
    return replace(state, pending=(), baseline=baseline)


def with_baseline(settings: AnalysisSettings, state: QcState) -> AnalysisSettings:
    """Return the settings with the station's own focus reference, if it has learned one."""
    if state.baseline is None:
        return settings
    return replace(settings, limits=replace(settings.limits, focus=state.baseline.learned.focus))
