"""The sections of a report, each from payloads to markup."""

from collections.abc import Sequence

from device.report.figures import dose_response, mark, plate_map
from device.report.markup import Html, join, section, table, tag
from device.report.method import find_rule
from device.report.words import (
    NOT_KNOWN,
    Payload,
    confidence_text,
    explain,
    explain_all,
    grade_text,
    in_percent,
    name_of,
    outcome_name,
    span,
    tell_doses,
)

_POLICIES = {
    "any": "any: toxic if one well is, non-toxic if all are",
    "median": "median: the middle well decides",
    "pooled": "pooled: the cells of all wells together decide",
}


def plate_section(verdicts: Sequence[Payload]) -> Html:
    """Return the plate map."""
    note = "Controls have a dashed frame; test wells show their dose."
    return section("Plate", tag("figure", plate_map(verdicts)), tag("p", note, class_="note"))


def samples_section(plate: Payload, verdicts: Sequence[Payload]) -> Html:
    """Return what the wells of each item and dose give together."""
    titles = ("sample", "role", "wells", "outcome", "grade", "reactivity", "affected", "growth inhibition")
    rows = [
        (
            (
                tag("b", name_of(sample)),
                sample["role"],
                ", ".join(sample["wells"]),
                _outcome(sample["outcome"]),
                _grade_of(sample, verdicts),
                sample["reactivity"] or "-",
                _share(sample["affected_corrected"], sample["bounds"]),
                _share(sample["growth_inhibition"], sample["growth_inhibition_bounds"]),
            ),
            "; ".join(_explain_own(sample["reasons"], plate["reasons"])),
        )
        for sample in plate["samples"]
    ]
    policies = sorted({sample["policy"] for sample in plate["samples"]})
    said = (
        "Wells decide together by the policy "
        + "; ".join(_POLICIES.get(name, name) for name in policies)
        + "."
    )
    shares = (
        "Shares are of all valid wells of a sample together, after Abbott's correction, with decision bounds."
    )
    return section("Samples", tag("p", said), tag("p", shares, class_="note"), table(titles, rows))


def _grade_of(sample: Payload, verdicts: Sequence[Payload]) -> str:
    """Return the grade of a sample; where the worst well decides, with the range of the worst."""
    graded = [v for v in verdicts if v["well"] in sample["wells"] and v["grade_low"] is not None]
    if sample["policy"] != "any" or not graded:
        return grade_text(sample)
    ends = {end: max(verdict[end] for verdict in graded) for end in ("grade_low", "grade_high")}
    return grade_text({**sample, **ends})


def dose_sections(plate: Payload, verdicts: Sequence[Payload]) -> Html | None:
    """Return the dose-response of each item that has doses; None without one."""
    rule = find_rule(plate)
    drawn: list[Html] = []
    for doses in plate["doses"]:
        mine = doses["sample"], doses["dose_unit"]
        same = [s for s in plate["samples"] if (s["sample"], s["dose_unit"]) == mine and s["role"] == "test"]
        wells = [v for v in verdicts if (v["sample"], v["dose_unit"]) == mine and v["role"] == "test"]
        limit = None if rule is None else rule.limit
        caption = tag("p", tag("b", f"{doses['sample']}: "), f"{tell_doses(doses)}.")
        chart = dose_response(wells, same, limit, doses["lowest_toxic"]) if len(same) > 1 else None
        drawn.append(tag("figure", caption, tag("div", chart, class_="chart")))
    key = (
        "Black squares: all valid wells of a dose together; marks: single wells by outcome; open squares: "
        "growth inhibition of the dose; bars: decision bounds, 5 % beyond each end."
    )
    return section("Dose-response", *drawn, tag("p", key, class_="note")) if drawn else None


