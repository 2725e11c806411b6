"""Claims about `nanotox grade`: what it prints, where, and how it exits."""

import csv
import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from device import cli
from device.analysis.assess import AnalysisSettings
from device.fields import FieldResult
from device.records import Reason

WELLS = {
    "A1": ("medium", "blank", "", "", 0.03),
    "A2": ("ZDEC", "positive", "", "", 0.9),
    **{f"B{i}": ("low", "test", "1", "%", 0.1) for i in (1, 2, 3)},
    **{f"C{i}": ("high", "test", "100", "%", 0.8) for i in (1, 2, 3)},
}


@pytest.fixture
def plate(tmp_path):
    """Folder with ten files a well and plate.csv, whose fields need no pixels because `reader` stands in."""
    rows = ["file,well,sample,role,dose,dose_unit"]
    for well, (sample, role, dose, unit, _) in WELLS.items():
        (tmp_path / well).mkdir()
        for i in range(10):
            (tmp_path / well / f"{i}.png").touch()
        rows.append(f"{well}/*.png,{well},{sample},{role},{dose},{unit}")
    (tmp_path / "plate.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return tmp_path


@pytest.fixture
def reader(monkeypatch, make_reading):
    """Readings by the plan of the plate instead of by images; `unlike` changes those of single files."""
    unlike = {}

    def read(files):
        for file in files:
            other = unlike.get((file.well, file.field), {})
            if "error" in other:
                yield FieldResult(file, None, other["error"])
                continue
            dead = round(60 * WELLS[file.well][4])
            cells = (60 - dead + file.field % 3, dead)
            yield FieldResult(file, make_reading(*cells, well=file.well, field=file.field, **other), None)

    fake = SimpleNamespace(settings=AnalysisSettings("adherent", "phase"), read=read)
    monkeypatch.setattr("device.fields.open_reader", lambda _request, _folders: fake)
    return unlike


def grade(plate, *options):
    return cli.main(
        ["grade", str(plate), "--plate", str(plate / "plate.csv"), "--um-per-px", "0.65", *options]
    )


def test_wells_controls_and_samples_are_told_in_a_table(plate, reader, capsys):
    assert grade(plate) == 0
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert "non_toxic" in rows["B1"]
    assert "4 (4-4)" in rows["C1"]
    assert rows["C1"].split()[3:5] == ["100", "%"]
    assert "10/10" in rows["A1"]
    assert "controls valid; rule iso10993-5-extract/1" in out
    assert "sample low 1 % (test, 3 wells): non_toxic, grade 1 (slight)" in out
    assert "sample high 100 % (test, 3 wells): toxic, grade 4 (severe)" in out
    assert "doses of low: no dose is surely above the limit; highest dose that passes: 1 %" in out
    assert "doses of high: first dose above the limit: 100 %; no dose below it passes" in out
    assert re.search(r"^decision [0-9a-f]{64}$", out, re.MULTILINE)
    assert "sample medium (blank, 1 well): non_toxic" in out
    assert "for research use only" in out
    assert err == ""


def test_json_is_one_object_a_line_wells_first_and_the_plate_last(plate, reader, capsys):
    assert grade(plate, "--json") == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["schema"] for record in records] == ["verdict/1"] * len(WELLS) + ["plate/1"]
    assert [record["well"] for record in records[:-1]] == list(WELLS)
    assert all(record["research_use_only"] for record in records)
    assert all(record["stage"] == "final" for record in records[:-1])
    outcomes = [sample["outcome"] for sample in records[-1]["samples"]]
    assert outcomes == ["non_toxic", "toxic"] * 2


def test_toxic_fails_only_where_that_was_asked_for(plate, reader):
    assert grade(plate, "--fail-on", "toxic") == 4
    reader.update(
        {(well, i): {"refused_by": (Reason.BLUR,)} for well in ("C1", "C2", "C3") for i in range(10)}
    )
    assert grade(plate, "--fail-on", "toxic") == 3


def test_a_toxic_positive_control_is_no_reason_to_fail(plate, reader):
    lines = [line for line in (plate / "plate.csv").read_text().splitlines() if "high" not in line]
    (plate / "plate.csv").write_text("\n".join(lines) + "\n")
    assert grade(plate, "--fail-on", "toxic") == 0


