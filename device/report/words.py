"""What outcomes, reason codes and numbers say to a toxicologist: one table for reports and command line."""

from collections.abc import Iterable, Mapping
from typing import Any

from device.records import Reason

Payload = Mapping[str, Any]
"""A record as it is published (`messages.payload`)."""

NOT_KNOWN = "not known"

OUTCOME_NAMES = {
    "toxic": "toxic",
    "non_toxic": "non-toxic",
    "inconclusive": "inconclusive",
    "invalid": "invalid",
}
OUTCOME_WORDS = {
    "toxic": "the culture is harmed beyond the limit, and chance alone does not explain it",
    "non_toxic": "harm stays within the limit by every criterion, and all it stands on was checked",
    "inconclusive": "the images do not decide on which side of the limit the culture lies",
    "invalid": "nothing can be said: images, controls or scale are not fit for a judgment",
}
REASON_WORDS: dict[Reason, str] = {
    Reason.INTERVAL_STRADDLES_LIMIT: "the interval reaches to both sides of the limit; more fields narrow it",
    Reason.TOO_FEW_FIELDS: "fewer usable fields than the rule asks for; take more fields",
    Reason.TOO_FEW_CELLS: "too few cells to tell a share from; seed more densely or take more fields",
    Reason.TOO_FEW_REPLICATES: "fewer wells of this item and dose than the rule asks for",
    Reason.NO_CONTROL_REFERENCE: "no usable blank or negative control to compare with",
    Reason.NEG_CONTROL_FAILED: "a blank or negative control is harmed itself, or could not be read",
    Reason.POS_CONTROL_FAILED: "the positive control is missing, unreadable, or shows no clear harm",
    Reason.HIGH_BACKGROUND: "too many affected cells in blank and negative controls to subtract them",
    Reason.LAYER_DESTROYED: "hardly any cells are left where the controls have a layer: severe",
    Reason.GROWTH_INHIBITION: "far fewer living cells per area than in the controls",
    Reason.EXTENSIVE_LYSIS: "more cells are lysed than the rule allows",
    Reason.QUAL_QUANT_DISCORDANT: "the grade passes where a viability assay (limit 70 %) would not; confirm "
    "with a metabolic assay",
    Reason.METHOD_DISAGREE: "counting and the second opinion on whole fields contradict each other; look "
    "at the images",
    Reason.BLUR: "out of focus",
    Reason.OVEREXPOSED: "too much of the image is saturated white",
    Reason.UNDEREXPOSED: "too much of the image is black",
    Reason.EXPOSURE: "the image as a whole is too dark or too bright",
    Reason.FLAT_IMAGE: "the image shows no structure at all",
    Reason.UNEVEN_LIGHT: "the illumination differs too much across the field",
    Reason.TINT: "the image is strongly colored: a channel is missing, or a filter is in the light",
    Reason.NOISY: "noise hides the fine structure of cells",
    Reason.MOTION: "something moved during the exposure",
    Reason.DUPLICATE_FIELD: "shows the same cells as the field before and was not counted twice",
    Reason.FOREIGN_MATTER: "bubbles, clumps or walls cover too much of the field",
    Reason.OOD_CELLS: "cells look unlike any that the model was validated on",
    Reason.DRIFT: "the optics have drifted from the reference of this station",
    Reason.NO_CALIBRATION: "the size of a pixel is not known; calibrate the microscope",
    Reason.SCALE_OUT_OF_RANGE: "the size of a pixel is outside of what can be analyzed",
    Reason.SCALE_ASSUMED: "the size of a pixel is assumed, not measured: no areas in um2",
    Reason.CAMERA_LOST: "the camera gave no image",
    Reason.FROZEN_FRAME: "the camera repeated an old image",
    Reason.MODEL_UNVERIFIED: "the cell model is not on the trust list, or not the one that read the controls",
    Reason.METHOD_UNVERIFIED: "read by a method that never decides alone",
    Reason.UNREADABLE_IMAGE: "the image file is damaged",
    Reason.ANALYSIS_FAILED: "the analysis failed or gave impossible numbers",
}
_WORDS: dict[str, str] = {code.value: words for code, words in REASON_WORDS.items()}


def explain(code: str) -> str:
    """Return a reason code followed by its meaning; a code that this version does not know says so."""
    return f"{code}: {_WORDS.get(code, 'not known to this version of nanotox')}"


def explain_all(codes: Iterable[str]) -> str:
    """Return reason codes with their meanings, separated by semicolons; empty without codes."""
    return "; ".join(map(explain, codes))


def outcome_name(outcome: str) -> str:
    """Return an outcome as it is written for people, such as `non-toxic`."""
    return OUTCOME_NAMES.get(outcome, outcome)