def controls_section(plate: Payload, verdicts: Sequence[Payload]) -> Html:
    """Return the numbers of the controls, and why they are valid or not."""
    rule, controls = find_rule(plate), [verdict for verdict in verdicts if verdict["role"] != "test"]
    titles = (
        "well",
        "role",
        "sample",
        "fields",
        "cells",
        "affected",
        "95 % interval",
        "grade",
        "as expected",
    )
    rows = []
    for verdict in controls:
        positive, grade = verdict["role"] == "positive", verdict["grade"]
        expected = NOT_KNOWN
        if rule is not None:
            bound = rule.positive_grade_min if positive else rule.negative_grade_max
            fits = grade is not None and (grade >= bound if positive else grade <= bound)
            expected = f"{'yes' if fits else 'NO'} (grade {bound} {'or more' if positive else 'or less'})"
        cells = (verdict["well"], verdict["role"], verdict["sample"], verdict["n_fields"], verdict["n_cells"])
        shares = (in_percent(verdict["affected"]), span(verdict["ci95"]), grade_text(verdict), expected)
        rows.append(((*cells, *shares), ""))
    valid = "Valid." if plate["controls_valid"] else f"Not valid: {explain_all(plate['reasons'])}."
    if not controls:
        valid = "No controls on this plate. " + explain_all(plate["reasons"])
    reference = plate["reference"]
    said = "Without a reference: nothing was subtracted and growth inhibition is not known."
    if reference is not None and reference["n_cells"]:
        said = (
            f"Reference: {reference['n_dead']} of {reference['n_cells']} cells affected "
            f"({in_percent(reference['n_dead'] / reference['n_cells'])}) in wells "
            f"{', '.join(reference['wells'])}; this share is subtracted from every other well."
        )
    return section("Controls", tag("p", valid), tag("p", said), table(titles, rows) if rows else None)


def wells_section(verdicts: Sequence[Payload]) -> Html:
    """Return all numbers of each well."""
    titles = (
        "well",
        "sample",
        "fields",
        "cells",
        "affected",
        "corrected (bounds)",
        "95 % interval",
        "growth inhibition",
        "lysed",
        "grade",
        "confidence",
        "outcome",
    )
    rows = [(_well_row(verdict), _why(verdict)) for verdict in verdicts]
    note = (
        "Fields: accepted / planned. Corrected: after Abbott's correction, with the "
        "one-sided decision bounds. Growth inhibition with its decision bounds. Confidence: probability that "
        "the truth lies on the stated side of the limit."
    )
    return section("Wells", table(titles, rows, numbers=True), tag("p", note, class_="note"))


def _well_row(verdict: Payload) -> tuple[object, ...]:
    planned, refused = verdict["n_fields_planned"], verdict["n_fields_refused"]
    fields = f"{verdict['n_fields']}" + (f" / {planned}" if planned is not None else "")
    return (
        tag("b", verdict["well"]),
        name_of(verdict) + (f" ({verdict['role']})" if verdict["role"] != "test" else ""),
        _lines(fields, f"{refused} refused" if refused else None),
        verdict["n_cells"],
        _lines(in_percent(verdict["affected"]), f"{verdict['n_dead']} cells"),
        _share(verdict["affected_corrected"], verdict["bounds"]),
        span(verdict["ci95"]),
        _share(verdict["growth_inhibition"], verdict["growth_inhibition_bounds"]),
        in_percent(verdict["lysed"]),
        grade_text(verdict),
        confidence_text(verdict["confidence"]),
        _outcome(verdict["outcome"]),
    )


def _why(verdict: Payload) -> str:
    """Return the reasons of a verdict, and what would help or is leaned to where it is undecided."""
    said = _explain_own(verdict["reasons"], verdict["control_faults"])
    if verdict["fields_more"] is not None:
        said.append(f"about {verdict['fields_more']} more fields are expected to decide")
    if verdict["leans_toxic"] is not None:
        said.append(f"the second opinion leans to {'toxic' if verdict['leans_toxic'] else 'non-toxic'}")
    return "; ".join(said)


def _explain_own(codes: Sequence[str], of_plate: Sequence[str]) -> list[str]:
    """Return the meaning of reason codes; those of the plate stand at its head and with its controls."""
    failed = ["the controls of the plate failed, see there"] if of_plate else []
    return failed + [explain(code) for code in codes if code not in of_plate]


def _share(share: float | None, interval: Payload | None) -> Html:
    return _lines(in_percent(share), span(interval) if share is not None else None)


def _lines(first: str, second: str | None) -> Html:
    """Return what stands in a cell, with something more in a line below."""
    return join(first, tag("span", second, class_="span") if second is not None else None)


def _outcome(outcome: str) -> Html:
    shape = tag("svg", mark(outcome, 6, 8, 4.5), viewBox="0 0 12 16", width=12, height=16, class_="inline")
    return tag("span", shape, outcome_name(outcome), class_=f"outcome {outcome}")
