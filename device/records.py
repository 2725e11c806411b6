"""The words of the house as records: what a frame, a reading and a verdict hold.

Field names here are the field names everywhere: in MQTT payloads, `--json`, CSV and the JSON Schema. Records
are frozen; arrays inside them are read-only.
"""

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Assay = Literal["adherent", "suspension"]
Modality = Literal["phase", "brightfield"]
Method = Literal["hybrid", "paper"]
ScaleSource = Literal["measured", "published", "assumed"]
Role = Literal["blank", "negative", "positive", "test"]
Label = Literal["live", "dead"]


class Outcome(StrEnum):
    """What a verdict states. The default of every error path is INVALID."""

    TOXIC = "toxic"
    NON_TOXIC = "non_toxic"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


class Reason(StrEnum):
    """Stable codes that say why an outcome is what it is, or what a reader must know about it."""

    INTERVAL_STRADDLES_LIMIT = "INTERVAL_STRADDLES_LIMIT"
    TOO_FEW_FIELDS = "TOO_FEW_FIELDS"
    TOO_FEW_CELLS = "TOO_FEW_CELLS"
    TOO_FEW_REPLICATES = "TOO_FEW_REPLICATES"
    NO_CONTROL_REFERENCE = "NO_CONTROL_REFERENCE"
    NEG_CONTROL_FAILED = "NEG_CONTROL_FAILED"
    POS_CONTROL_FAILED = "POS_CONTROL_FAILED"
    HIGH_BACKGROUND = "HIGH_BACKGROUND"
    LAYER_DESTROYED = "LAYER_DESTROYED"
    GROWTH_INHIBITION = "GROWTH_INHIBITION"
    EXTENSIVE_LYSIS = "EXTENSIVE_LYSIS"
    QUAL_QUANT_DISCORDANT = "QUAL_QUANT_DISCORDANT"
    METHOD_DISAGREE = "METHOD_DISAGREE"
    BLUR = "BLUR"
    OVEREXPOSED = "OVEREXPOSED"
    UNDEREXPOSED = "UNDEREXPOSED"
    EXPOSURE = "EXPOSURE"
    FLAT_IMAGE = "FLAT_IMAGE"
    UNEVEN_LIGHT = "UNEVEN_LIGHT"
    NOISY = "NOISY"
    MOTION = "MOTION"
    DUPLICATE_FIELD = "DUPLICATE_FIELD"
    FOREIGN_MATTER = "FOREIGN_MATTER"
    OOD_CELLS = "OOD_CELLS"
    DRIFT = "DRIFT"
    NO_CALIBRATION = "NO_CALIBRATION"
    SCALE_OUT_OF_RANGE = "SCALE_OUT_OF_RANGE"
    SCALE_ASSUMED = "SCALE_ASSUMED"
    CAMERA_LOST = "CAMERA_LOST"
    FROZEN_FRAME = "FROZEN_FRAME"
    MODEL_UNVERIFIED = "MODEL_UNVERIFIED"
    METHOD_UNVERIFIED = "METHOD_UNVERIFIED"
    UNREADABLE_IMAGE = "UNREADABLE_IMAGE"
    ANALYSIS_FAILED = "ANALYSIS_FAILED"


class CellClass(StrEnum):
    """What the cell model says of one crop: live, dead, other in chambers, the finer four in layers."""

    LIVE = "live"
    DEAD = "dead"
    ROUNDED = "rounded"
    LYSED = "lysed"
    OTHER = "other"


