"""Readings, verdicts and samples as rows of a table whose columns never change: the form csv/1.

The first column names the form. A LIMS maps columns by the header line, so that this must be the first line;
the form in each row survives where files are joined or sorted, and an import rule can select by it. A change
of columns is a new form.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from device.report.words import Payload

IDENTITY = ("site", "station", "ledger_id", "seq", "ts")
"""Null where the source is no station."""
_RULE = ("rule", "rule_sha256")
_MODELS = (
    "cell_model.name",
    "cell_model.sha256",
    "cell_model.trusted",
    "field_model.name",
    "field_model.sha256",
)
_PLACE = ("plate", "well", "sample", "role", "dose", "dose_unit")
COLUMNS: dict[str, tuple[str, ...]] = {
    "readings": (
        *IDENTITY,
        *("plate", "well", "field", "source", "sequence", "taken_at", "frame_sha256", "simulated"),
        *("outcome", "reasons", "n_live", "n_dead", "n_other", "affected", "p_toxic"),
        *("tally.n_live", "tally.n_rounded", "tally.n_lysed", "tally.area_mm2", "tally.confluence"),
        *("quality.passed", "quality.refused_by", "quality.flags", "quality.focus_laplacian"),
        *("quality.focus_tenengrad", "quality.focus_slope", "quality.clipped_high", "quality.clipped_low"),
        *("quality.level", "quality.flatness", "quality.glare", "quality.foreign", "quality.contrast"),
        *("quality.noise", "quality.anisotropy", "quality.tint", "quality.odd_cells"),
        *("quality.um_per_px", "quality.um_per_px_source", "height_px", "width_px"),
        *("assay", "modality", "method", *_MODELS, "calibrations"),
    ),
    "verdicts": (
        *IDENTITY,
        *(*_PLACE, "replicate", "stage", "outcome", "reasons", "confidence", "leans_toxic", *_RULE),
        *(
            "grade",
            "grade_low",
            "grade_high",
            "reactivity",
            "n_fields_planned",
            "n_fields",
            "n_fields_refused",
        ),
        *("refused_by", "n_fields_counted", "n_cells", "n_dead", "affected", "affected_corrected"),
        *("bounds.low", "bounds.high", "ci95.low", "ci95.high", "design_effect", "rho", "background"),
        *("lysed", "lysed_bounds.low", "lysed_bounds.high", "growth_inhibition"),
        *("growth_inhibition_bounds.low", "growth_inhibition_bounds.high", "viability_index", "fields_more"),
        *("p_toxic", "control_faults", "um_per_px", "um_per_px_source", "assay", "modality", "method"),
        *(*_MODELS, "simulated", "calibrations"),
    ),
    "plate": (
        *IDENTITY,
        *("plate", "operator", *_RULE, "controls_valid", "plate_reasons", "decision_sha256", "simulated"),
        *("sample", "role", "dose", "dose_unit", "outcome", "reasons", "policy", "wells", "outcomes"),
        *("grade", "reactivity", "affected_corrected", "bounds.low", "bounds.high", "growth_inhibition"),
        *(
            "growth_inhibition_bounds.low",
            "growth_inhibition_bounds.high",
            "lowest_toxic",
            "highest_non_toxic",
        ),
        "is_monotone",
    ),
}
"""Of each table its columns, by their path in the payload; of `plate` a row is one sample."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a text that begins so."""


def table_rows(what: str, records: Iterable[Payload]) -> Iterator[list[str]]:
    """Yield the header line and a row for each record, or for each sample of a plate.

    `what` is `readings`, `verdicts` or `plate`, `records` are its payloads. In the header `bounds.low` is
    `bounds_low`. Lists are joined by `;`, null is empty, numbers are as in JSON. A text that a spreadsheet
    would run as a formula gets an apostrophe before it.
    """
    form, columns = f"{what}-csv/1", COLUMNS[what]
    yield ["form", *(path.replace(".", "_") for path in columns)]
    for record in records:
        for values in _samples_of(record) if what == "plate" else (record,):
            yield [form, *(_cell(_at(values, path)) for path in columns)]


def _samples_of(plate: Payload) -> Iterator[Mapping[str, Any]]:
    doses = {("test", item["sample"], item["dose_unit"]): item for item in plate["doses"]}
    for sample in plate["samples"]:
        found = doses.get((sample["role"], sample["sample"], sample["dose_unit"]), {})
        yield {**found, **plate, "plate_reasons": plate["reasons"], **sample}


def _at(values: Payload, path: str) -> object:
    found: Any = values
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        value = ";".join(map(str, value))
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
