"""The report of a plate: one HTML file, made of payloads alone, that prints well and needs nothing else."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from device.report import method, sections
from device.report.figures import mark
from device.report.markup import Html, fact_table, join, tag
from device.report.words import OUTCOME_WORDS, Payload, explain_all, name_of, outcome_name, tell_doses

_RESEARCH = "For research use only: not for diagnosis and not for the release of a product."


def pick_fields(verdicts: Iterable[Payload], readings: Iterable[Payload]) -> dict[str, Payload]:
    """Return the reading of each well that stands for it: accepted, its affected share nearest the well's.

    A well without an accepted reading is left out.
    """
    shares = {verdict["well"]: verdict["affected"] or 0.0 for verdict in verdicts}
    best: dict[str, tuple[float, Payload]] = {}
    for reading in readings:
        well = reading["well"]
        if well not in shares or not reading["quality"]["passed"]:
            continue
        apart = abs((reading["affected"] or 0.0) - shares[well])
        if well not in best or apart < best[well][0]:
            best[well] = apart, reading
    return {well: reading for well, (_, reading) in best.items()}


def render_report(
    plate: Payload,
    verdicts: Sequence[Payload],
    readings: Sequence[Payload],
    pictures: Mapping[str, bytes],
    *,
    version: str,
    written_at: str,
) -> str:
    """Return the report of a finished plate as one HTML file.

    Parameters
    ----------
    plate, verdicts, readings : payload, sequences of payloads
        The plate's report, its final verdicts in the order of the plate, and its readings, none where the
        source has none. As published, with or without their identity.
    pictures : mapping of well to bytes
        JPEG file with the overlay of the field that `pick_fields` gives for a well.
    version : str
        Of nanotox, which writes the report.
    written_at : str
        RFC 3339 time.
    """
    title = f"Plate {plate['plate']}"
    style = tag("style", Html((files("device.report") / "page.css").read_text("utf-8")))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} - nanotox report"),
        style,
    )
    body = tag(
        "body",
        _heading(title, plate, verdicts, readings, f"{written_at} by nanotox {version}"),
        sections.plate_section(verdicts),
        sections.samples_section(plate, verdicts),
        sections.dose_sections(plate, verdicts),
        sections.controls_section(plate, verdicts),
        sections.wells_section(verdicts),
        method.quality_section(verdicts, readings),
        method.pictures_section(pick_fields(verdicts, readings), pictures),
        method.method_section(plate, verdicts),
        method.recompute_section(plate, verdicts),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _heading(
    title: str, plate: Payload, verdicts: Sequence[Payload], readings: Sequence[Payload], written: str
) -> Html:
    times = sorted(reading["taken_at"] for reading in readings)
    identity = next((item for item in (plate, *verdicts, *readings) if item.get("station")), None)
    facts = {
        "operator": plate.get("operator") or "not stated",
        "station": f"{identity['site']}/{identity['station']}"
        if identity
        else "none: graded from image files",
        "images taken or read": f"{times[0]} to {times[-1]}" if times else "times are not in this source",
        "plate finished": plate.get("ts"),
        "report written": written,
        "wells": plate["n_wells"],
        "rule": plate["rule"],
        "decision": method.hash_of(plate.get("decision_sha256")),
    }
    simulated = (
        "Simulated images: this plate says nothing about any real item." if plate["simulated"] else None
    )
    return join(
        tag("h1", title),
        tag("p", _RESEARCH, class_="banner"),
        tag("p", simulated, class_="banner") if simulated else None,
        tag("div", *(tag("p", line) for line in _summary(plate)), class_="summary"),
        fact_table({name: value for name, value in facts.items() if value is not None}),
        tag("p", *_legend(), class_="note"),
    )


def _summary(plate: Payload) -> list[str]:
    """Return in words what came out: of test items, of controls, and where doses become toxic."""
    tested = [sample for sample in plate["samples"] if sample["role"] == "test"]
    counts = Counter(sample["outcome"] for sample in tested)
    said = ", ".join(
        f"{counts[outcome]} {outcome_name(outcome)}" for outcome in OUTCOME_WORDS if counts[outcome]
    )
    noun = "item and dose" if len(tested) == 1 else "items and doses"
    lines = [f"{len(tested)} test {noun}: {said}." if tested else "No test item on this plate."]
    lines += [f"{doses['sample']}: {tell_doses(doses)}." for doses in plate.get("doses", ())]
    if not plate.get("doses"):
        lines += [f"{name_of(sample)}: {outcome_name(sample['outcome'])}." for sample in tested[:12]]
    if plate["controls_valid"]:
        lines.append("The controls are valid." if plate["reference"] else "No controls were needed.")
    else:
        lines.append(f"The controls are not valid, and nothing is decided. {explain_all(plate['reasons'])}.")
    return lines


def _legend() -> list[Html]:
    return [
        join(
            tag("svg", mark(outcome, 7, 8, 5), viewBox="0 0 14 16", width=14, height=16, class_="inline"),
            tag("b", outcome_name(outcome)),
            f": {words}. ",
        )
        for outcome, words in OUTCOME_WORDS.items()
    ]