DEAD_CLASSES = frozenset({CellClass.DEAD, CellClass.ROUNDED, CellClass.LYSED})
"""Classes that count as dead: n_dead = dead + rounded + lysed (a mitotic cell counts as rounded)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a pixel is, and how that is known."""

    um_per_px: float
    """Micrometers a pixel of the frame, > 0."""
    source: ScaleSource
    """`assumed` makes areas null and sets SCALE_ASSUMED."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image with time, source and sequence number."""

    image: NDArray[np.uint8]
    """(M, N) gray, 0 black to 255 white, read-only."""
    taken_at: datetime
    """When it was exposed, UTC."""
    source: str
    """Camera or file it came from."""
    sequence: int
    """Running number within the camera's life, from 0."""
    scale: Scale | None = None
    """None gives NO_CALIBRATION and an invalid reading."""
    well: str | None = None
    """Well of the plate, or None where no plate is defined."""
    field: int | None = None
    """Running number of the field within its well, from 0."""
    simulated: bool = False
    """True for frames that a renderer made."""
    full_size: tuple[int, int] | None = None
    """Rows and columns of the file of which `image` is the half, quarter or eighth, as it was decoded; None
    where `image` is all there is. `scale` and everything in a reading are in pixels of the file."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that positions, masks and overlays refer to; (0, 0) for what is no image."""
        height_px, width_px = self.full_size or (*self.image.shape, 0, 0)[:2]
        return height_px, width_px

    @property
    def shrink(self) -> int:
        """Pixels of the file per pixel of `image`: 1, 2, 4 or 8."""
        return 1 if self.full_size is None else round(self.full_size[0] / self.image.shape[0])


@dataclass(frozen=True, slots=True)
class Quality:
    """What the quality gate measured in one field, and what it makes of it."""

    passed: bool
    """False: the field is refused, its reading is `invalid` and enters no well."""
    refused_by: tuple[Reason, ...]
    """Why it was refused; empty when it passed."""
    flags: tuple[Reason, ...]
    """What a reader should know of a field that passed, such as SCALE_ASSUMED or TOO_FEW_CELLS."""
    focus_laplacian: float | None
    """Variance of the Laplacian over the contrast variance; null where the image is flat."""
    focus_tenengrad: float | None
    """Mean squared gradient over the contrast variance; null where the image is flat."""
    focus_slope: float | None
    """Slope of the log-log radial power spectrum between .02 and .35 cycles/px."""
    clipped_high: float
    """Share of pixels >= 254, 0 to 1."""
    clipped_low: float
    """Share of pixels <= 1, 0 to 1."""
    level: float
    """Median gray over 255, 0 to 1."""
    flatness: float | None
    """(p95 - p5) / p50 of the blurred background; null where the median is 0."""
    um_per_px: float | None
    """Scale of the frame; null where unknown."""
    um_per_px_source: ScaleSource | None
    """How the scale is known."""
    glare: float = 0.0
    """Share of the field in saturated patches wider than a round cell, 0 to 1."""
    foreign: float | None = None
    """Share of the field under bubbles, clumps and walls, 0 to 1; null where the scale is unknown."""
    contrast: float | None = None
    """Root mean square of the relative contrast I / background - 1; null where the image is flat."""
    noise: float | None = None
    """Standard deviation of the pixel noise, relative contrast; null where the image is flat."""
    anisotropy: float | None = None
    """Strength of the fine structure across the directions over that in the weakest one, >= 1: motion blurs
    along one direction. Null in fields under 256 px."""
    odd_cells: float | None = None
    """Share of counted cells that are like nothing the cell model was validated on, 0 to 1; null without
    cells, or where the model cannot tell."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One counted cell: an accepted center with its watershed region. Positions are pixels of the frame."""

    region: int
    """Label of its region in `Reading.labels` and `--masks`, from 1."""
    row: float
    col: float
    label: Label
    cell_class: CellClass
    """The finer class behind `label`."""
    p_dead: float
    """Probability that it is dead given that it is a cell, 0 to 1, after temperature scaling."""
    area_um2: float | None
    """Area of the region; null where the scale is assumed."""
    touches_edge: bool
    counted: bool
    """False for cells that touch the bottom or right edge: they stay out of fractions and densities (unbiased
    counting frame)."""


