"""A station's own baseline and the history of its control runs: one small JSON file beside the journal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from device.analysis.assess import AnalysisSettings
from device.analysis.control import (
    FIELDS_MIN,
    ControlRun,
    Learned,
    Seen,
    compare,
    draw_control_chart,
    learn,
    see_field,
)
from device.config import Config
from device.errors import ConfigError
from device.images import write_png
from device.model_card.strict import read_record, write_record
from device.records import Assay, Modality, ModelId, Reading

RunState: TypeAlias = Literal["no_field", "learning", "learned", "in_control", "out_of_control"]


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


def control_run(config: Config, readings: Iterable[Reading], at: str, *, relearn: bool = False) -> QcState:
    """Return what a station knows after a control run on `readings`: it is kept, and charted once learned.

    With `relearn` the baseline is forgotten before. `at` is RFC 3339, UTC. ConfigError as `read_qc`, or if
    nothing can be written.
    """
    path, kind = qc_file(config), (config.station.assay, config.station.modality)
    state = QcState("qc/1", *kind) if relearn else read_qc(path, *kind)
    write_record(path, state)  # a missing right shows before the fields; the gate forgets what is relearned
    state = note_run(state, list(readings), at)
    write_record(path, state)
    if state.baseline is not None:
        write_png(path.with_suffix(".png"), draw_control_chart(state.runs, state.baseline.learned))
    return state


def run_state(state: QcState) -> RunState:
    """Return what the newest control run says; `learning` until there are enough accepted fields."""
    run = state.runs[-1]
    if run.n_refused == run.n_fields:
        return "no_field"
    if state.baseline is None:
        return "learning"
    if run.comparison is None:
        return "learned"
    return "out_of_control" if run.comparison.out or run.comparison.reasons else "in_control"


def with_baseline(settings: AnalysisSettings, state: QcState) -> AnalysisSettings:
    """Return the settings with the station's own focus reference, if it has learned one."""
    if state.baseline is None:
        return settings
    return replace(settings, limits=replace(settings.limits, focus=state.baseline.learned.focus))