def in_percent(share: float | None) -> str:
    """Return a share, 0 to 1, in percent with one decimal.

    Examples
    --------
    >>> in_percent(0.5234), in_percent(None)
    ('52.3 %', 'not known')
    """
    return NOT_KNOWN if share is None else f"{100 * share:.1f} %"


def span(interval: Payload | None) -> str:
    """Return an interval of shares in percent; one from 0 to 100 % knows nothing, and says so.

    Examples
    --------
    >>> span({"low": 0.381, "high": 0.66}), span({"low": 0.0, "high": 1.0})
    ('38.1-66.0 %', 'unknown')
    """
    if interval is None:
        return NOT_KNOWN
    low, high = 100 * interval["low"], 100 * interval["high"]
    return "unknown" if low <= 0 and high >= 100 else f"{low:.1f}-{high:.1f} %"


def confidence_text(confidence: float | None) -> str:
    """Return a confidence in percent; one next to certainty is not rounded to it.

    Examples
    --------
    >>> confidence_text(0.9642), confidence_text(0.99999), confidence_text(None)
    ('96.4 %', '> 99.9 %', '-')
    """
    if confidence is None:
        return "-"
    return "> 99.9 %" if confidence > 0.999 else in_percent(confidence)


def grade_text(verdict: Payload) -> str:
    """Return the grade with its range, such as `2 (2-3)`; a dash where nothing can be graded."""
    grade, low, high = verdict["grade"], verdict.get("grade_low"), verdict.get("grade_high")
    if grade is None or low is None:
        return "-" if grade is None else str(grade)
    return f"{grade} ({low}-{high})"


def dose_text(item: Payload) -> str:
    """Return the dose with its unit, empty without a dose."""
    return "" if item["dose"] is None else f"{item['dose']:g} {item['dose_unit'] or ''}".strip()


def name_of(item: Payload) -> str:
    """Return sample and dose of a well or sample."""
    return " ".join(filter(None, (item["sample"], dose_text(item))))


def tell_doses(doses: Payload) -> str:
    """Return in words where along its doses an item becomes toxic (a `records.DoseSummary`)."""
    unit, first, passes = doses["dose_unit"], doses["lowest_toxic"], doses["highest_non_toxic"]
    if first is None and passes is None:
        return "nothing is decided at any dose"
    below = "no dose below it passes"
    if passes is not None:
        below = f"highest dose {'below it ' if first is not None else ''}that passes: {passes:g} {unit}"
    said = (
        "no dose is surely above the limit"
        if first is None
        else f"first dose above the limit: {first:g} {unit}"
    )
    said += f"; {below}"
    if not doses["is_monotone"]:
        said += "; not monotone: a dose above a toxic one passes, look at these wells again"
    return said


RULE_WORDS = {
    "needs_controls": "a final verdict needs valid controls",
    "counts_growth": "growth inhibition and a destroyed layer decide too",
    "counts_lysis": "extensive lysis decides too",
    "decides": "the rule may decide (else wells are graded only)",
    "policy": "how the wells of a sample decide together",
    "grade_limit": "toxic above grade",
    "affected_steps": "largest affected share in grades 0, 1, 2, 3",
    "growth_steps": "largest growth inhibition in grades 0, 1, 2, 3",
    "lysis_steps": "share of lysed cells above which the grade is at least 3, is 4",
    "background_max": "largest affected share of blank and negative wells",
    "destroyed_below": "a layer is destroyed below this share of the controls' living cells",
    "discordant_above": "affected share or growth inhibition that a viability assay calls cytotoxic, above",
    "fields_min": "fewest fields of a well",
    "fields_max": "most fields that are asked for in a well",
    "looks": "numbers of fields at which a well of open size is judged",
    "field_cells_min": "fewest cells of a field that counts toward the number of fields",
    "cells_min": "fewest cells of a well",
    "wells_min": "fewest wells of a test sample",
    "confidence": "confidence of each one-sided decision bound",
    "rho_min": "least correlation of cells within a field that is reckoned with",
    "p_toxic_low": "the second opinion speaks for non-toxic up to",
    "p_toxic_high": "the second opinion speaks for toxic from",
    "negative_grade_max": "highest grade of a valid blank or negative well",
    "positive_grade_min": "lowest grade of a valid positive well",
}
"""What each number of a rule (`analysis.grading.Rule`) means; its id stands beside them."""


def rule_number(name: str, value: object) -> str:
    """Return a number of a rule as people write it: shares in percent, switches as yes or no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return ", ".join(rule_number(name, item) for item in value)
    return f"{100 * value:g} %" if isinstance(value, float) and name != "rho_min" else str(value)