class _ByClass:
    """Sums of what has cells by class."""

    __slots__ = ()
    n_live: int
    n_rounded: int
    n_lysed: int

    @property
    def n_dead(self) -> int:
        """Affected cells: rounded and lysed."""
        return self.n_rounded + self.n_lysed

    @property
    def n_cells(self) -> int:
        """All cells of the field."""
        return self.n_live + self.n_rounded + self.n_lysed


@dataclass(frozen=True, slots=True)
class Tally(_ByClass):
    """What one field adds to its well: cells by class under the edge rule, and the area they stand on."""

    n_live: int
    n_rounded: int
    n_lysed: int
    area_mm2: float | None
    """Area of the field; null where the scale is assumed or unknown."""
    confluence: float
    """Share of the field covered by cells, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ModelId:
    """Which model spoke, so that a result can be traced to its bytes."""

    name: str
    sha256: str
    trusted: bool
    """False never gives `non_toxic` (MODEL_UNVERIFIED)."""


NO_LABELS: NDArray[np.uint16] = np.zeros((0, 0), np.uint16)
NO_LABELS.flags.writeable = False
NO_GLIMPSE: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
NO_GLIMPSE.flags.writeable = False


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one field gives. One field alone is only ever provisional."""

    source: str
    sequence: int
    taken_at: datetime
    well: str | None
    field: int | None
    simulated: bool
    outcome: Outcome
    """`invalid` for a refused field, else `inconclusive`: one field decides nothing."""
    reasons: tuple[Reason, ...]
    n_live: int
    n_dead: int
    n_other: int
    """Regions that are no cells. n_live + n_dead + n_other is the number of labels in `labels`."""
    affected: float | None
    """Share of dead among the cells that the edge rule counts, 0 to 1; null without such cells."""
    p_toxic: float | None
    """Second opinion of the field model; null where none is loaded or the field was refused."""
    tally: Tally
    quality: Quality
    cells: tuple[Cell, ...]
    """Live and dead only: len(cells) = n_live + n_dead."""
    height_px: int
    width_px: int
    assay: Assay
    modality: Modality
    method: Method
    cell_model: ModelId | None
    field_model: ModelId | None
    labels: NDArray[np.uint16] = dataclass_field(
        default_factory=lambda: NO_LABELS, metadata={"payload": False}
    )
    """Regions, 0 = background, at half the working scale (method `paper`: at working scale); not part of the
    payload (`counting.labels_in_frame` gives them in pixels of the frame)."""
    glimpse: NDArray[np.uint8] = dataclass_field(
        default_factory=lambda: NO_GLIMPSE, metadata={"payload": False}
    )
    """Middle of the field at a quarter of the working scale, to know it again; not part of the payload."""
    zoom: float = dataclass_field(default=1.0, metadata={"payload": False})
    """Pixels of the frame per pixel of `labels`; not part of the payload."""


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
class FieldCount(_ByClass):
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
    stage: Literal["provisional", "final"]
    outcome: Outcome
    reasons: tuple[Reason, ...]
    rule: str
    """Identity of the rule, such as `iso10993-5-extract/1`."""
    rule_sha256: str
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


@dataclass(frozen=True, slots=True)
class SampleVerdict:
    """What the wells of one item and dose give together."""

    sample: str
    role: Role
    dose: float | None
    dose_unit: str | None
    outcome: Outcome
    reasons: tuple[Reason, ...]
    policy: Literal["any"]
    wells: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    """Of the wells, in their order."""
    grade: int | None
    """Worst grade of its wells."""


@dataclass(frozen=True, slots=True)
class PlateReport:
    """The samples and controls of a finished plate."""

    plate: str
    rule: str
    rule_sha256: str
    controls_valid: bool
    reasons: tuple[Reason, ...]
    samples: tuple[SampleVerdict, ...]
    reference: Reference | None
    """What every well was compared with; null without a usable blank or negative well."""
    n_wells: int
    simulated: bool
