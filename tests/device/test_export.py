"""Claims about `nanotox export`: columns that never change, harmless cells, records that come back."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from device import cli
from device.messages import SCHEMAS
from device.plates import write_table
from device.records import PlateReport, Quality, Reading, SampleVerdict, Verdict
from device.report.table import COLUMNS, IDENTITY, table_rows

GOLDEN = Path(__file__).parent / "data" / "csv-1"
UNTOLD = {
    "readings": {"cells", "tally", "quality", "cell_model", "field_model", "labels", "glimpse", "zoom"},
    "verdicts": {
        *("fields", "reference", "looks", "scale_may_be_assumed", "rule_text", "cell_model", "field_model"),
        *("bounds", "ci95", "lysed_bounds", "growth_inhibition_bounds"),
    },
    "plate": {"rule_text", "samples", "doses", "reference", "n_wells", "bounds", "growth_inhibition_bounds"},
}
"""Fields of the records that a table tells by their parts, or not at all."""


def put(values, path, value):
    *parents, last = path.split(".")
    for name in parents:
        values = values.setdefault(name, {})
    values[last] = value


def made_up(what):
    """Return a payload with another value for each column, so that no two can be taken for each other."""
    values = {}
    for number, path in enumerate(COLUMNS[what]):
        put(values, path, number + 0.5 if number % 3 else f"{path} {number}")
    values |= {"seq": 12, "simulated": True, "operator": None, "reasons": ["BLUR", "NOISY"]}
    return values | {"source": "=cmd|' /C calc'!A0", "sample": 'a "b", c;\nµg', "affected": -0.0}


@pytest.mark.parametrize("what", COLUMNS)
def test_the_columns_of_csv_1_never_change(what, tmp_path):
    values = made_up(what)
    if what == "plate":
        values = {**values, "samples": [values, values], "doses": []}
    write_table(tmp_path / "found.csv", table_rows(what, [values]), quoted=True)
    assert (tmp_path / "found.csv").read_text("utf-8") == (GOLDEN / f"{what}.csv").read_text("utf-8")


@pytest.mark.parametrize(
    ("what", "records"),
    [("readings", (Reading,)), ("verdicts", (Verdict,)), ("plate", (PlateReport, SampleVerdict))],
)
def test_a_new_field_of_a_record_asks_for_a_new_form(what, records):
    told = {path.split(".")[0] for path in COLUMNS[what]} | UNTOLD[what]
    assert {field.name for record in records for field in dataclasses.fields(record)} <= told


def test_a_new_measure_of_quality_asks_for_a_new_form():
    told = {path.split(".")[1] for path in COLUMNS["readings"] if path.startswith("quality.")}
    assert {field.name for field in dataclasses.fields(Quality)} == told


def test_every_column_is_there_in_what_is_published(judged_plate):
    plate, verdicts, readings = judged_plate()
    doses = {**plate["samples"][2], **plate["doses"][0], "plate_reasons": []}
    published = {"plate": plate | doses, "verdicts": verdicts[2], "readings": readings[0]}
    for what, values in published.items():
        for path in set(COLUMNS[what]) - set(IDENTITY):
            found = values
            for name in path.split("."):
                if found is None:  # no field model
                    break
                assert name in found, path
                found = found[name]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@sum", "\t=1", "\r=1"])
def test_no_spreadsheet_runs_a_name(text, judged_plate):
    _, verdicts, _ = judged_plate()
    header, row = table_rows("verdicts", [{**verdicts[0], "sample": text, "affected": -0.25}])
    values = dict(zip(header, row, strict=True))
    assert values["sample"] == f"'{text}"
    assert values["affected"] == "-0.25"  # a number is no text


@pytest.fixture
def source(judged_plate, tmp_path):
    plate, verdicts, readings = judged_plate()
    schemas = ["reading/1"] * len(readings) + ["verdict/1"] * len(verdicts) + ["plate/1"]
    lines = [{"schema": s, **v} for s, v in zip(schemas, [*readings, *verdicts, plate], strict=True)]
    path = tmp_path / "plate.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def export(source, out, *options):
    return cli.main(["export", str(source), "--out", str(out), *options])


@pytest.mark.parametrize(("what", "n_rows"), [("readings", 110), ("verdicts", 11), ("plate", 5)])
def test_a_table_has_a_row_for_each_record_and_sample(source, tmp_path, what, n_rows):
    assert export(source, tmp_path / "t.csv", "--what", what, "--form", "csv/1") == 0
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == n_rows
    assert {row["form"] for row in rows} == {f"{what}-csv/1"}
    assert not list(tmp_path.glob("*.partial"))


def test_json_lines_are_the_records_themselves_and_can_be_exported_again(source, tmp_path):
    assert export(source, tmp_path / "v.jsonl", "--what", "verdicts", "--form", "jsonl/1") == 0
    records = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    found = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text("utf-8").splitlines()]
    assert found == [record for record in records if record["schema"] == "verdict/1"]
    assert export(tmp_path / "v.jsonl", tmp_path / "w.jsonl", "--what", "verdicts", "--form", "jsonl/1") == 0
    assert (tmp_path / "w.jsonl").read_bytes() == (tmp_path / "v.jsonl").read_bytes()


def test_a_form_that_is_not_known_is_refused_by_its_schema_number(source, tmp_path, capsys):
    source.write_text('{"schema": "verdict/9", "well": "A1"}\n', "utf-8")
    assert "verdict/9" not in SCHEMAS
    assert export(source, tmp_path / "t.csv", "--what", "verdicts", "--form", "csv/1") == 2
    assert "verdict/9" in capsys.readouterr().err
    assert not (tmp_path / "t.csv").exists()


def test_a_place_that_cannot_be_written_is_said(source, tmp_path, capsys):
    assert export(source, tmp_path / "no" / "t.csv", "--what", "plate", "--form", "csv/1") == 2
    assert "expected a folder with rights" in capsys.readouterr().err
