"""How a report came about: image quality, the fields themselves, the method, and how to judge it again."""

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from device.analysis.grading import Rule
from device.messages.recompute import rule_of
from device.report.markup import Html, fact_table, join, section, table, tag
from device.report.words import NOT_KNOWN, RULE_WORDS, Payload, explain, explain_all, in_percent, rule_number

_SCALES = {"measured": "measured", "published": "as published", "assumed": "assumed, not measured"}
RANGES = {
    "focus_laplacian": "focus (Laplacian)",
    "focus_tenengrad": "focus (Tenengrad)",
    "focus_slope": "focus (spectral slope)",
    "level": "median gray, 0 to 1",
    "flatness": "unevenness of light",
    "contrast": "contrast",
    "noise": "noise",
}
"""What the quality section tells of accepted fields, by the name in `records.Quality`."""
_FORMULAS = (
    "The affected share of a well is its rounded and lysed cells over all its cells; the share p0 of the "
    "blank and negative wells is subtracted by Abbott's formula (p - p0) / (1 - p0) (Abbott 1925), and "
    "its bounds are Wilson's (1927) with Student's t over the fields and the number of cells divided by "
    "the design effect of cells that lie together in fields (ratio estimator, Cochran 1977). Growth "
    "inhibition is 1 minus living cells per area over those of the blank and negative wells, with Welch's "
    "interval of the logarithm of the ratio; grades follow the extract table of ISO 10993-5:2009, a value "
    "on a limit in the lower grade."
)
_NO_READINGS = "This source holds no readings: focus, light and flags of single fields are not in it."


def hash_of(value: str | None) -> Html:
    """Return a SHA-256 as it stands in a report."""
    return tag("span", value or NOT_KNOWN, class_="hash")


def find_rule(plate: Payload) -> Rule | None:
    """Return the rule of a plate, None if this version of nanotox does not know it."""
    try:
        return rule_of(plate)
    except ValueError:
        return None


def quality_section(verdicts: Sequence[Payload], readings: Sequence[Payload]) -> Html:
    """Return refused fields by reason and well, flags, and the ranges of focus and light."""
    refused = [
        (verdict["well"], verdict["n_fields_refused"], explain_all(verdict["refused_by"]))
        for verdict in verdicts
        if verdict["n_fields_refused"]
    ]
    parts: list[object] = [tag("p", "No field was refused.") if not refused else None]
    if refused:
        parts.append(table(("well", "fields refused", "why"), [(row, "") for row in refused]))
    if not readings:
        return section("Image quality", *parts, tag("p", _NO_READINGS, class_="note"))
    by_reason: dict[tuple[str, str], set[str]] = defaultdict(set)
    times: dict[tuple[str, str], int] = defaultdict(int)
    for reading in readings:
        for effect, codes in (
            ("refused", reading["quality"]["refused_by"]),
            ("flag", reading["quality"]["flags"]),
        ):
            for code in codes:
                by_reason[effect, code].add(str(reading["well"]))
                times[effect, code] += 1
    if times:
        rows = [
            ((effect, explain(code), times[effect, code], ", ".join(sorted(by_reason[effect, code]))), "")
            for effect, code in sorted(times, reverse=True)
        ]
        parts.append(table(("effect", "reason", "fields", "wells"), rows))
    accepted = [reading["quality"] for reading in readings if reading["quality"]["passed"]]
    ranges = [
        ((words, *(f"{value:.3g}" for value in (min(known), median(known), max(known)))), "")
        for name, words in RANGES.items()
        if (known := [quality[name] for quality in accepted if quality.get(name) is not None])
    ]
    titles = (f"of {len(accepted)} accepted fields", "lowest", "median", "highest")
    return section("Image quality", *parts, table(titles, ranges) if ranges else None)


