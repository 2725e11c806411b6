"""What one field gives: frame, quality, cells and the reading made of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device.records.words import Assay, CellClass, Label, Method, Modality, Outcome, Reason, ScaleSource


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
    tint: float | None = None
    """How far the color it was made from is from gray, 0 to 1; None where there was none."""
    metadata: Mapping[str, float] | None = None
    """How the camera says that it took it, such as `exposure_us` and `gain`; None where it says nothing."""

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
    tint: float | None = None
    """How far the color of the image is from gray: 1 less the weakest channel over the strongest, 0 to 1;
    null for a gray source."""
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


class ByClass:
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
class Tally(ByClass):
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
    outcome: Literal[Outcome.INCONCLUSIVE, Outcome.INVALID]
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
    plate: str | None = None
    """Plate that its well belongs to; null where no plate is defined."""
    frame_sha256: str | None = None
    """SHA-256 of the kept frame's PNG file; null where frames are not kept."""
    calibrations: tuple[str, ...] = ()
    """Ids of the station's calibrations that held, such as `pixel_size-20260304T050607Z`; empty where nobody
    calibrated, and for files."""
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
