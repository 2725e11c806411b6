"""What wells, samples and plates give: the plan, the evidence, and what is stated of it."""

from dataclasses import dataclass

from device.records.reading import ByClass, ModelId
from device.records.words import Assay, Method, Modality, Policy, Reason, Role, ScaleSource, Stage, Stated


@dataclass(frozen=True, slots=True)
class Interval:
    """A range, its lower and upper end included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PlateWell:
    """One well as plate.csv plans it: what is in it, and where its fields come from."""

    well: str
    """Name on the plate, such as `B03`; unique."""
    sample: str
    role: Role
    dose: float | None
    """Dose of the item, >= 0; null for controls and for undiluted samples."""
    dose_unit: str | None
    """Such as `ug/mL` or `%`; given wherever a dose is."""
    replicate: int
    """Running number among the wells of one sample and dose, from 1."""
    files: tuple[str, ...] = ()
    """Images of its fields: paths or patterns (`B03/*.png`) relative to the folder of plate.csv."""
    positions: tuple[str, ...] = ()
    """Stage positions of its fields, in the words of whoever moves the stage."""
    dead_fraction: float | None = None
    """True share of dead cells, 0 to 1; rendered wells only."""
    fields: int | None = None
    """Planned number of fields; null where the files or positions say it."""


@dataclass(frozen=True, slots=True)
class FieldCount(ByClass):
    """One accepted field of a well, as the verdict used it."""

    field: int
    n_live: int
    n_rounded: int
    n_lysed: int
    area_mm2: float | None
    confluence: float
    p_toxic: float | None = None
    """Second opinion of the field model, 0 to 1; null where none is loaded."""
    odd: bool = False
    """Whether it carries OOD_CELLS."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The blank and negative wells of a plate, pooled: what a healthy culture looks like today."""

    wells: tuple[str, ...]
    n_cells: int
    n_dead: int
    fields: tuple[FieldCount, ...]
    """Of all its wells, well after well."""
    fields_per_well: tuple[int, ...] = ()
    """How many of `fields` each of `wells` gave."""
    cell_model: ModelId | None = None
    """The one model that read all of them; null where more than one did."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a well gives, with everything needed to compute it again."""

    well: str
    sample: str
    role: Role
    dose: float | None
    dose_unit: str | None
    replicate: int
    plate: str | None
    """Plate that the well belongs to; null for a live view without one."""
    n_fields_planned: int | None
    """Planned number of fields; null where it is open."""
    stage: Stage
    outcome: Stated
    reasons: tuple[Reason, ...]
    confidence: float | None
    """Probability that the truth lies on the stated side of the limit, 0 to 1, from the t approximation: of
    the weakest criterion for `non_toxic`, of the strongest for `toxic`; null for any other outcome and a
    destroyed layer."""
    leans_toxic: bool | None
    """Of an inconclusive well, the side that the field model speaks for; null where it does not."""
    rule: str
    """Identity of the rule, such as `iso10993-5-extract/1`."""
    rule_sha256: str
    rule_text: str | None
    """The rule itself as canonical JSON where it is the lab's own; null for rules of this version."""
    grade: int | None
    """ISO 10993-5 reactivity, 0 to 4; null where nothing can be graded."""
    grade_low: int | None
    grade_high: int | None
    reactivity: str | None
    """The grade in words: none, slight, mild, moderate, severe."""
    n_fields: int
    """Accepted fields."""
    n_fields_refused: int
    refused_by: tuple[Reason, ...]
    """Why fields of the well were refused."""
    n_fields_counted: int
    """Accepted fields with enough cells: the F of the interval."""
    n_cells: int
    n_dead: int
    affected: float | None
    """Share of affected cells, 0 to 1, uncorrected."""
    affected_corrected: float | None
    """The share that decides: after Abbott's correction with `background`, or as it is where that is null."""
    bounds: Interval | None
    """Decision bounds of the corrected share, one-sided 5 % each."""
    ci95: Interval | None
    """Reported two-sided 95 % interval of the corrected share."""
    design_effect: float | None
    rho: float | None
    """Correlation of cells within a field that the design effect stands for; null with fewer than two
    counted fields. A lab's own value is the mean over many wells."""
    background: float | None
    """Affected share of blank and negative wells, 0 to 1, where it was subtracted; null without a
    reference and for those wells themselves."""
    lysed: float | None
    """Share of lysed cells, 0 to 1, uncorrected."""
    lysed_bounds: Interval | None
    """Decision bounds of the lysed share, one-sided 5 % each."""
    growth_inhibition: float | None
    """1 - live cells per area / that of the controls, 0 to 1; from the confluence where the scale is assumed;
    null without a control."""
    growth_inhibition_bounds: Interval | None
    viability_index: float | None
    """Live cells per area over those of the controls, 1 where there are as many; null without a control."""
    fields_more: int | None
    """Further fields expected to decide; null where none would help or none are needed."""
    p_toxic: float | None
    """Field model over the fields (mean logit); null where none is loaded."""
    fields: tuple[FieldCount, ...]
    reference: Reference | None
    control_faults: tuple[Reason, ...]
    """What is wrong with the controls of the plate; any of them makes the well invalid."""
    looks: tuple[int, ...]
    """Numbers of fields at which an open-ended well is judged; empty where their number is fixed."""
    scale_may_be_assumed: bool
    """False at a station with a live camera: an assumed scale then never gives `non_toxic`."""
    um_per_px: float | None
    """Scale of its accepted fields; null where they differ or none was accepted."""
    um_per_px_source: ScaleSource | None
    assay: Assay
    modality: Modality
    method: Method
    cell_model: ModelId | None
    field_model: ModelId | None
    simulated: bool
    calibrations: tuple[str, ...] = ()
    """Ids of the calibrations that its accepted fields refer to, sorted."""


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """What the wells of one item and dose give together."""

    sample: str
    role: Role
    dose: float | None
    dose_unit: str | None
    outcome: Stated
    reasons: tuple[Reason, ...]
    policy: Policy
    wells: tuple[str, ...]
    outcomes: tuple[Stated, ...]
    """Of the wells, in their order."""
    grade: int | None
    """Worst grade of its wells; with policy `median` that of the middle one, with `pooled` that of all cells
    together."""
    reactivity: str | None
    affected_corrected: float | None
    """Share of affected cells in all its valid wells together, after Abbott's correction."""
    bounds: Interval | None
    """Decision bounds of that share with wells as the statistical unit; null with fewer than three wells."""
    growth_inhibition: float | None
    growth_inhibition_bounds: Interval | None


@dataclass(frozen=True, slots=True)
class DoseSummary:
    """Where along its doses a test item becomes toxic."""

    sample: str
    dose_unit: str
    lowest_toxic: float | None
    """First dose above the limit; null where none is."""
    highest_non_toxic: float | None
    """Highest dose below the first toxic one that passes; null where none does."""
    is_monotone: bool
    """False where a dose at or above a toxic one passes: look at these wells again."""


@dataclass(frozen=True, slots=True)
class PlateReport:
    """The samples and controls of a finished plate."""

    plate: str
    operator: str | None
    """Who started it; null where nobody said."""
    rule: str
    rule_sha256: str
    rule_text: str | None
    """The rule itself as canonical JSON where it is the lab's own; null for rules of this version."""
    controls_valid: bool
    reasons: tuple[Reason, ...]
    samples: tuple[SampleVerdict, ...]
    doses: tuple[DoseSummary, ...]
    """Of each test item with doses."""
    reference: Reference | None
    """What every well was compared with; null without a usable blank or negative well."""
    n_wells: int
    simulated: bool
    decision_sha256: str | None = None
    """SHA-256 of everything decided, well by well, without names and times: two ways of reading the same
    images agree where it agrees; null until the verdicts are put beside it."""