def pictures_section(chosen: Mapping[str, Payload], pictures: Mapping[str, bytes]) -> Html | None:
    """Return one field a well with its cells marked; None without pictures."""
    figures = []
    for well, reading in chosen.items():
        if well not in pictures:
            continue
        counts = f"{reading['n_live']} live, {reading['n_dead']} affected, {reading['n_other']} other"
        caption = (
            f"Well {well}, field {reading['field']}: {counts}; {in_percent(reading['affected'])} affected"
        )
        source = "data:image/jpeg;base64," + base64.b64encode(pictures[well]).decode()
        figures.append(
            tag(
                "figure",
                tag("img", src=source, alt=caption),
                tag("figcaption", caption, tag("br"), reading["source"]),
            )
        )
    note = (
        "Of each well the accepted field whose affected share is nearest that of the well. Circle: live; "
        "cross: rounded or dead; square: lysed; outline alone: no cell. The bar is drawn where the scale is "
        "known."
    )
    shown = tag("div", *figures, class_="pictures")
    return section("Fields", tag("p", note, class_="note"), shown) if figures else None


def method_section(plate: Payload, verdicts: Sequence[Payload]) -> Html:
    """Return by what rule, model, scale and method the plate was judged."""
    rule = find_rule(plate)
    facts: dict[str, object] = {"rule": join(plate["rule"], ", SHA-256 ", hash_of(plate["rule_sha256"]))}
    for model in ("cell_model", "field_model"):
        said = _distinct(verdict[model] for verdict in verdicts)
        models = [_model(values) for values in said if values is not None]
        facts[model.replace("_", " ")] = join(*models) if models else "none"
    scales = _distinct((verdict["um_per_px"], verdict["um_per_px_source"]) for verdict in verdicts)
    facts["scale"] = "; ".join(
        f"{value:g} um a pixel, {_SCALES.get(source, source)}" if value else NOT_KNOWN
        for value, source in scales
    )
    used = _distinct(name for verdict in verdicts for name in verdict["calibrations"])
    facts["calibrations"] = ", ".join(used) or "none was kept"
    for name in ("assay", "modality", "method"):
        facts[name] = ", ".join(map(str, _distinct(verdict[name] for verdict in verdicts)))
    rho = [verdict["rho"] for verdict in verdicts if verdict.get("rho") is not None]
    if rho:
        facts["correlation of cells within a field"] = f"median {median(rho):.3f} over {len(rho)} wells"
    parts: list[object] = [fact_table(facts), tag("p", _FORMULAS)]
    if rule is None:
        parts.append(
            tag("p", f"The numbers of rule {plate['rule']} are not known to this version of nanotox.")
        )
    else:
        parts.append(tag("h3", f"Rule {plate['rule']} in numbers"))
        parts.append(
            fact_table({words: rule_number(name, getattr(rule, name)) for name, words in RULE_WORDS.items()})
        )
    return section("Method", *parts)


def recompute_section(plate: Payload, verdicts: Sequence[Payload]) -> Html:
    """Return the complete records as JSON lines, and the commands that judge them again."""
    # "<" as an escape of JSON, so that no name in it can end the element
    lines = "\n".join(
        json.dumps(item, allow_nan=False).replace("<", "\\u003c") for item in (*verdicts, plate)
    )
    commands = (
        "nanotox audit reproduce REPORT.html\n"
        "nanotox audit reproduce journal.db --frames frames/ --config station.toml\n"
        "nanotox export REPORT.html --what verdicts --form csv/1 --out verdicts.csv"
    )
    said = (
        "This file holds the complete records of its verdicts. The first command judges each again from its "
        "own numbers; the second reads the kept images again as well, where a station kept them."
    )
    data = tag("script", Html(lines), type="application/json", id="records")
    return section("To recompute", tag("p", said), tag("pre", commands), data)


def _model(values: Mapping[str, Any]) -> Html:
    trusted = "on the trust list" if values["trusted"] else "NOT on the trust list"
    return tag("div", f"{values['name']}, {trusted}, SHA-256 ", hash_of(values["sha256"]))


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
