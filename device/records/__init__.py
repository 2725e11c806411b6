"""The words of the house as records: what a frame, a reading and a verdict hold.

Field names here are the field names everywhere: in MQTT payloads, `--json`, CSV and the JSON Schema. Records
are frozen; arrays inside them are read-only.
"""

from device.records.reading import (
    NO_GLIMPSE,
    NO_LABELS,
    Cell,
    Frame,
    ModelId,
    Quality,
    Reading,
    Scale,
    Tally,
)
from device.records.station import Alert, ClockState, Health, Latest
from device.records.verdict import (
    DoseSummary,
    FieldCount,
    Interval,
    PlateReport,
    PlateWell,
    Reference,
    SampleVerdict,
    Verdict,
)
from device.records.words import (
    DEAD_CLASSES,
    Assay,
    CellClass,
    Label,
    Method,
    Modality,
    NonToxic,
    Outcome,
    Policy,
    Reason,
    Role,
    ScaleSource,
    Stage,
    Stated,
)

__all__ = [
    "DEAD_CLASSES",
    "NO_GLIMPSE",
    "NO_LABELS",
    "Alert",
    "Assay",
    "Cell",
    "CellClass",
    "ClockState",
    "DoseSummary",
    "FieldCount",
    "Frame",
    "Health",
    "Interval",
    "Label",
    "Latest",
    "Method",
    "Modality",
    "ModelId",
    "NonToxic",
    "Outcome",
    "PlateReport",
    "PlateWell",
    "Policy",
    "Quality",
    "Reading",
    "Reason",
    "Reference",
    "Role",
    "SampleVerdict",
    "Scale",
    "ScaleSource",
    "Stage",
    "Stated",
    "Tally",
    "Verdict",
]
