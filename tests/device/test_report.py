"""Claims about the report of a plate: it holds all that was found, alone, in words and on paper."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from device.analysis.grading import EXTRACT, Rule
from device.records import Outcome, Reason
from device.report import pick_fields, render_report, words
from device.report.figures import dose_response, plate_map
from device.report.markup import tag

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'&</style></svg>"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser makes of a file: balanced elements, visible text, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.shown, self.scripts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.shown.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.shown).split())


def render(plate, verdicts, readings, pictures=None):
    options = {"version": "9.9", "written_at": "2026-03-02T09:00:00.000Z"}
    return render_report(plate, verdicts, readings, pictures or {}, **options)


@pytest.fixture(scope="module")
def page(judged_plate):
    return Page(render(*judged_plate(), {"B1": b"jpeg"}))


@pytest.mark.parametrize(
    "said",
    [
        "Plate p7", "J. Doe", "none: graded from image files", "2026-03-02T08:00:00.000Z", "nanotox 9.9",
        "research use only", "3 test items and doses: 1 toxic, 2 non-toxic.", "The controls are valid.",
        "silver: first dose above the limit: 100 ug/mL; highest dose below it that passes: 10 ug/mL",
        "silver 100 ug/mL", "severe", "any: toxic if one well is", "first toxic dose", "limit 50 %",
        "Reference: 29 of 620 cells affected (4.7 %) in wells A1", "yes (grade 1 or less)",
        "yes (grade 3 or more)", "9 / 10 1 refused", "BLUR: out of focus", "focus (Laplacian)",
        "of 109 accepted fields", "Well B1, field 1", "iso10993-5-extract/1", "phase-cell, on the trust list",
        "0.65 um a pixel, measured", "adherent", "phase", "hybrid", "Abbott 1925", "ISO 10993-5:2009",
        "fewest fields of a well 5", "5 %, 20 %, 50 %, 70 %", "nanotox audit reproduce",
    ],
)  # fmt: skip
def test_all_that_was_found_stands_in_it(page, said):
    assert said in page.text


def test_the_numbers_of_each_well_and_sample_stand_in_it(judged_plate):
    plate, verdicts, readings = judged_plate()
    text = Page(render(plate, verdicts, readings)).text
    for verdict in verdicts:
        assert words.in_percent(verdict["affected"]) in text
        assert words.in_percent(verdict["affected_corrected"]) in text
        assert words.span(verdict["bounds"]) in text
        assert words.span(verdict["ci95"]) in text
        assert words.grade_text(verdict) in text
    for sample in plate["samples"]:
        assert words.span(sample["bounds"]) in text
    assert plate["decision_sha256"] in text
    assert plate["rule_sha256"] in text
    assert verdicts[0]["cell_model"]["sha256"] in text


def test_it_needs_nothing_but_itself(judged_plate):
    text = render(*judged_plate(), {"B1": b"jpeg"})
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    page = Page(text)
    assert [a for name, a in page.elements if name in ("link", "iframe", "object")] == []
    assert [a["src"] for name, a in page.elements if name == "img"] == ["data:image/jpeg;base64,anBlZw=="]
    assert [a["type"] for name, a in page.elements if name == "script"] == ["application/json"]


def test_it_prints_without_cutting_tables_or_figures(judged_plate):
    text = render(*judged_plate())
    assert "size: A4" in text
    assert "@media print" in text
    assert "break-inside: avoid" in text
    assert "table-header-group" in text


def test_what_people_wrote_is_text_and_never_markup(judged_plate):
    plate, verdicts, readings = judged_plate(sample=HOSTILE, operator=HOSTILE, name=HOSTILE)
    for values in (*verdicts, *readings):
        values["source"] = values["assay"] = values["outcome"] = HOSTILE
    verdicts[2]["reasons"] = verdicts[2]["refused_by"] = [HOSTILE]
    verdicts[3]["well"] = readings[30]["well"] = HOSTILE
    plate["station"] = plate["site"] = plate["rule"] = plate["samples"][0]["policy"] = HOSTILE
    page = Page(render(plate, verdicts, readings, {"B1": b"jpeg", HOSTILE: b"jpeg"}))
    assert [a["type"] for name, a in page.elements if name == "script"] == ["application/json"]
    assert not [a for name, a in page.elements if name == "img" and a["src"] == "x"]
    assert not [key for _, a in page.elements for key in a if key.startswith("on")]
    assert HOSTILE in page.text
    lines = [json.loads(line) for line in page.scripts[0].splitlines()]
    assert lines == [*verdicts, plate]


def test_every_reason_code_is_followed_by_its_meaning(judged_plate):
    plate, verdicts, readings = judged_plate({"A2": 0.1, "C1": 0.5})
    for verdict, code in zip(verdicts * 4, Reason, strict=False):
        verdict["reasons"] = [*verdict["reasons"], code.value]
    text = Page(render(plate, verdicts, readings)).text
    for code in Reason:
        starts = [m.end() for m in re.finditer(rf"\b{code}\b", text)]
        assert starts
        assert all(text[end:].startswith(f": {words.REASON_WORDS[code]}") for end in starts), code


def test_failed_controls_are_said_first_and_in_words(judged_plate):
    page = Page(render(*judged_plate({"A2": 0.1})))
    assert "The controls are not valid, and nothing is decided. POS_CONTROL_FAILED: the positive" in page.text
    assert "NO (grade 3 or more)" in page.text
    assert "3 invalid" in page.text
    assert "silver: nothing is decided at any dose" in page.text
    # once at the head and once with the controls, not again at every well and sample
    assert page.text.count("POS_CONTROL_FAILED") == 2
    assert page.text.count("the controls of the plate failed, see there") == 11 + 5


def test_a_plate_without_controls_has_no_reference(judged_plate):
    text = Page(render(*judged_plate(controls=False))).text
    assert "No controls on this plate. NO_CONTROL_REFERENCE: no usable blank or negative control" in text
    assert "growth inhibition is not known" in text


def test_a_dose_that_passes_above_a_toxic_one_is_said(judged_plate):
    plate, verdicts, readings = judged_plate(
        {f"B{i}": 0.8 for i in (1, 2, 3)} | {f"D{i}": 0.05 for i in (1, 2, 3)}
    )
    text = Page(render(plate, verdicts, readings)).text
    assert "first dose above the limit: 1 ug/mL; no dose below it passes; not monotone" in text


def test_what_is_not_known_is_said(judged_plate):
    plate, verdicts, _ = judged_plate()
    for verdict in verdicts:
        verdict |= {"bounds": {"low": 0.0, "high": 1.0}, "affected": None, "ci95": None, "um_per_px": None}
    for sample in plate["samples"]:
        sample |= {"growth_inhibition": None, "growth_inhibition_bounds": None}
    text = Page(render(plate | {"decision_sha256": None}, verdicts, [])).text
    assert "unknown" in text
    assert "0.0-100.0 %" not in text
    assert "decision not known" in text
    assert "scale not known" in text
    assert "This source holds no readings" in text


def test_what_would_help_an_undecided_well_is_said(judged_plate):
    plate, verdicts, readings = judged_plate()
    verdicts[4] |= {"fields_more": 3, "leans_toxic": False}
    text = Page(render(plate, verdicts, readings)).text
    assert "about 3 more fields are expected to decide; the second opinion leans to non-toxic" in text


def test_simulated_images_are_said_at_the_top(judged_plate):
    plate, verdicts, readings = judged_plate()
    assert "says nothing about any real item" not in render(plate, verdicts, readings)
    assert "says nothing about any real item" in render(plate | {"simulated": True}, verdicts, readings)


def test_a_rule_that_this_version_does_not_know_shows_no_numbers(judged_plate):
    plate, verdicts, readings = judged_plate()
    text = Page(render(plate | {"rule_sha256": "0" * 64}, verdicts, readings)).text
    assert "numbers of rule iso10993-5-extract/1 are not known" in text
    assert "fewest fields of a well" not in text
    assert "limit 50 %" not in text


def test_outcomes_differ_by_shape_and_word(judged_plate):
    _, verdicts, _ = judged_plate()
    shapes = {}
    for outcome in Outcome:
        drawn = plate_map([{**verdicts[0], "well": "any name", "outcome": outcome.value}])
        assert words.outcome_name(outcome) in Page(drawn).text
        shapes[outcome] = re.sub(
            r'(fill|stroke)="#\w+"', "", re.findall(r"<(?:polygon|circle|path).*?>", drawn)[0]
        )
    assert len(set(shapes.values())) == len(Outcome)


@pytest.mark.parametrize(
    ("names", "last_row", "n_empty"),
    [
        (["A1", "B03", "D6"], "D", 24 - 3),
        (["A01", "H12"], "H", 96 - 2),
        (["A1", "A01"], None, 0),  # one place, two names: in rows
        (["A1", "J4"], None, 0),
        (["dish-1"], None, 0),
    ],
)
def test_wells_lie_where_their_names_say(judged_plate, names, last_row, n_empty):
    _, verdicts, _ = judged_plate()
    drawn = plate_map([{**verdicts[0], "well": name, "outcome": "toxic"} for name in names])
    shown = Page(drawn).shown
    assert all(name in shown for name in names)
    assert (last_row in shown) if last_row else ("A" not in shown)
    assert drawn.count("<circle") == n_empty


def test_doses_stand_on_a_logarithmic_axis(judged_plate):
    plate, verdicts, _ = judged_plate()
    samples = [sample for sample in plate["samples"] if sample["role"] == "test"]
    drawn = dose_response(verdicts[2:], samples, 0.5, 100.0)
    at = [float(re.search(rf'<text x="([\d.]+)"[^>]*>{dose}</text>', drawn)[1]) for dose in (1, 10, 100)]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=0.1)
    zero = [{**samples[0], "dose": 0.0}, *samples]
    drawn = dose_response(verdicts[2:], zero, 0.5, None)
    assert float(re.search(r'<text x="([\d.]+)"[^>]*>0</text>', drawn)[1]) < at[0]
    assert "first toxic dose" not in drawn


def test_the_field_shown_is_the_one_most_like_its_well(judged_plate):
    _, verdicts, readings = judged_plate()
    chosen = pick_fields(verdicts, readings)
    for verdict in verdicts:
        mine = [r for r in readings if r["well"] == verdict["well"] and r["quality"]["passed"]]
        nearest = min(abs(r["affected"] - verdict["affected"]) for r in mine)
        shown = chosen[verdict["well"]]
        assert shown["quality"]["passed"]
        assert abs(shown["affected"] - verdict["affected"]) == nearest


def test_every_outcome_reason_and_number_of_a_rule_has_words():
    assert set(words.REASON_WORDS) == set(Reason)
    assert set(words.OUTCOME_WORDS) == set(Outcome)
    assert set(words.RULE_WORDS) == {field.name for field in dataclasses.fields(Rule)} - {"id"}
    assert words.rule_number("rho_min", EXTRACT.rho_min) == "0.02"
    assert words.explain("NEW_CODE") == "NEW_CODE: not known to this version of nanotox"


def test_the_page_on_verdicts_says_the_same_words():
    page = (Path(__file__).parents[2] / "docs" / "verdicts.md").read_text("utf-8")
    for code, meaning in words.REASON_WORDS.items():
        assert f"| `{code}` | {meaning} |" in page, code
    assert all(f"| `{outcome}` |" in page for outcome in Outcome)


def test_only_markup_made_here_is_markup():
    assert tag("b", "<i>", tag("i", None, 1.50)) == "<b>&lt;i&gt;<i>1.5</i></b>"
    assert tag("a", title='"', x_y=0.126, none=None) == '<a title="&quot;" x-y="0.13"></a>'