def test_refused_fields_are_named_with_the_reason_on_stderr(plate, reader, capsys):
    reader["B1", 2] = {"refused_by": (Reason.BLUR, Reason.FLAT_IMAGE)}
    assert grade(plate) == 3
    out, err = capsys.readouterr()
    assert err == f"well B1: {plate}/B1/2.png: refused: BLUR, FLAT_IMAGE\n"
    assert "9/10" in out


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_graded(plate, reader, capsys):
    reader["B1", 0] = {"error": "it is cut off; expected a whole PNG"}
    reader["B1", 1] = {"refused_by": (Reason.BLUR,)}
    assert grade(plate) == 1
    out, err = capsys.readouterr()
    assert f"well B1: {plate}/B1/0.png: unreadable: it is cut off" in err
    assert "sample low 1 % (test, 3 wells): non_toxic" in out


def test_failed_controls_are_said_and_nothing_is_non_toxic(plate, reader, capsys):
    reader.update({("A2", i): {"refused_by": (Reason.BLUR,)} for i in range(10)})
    assert grade(plate, "--fail-on", "toxic") == 3
    out, _ = capsys.readouterr()
    assert "controls not valid: POS_CONTROL_FAILED" in out
    assert "non_toxic" not in out


def test_the_rule_may_be_named_and_an_unknown_one_lists_the_known(plate, reader, capsys):
    assert grade(plate, "--rule", "viability-70/1", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["rule"] == "viability-70/1"
    assert grade(plate, "--rule", "none/1") == 2
    message = "expected one of iso10993-5-extract/1, usp87/1, viability-70/1, paper-2020/1"
    assert message in capsys.readouterr().err


def test_a_rule_of_the_labs_own_stands_in_every_verdict(plate, reader, capsys):
    (plate / "strict.toml").write_text(
        'id = "our-lab/1"\nbased_on = "iso10993-5-extract/1"\ngrade_limit = 1\n'
    )
    assert grade(plate, "--rule", str(plate / "strict.toml"), "--operator", "J. Doe", "--json") == 0
    *verdicts, report = map(json.loads, capsys.readouterr().out.splitlines())
    assert {verdict["rule"] for verdict in verdicts} == {"our-lab/1"}
    assert json.loads(report["rule_text"])["grade_limit"] == 1
    assert report["operator"] == "J. Doe"


def test_reason_codes_are_explained_below_the_table(plate, reader, capsys):
    reader.update({("A2", i): {"refused_by": (Reason.BLUR,)} for i in range(10)})
    assert grade(plate) == 3
    assert (
        "\nPOS_CONTROL_FAILED: the positive control is missing, unreadable, or shows"
        in capsys.readouterr().out
    )


def test_the_table_for_a_lims_has_a_row_a_well(plate, reader):
    assert grade(plate, "--csv", str(plate / "wells.csv")) == 0
    with (plate / "wells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["well"] for row in rows] == list(WELLS)
    assert {row["form"] for row in rows} == {"verdicts-csv/1"}


def test_a_plate_with_faults_is_a_usage_error_that_lists_them(plate, reader, capsys):
    (plate / "plate.csv").write_text("file,well,sample,role\nA1/*.png,A1,x,tset\nnone.png,,x,test\n")
    assert grade(plate) == 2
    err = capsys.readouterr().err
    assert "line 2: role is 'tset'" in err
    assert "line 3: well is ''" in err


def test_files_that_the_plate_names_must_be_there(plate, reader, capsys):
    (plate / "plate.csv").write_text("file,well,sample,role\nD9/*.png,D9,x,test\n")
    assert grade(plate) == 2
    assert "no file D9/*.png in" in capsys.readouterr().err


def test_without_a_scale_nothing_is_graded(plate, capsys):
    code = cli.main(["grade", str(plate), "--plate", str(plate / "plate.csv"), "--assay", "adherent"])
    assert code == 2
    assert "expected --um-per-px X" in capsys.readouterr().err


def test_real_files_go_the_way_of_every_frame_and_the_papers_method_decides_nothing(tmp_path, capsys):
    rng = np.random.default_rng(5)
    for i in range(5):
        image = cv2.GaussianBlur(rng.integers(60, 200, (120, 160)).astype(np.uint8), (0, 0), 1.5)
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    (tmp_path / "plate.csv").write_text("file,well,sample,role\n*.png,A1,x,test\n")
    options = ("--method", "paper", "--assay", "suspension", "--modality", "brightfield", "--json")
    assert grade(tmp_path, *options, "--report", str(tmp_path / "plate.html")) in (0, 3)
    verdict, report = map(json.loads, capsys.readouterr().out.splitlines())
    assert verdict["outcome"] in ("inconclusive", "invalid")
    assert verdict["n_fields"] + verdict["n_fields_refused"] == 5
    assert verdict["um_per_px_source"] in ("measured", None)
    assert report["samples"][0]["outcome"] in ("inconclusive", "invalid")
    page = (tmp_path / "plate.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == (verdict["n_fields"] > 0)
    assert verdict["outcome"] in page
