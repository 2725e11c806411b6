"""A plate while its fields come in, as an immutable state: used by the station and by files alike.

`start` opens a plate, `start_live` a single rolling well where no plate is defined; `add` takes one reading
and gives the provisional verdict of its well; `finish` gives the final verdicts and the report. Adding the
readings of a journal again leads to the same verdicts.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from device.analysis.evidence import HEALTHY, Evidence, gather_well, pool_reference
from device.analysis.grading import Rule, own_rule_text, rule_sha256
from device.analysis.plate import judge_controls, judge_sample, summarize_doses
from device.analysis.verdict import judge_well
from device.records import (
    NO_GLIMPSE,
    NO_LABELS,
    Assay,
    Method,
    Modality,
    PlateReport,
    PlateWell,
    Reading,
    Reason,
    Reference,
    Stage,
    Verdict,
)

LIVE_WELL = "live"
LIVE_FIELDS = 10
"""Fields over which the verdict of a live view without a plate rolls, refused ones included: a view that has
gone blind must not keep what it said before."""


@dataclass(frozen=True, slots=True, eq=False)
class PlateState:
    """Everything seen of a plate so far, and what all its wells have in common."""

    plate: str
    rule: Rule
    assay: Assay
    modality: Modality
    method: Method
    operator: str | None
    """Who started it."""
    live: bool
    """True for a live camera: an assumed scale then never gives `non_toxic`, and a well whose number of
    fields was not fixed beforehand is judged at the rule's looks."""
    rolling: bool
    """True for a live view without a plate."""
    wells: tuple[PlateWell, ...]
    readings: tuple[tuple[Reading, ...], ...]
    """Of each well, without cells and labels."""


def start(
    wells: Sequence[PlateWell],
    rule: Rule,
    *,
    plate: str,
    assay: Assay,
    modality: Modality,
    method: Method = "hybrid",
    operator: str | None = None,
    live: bool = False,
) -> PlateState:
    """Return a plate without readings; ValueError if `wells` is empty or two wells have one name."""
    names = [well.well for well in wells]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"wells are {names}; expected at least one, each with a name of its own")
    same = (plate, rule, assay, modality, method, operator, live)
    return PlateState(*same, rolling=False, wells=tuple(wells), readings=((),) * len(names))


def start_live(
    rule: Rule,
    *,
    assay: Assay,
    modality: Modality,
    method: Method = "hybrid",
) -> PlateState:
    """Return a state of the one well `live`; its verdicts are provisional, over its last ten fields."""
    live = PlateWell(LIVE_WELL, LIVE_WELL, "test", None, None, 1)
    same = (LIVE_WELL, rule, assay, modality, method, None, True)
    return PlateState(*same, rolling=True, wells=(live,), readings=((),))


def add(state: PlateState, reading: Reading) -> tuple[PlateState, Verdict | None]:
    """Return the state with `reading` in its well, and the provisional verdict of that well.

    A refused reading is counted but never enters the numbers of its well; one that `state` holds already
    (same source, sequence number and time) changes nothing, nor does a live view that stays where it is. No
    verdict where the well is not on the plate.
    """
    name = LIVE_WELL if state.rolling else reading.well
    index = next((i for i, well in enumerate(state.wells) if well.well == name), None)
    if index is None:
        return state, None
    before = state.readings[index]
    again = state.live and reading.quality.refused_by == (Reason.DUPLICATE_FIELD,)
    if not again and (reading.source, reading.sequence, reading.taken_at) not in {
        (known.source, known.sequence, known.taken_at) for known in before
    }:
        kept = (*before, slim(reading))
        kept = kept[-LIVE_FIELDS:] if state.rolling else kept
        state = replace(state, readings=(*state.readings[:index], kept, *state.readings[index + 1 :]))
    return state, provisional(state, state.wells[index].well)


def slim(reading: Reading) -> Reading:
    """Return the reading without its pictures, which are many times larger than what a well needs of it."""
    return replace(reading, cells=(), labels=NO_LABELS, glimpse=NO_GLIMPSE)


def provisional(state: PlateState, well: str) -> Verdict:
    """Return the provisional verdict of `well`, compared with the blank and negative fields seen so far.

    ValueError if `well` is not on the plate.
    """
    # the other test wells do not matter here, and a plate may have hundreds
    wells = _evidence_of(state, {w.well for w in state.wells if w.role in HEALTHY} | {well})
    evidence = next((e for e in wells if e.plan.well == well), None)
    if evidence is None:
        raise ValueError(f"well {well} is not on plate {state.plate}")
    return _judge(state, evidence, pool_reference(wells, state.rule), "provisional")


def finish(state: PlateState) -> tuple[tuple[Verdict, ...], PlateReport]:
    """Return the final verdicts of all wells, in the order of the plate, and its report.

    ValueError for a live state: it has no plate, no controls and no end.
    """
    if state.rolling:
        raise ValueError("a live view without a plate has no final verdict; expected a plate")
    return conclude(state, _evidence_of(state, {well.well for well in state.wells}))


def conclude(state: PlateState, wells: Sequence[Evidence]) -> tuple[tuple[Verdict, ...], PlateReport]:
    """Return what `finish` does, from what was seen in all wells instead of from the readings of `state`."""
    rule = state.rule
    reference, faults = judge_controls(wells, rule)
    verdicts = tuple(_judge(state, well, reference, "final", faults) for well in wells)
    groups: dict[tuple[object, ...], list[tuple[Evidence, Verdict]]] = {}
    for well, verdict in zip(wells, verdicts, strict=True):
        plan = well.plan
        groups.setdefault((plan.sample, plan.role, plan.dose, plan.dose_unit), []).append((well, verdict))
    samples = tuple(judge_sample(group, reference, rule) for group in groups.values())
    report = PlateReport(
        plate=state.plate,
        operator=state.operator,
        rule=rule.id,
        rule_sha256=rule_sha256(rule),
        rule_text=own_rule_text(rule),
        controls_valid=not faults,
        reasons=faults,
        samples=samples,
        doses=summarize_doses(samples),
        reference=reference,
        n_wells=len(verdicts),
        simulated=any(verdict.simulated for verdict in verdicts),
    )
    return verdicts, report


def _judge(
    state: PlateState,
    evidence: Evidence,
    reference: Reference | None,
    stage: Stage,
    faults: tuple[Reason, ...] = (),
) -> Verdict:
    return judge_well(
        evidence,
        reference,
        state.rule,
        stage=stage,
        control_faults=faults,
        looks=() if _is_fixed(state, evidence) else state.rule.looks,
        scale_may_be_assumed=not state.live,
        plate=None if state.rolling else state.plate,
    )


def _is_fixed(state: PlateState, evidence: Evidence) -> bool:
    """Return whether nobody could end the well where it looked best.

    Files are all there beforehand, and a live view only ever speaks provisionally over the same number of
    fields. A live well is fixed where it has the fields that were planned, no more and no fewer, refused ones
    counted in or replaced.
    """
    planned, accepted = evidence.plan.fields, len(evidence.fields)
    kept = planned is not None and accepted <= planned <= accepted + evidence.n_fields_refused
    return not state.live or state.rolling or kept


def _evidence_of(state: PlateState, wells: Container[str]) -> tuple[Evidence, ...]:
    return tuple(
        gather_well(well, readings, assay=state.assay, modality=state.modality, method=state.method)
        for well, readings in zip(state.wells, state.readings, strict=True)
        if well.well in wells
    )
