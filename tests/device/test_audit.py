"""Claims about `nanotox audit reproduce`: what was published follows from its numbers and kept frames."""

import json

import cv2
import pytest

from device import cli
from device.journal.read import read_records
from device.messages import LEAVES


def audit(source, *options):
    return cli.main(["audit", "reproduce", str(source), *map(str, options)])


@pytest.fixture
def lines(judged_plate, tmp_path):
    """A function that writes a judged plate as `grade --json` does, each record changed by `change`."""

    def write(change=lambda values: values, *, readings=()):
        plate, verdicts, _ = judged_plate()
        records = [{"schema": LEAVES["reading"], **r} for r in readings]
        records += [{"schema": LEAVES["verdict"], **v} for v in verdicts]
        records.append({"schema": LEAVES["plate"], **plate})
        path = tmp_path / "plate.jsonl"
        path.write_text("".join(json.dumps(change(values)) + "\n" for values in records), "utf-8")
        return path

    return write


def test_every_verdict_and_plate_follows_from_its_own_numbers(lines, capsys):
    assert audit(lines()) == 0
    assert capsys.readouterr().out == "11 of 11 verdicts, 1 of 1 plates equal\n"


@pytest.mark.parametrize(
    ("well", "path", "value"),
    [
        ("B1", "n_dead", 44), ("B1", "affected", 0.0811), ("C2", "outcome", "toxic"), ("D3", "grade", 3),
        ("B2", "bounds.high", 0.2), ("B2", "reasons", ["BLUR"]),
    ],
)  # fmt: skip
def test_one_changed_value_of_a_verdict_is_named(lines, capsys, well, path, value):
    def change(values):
        if values.get("well") == well:
            *parents, last = path.split(".")
            table = values[parents[0]] if parents else values
            assert table[last] != value
            table[last] = value
        return values

    assert audit(lines(change)) == 1
    out = capsys.readouterr().out
    assert f"final verdict of well {well}: {path} is {value!r} and comes out as " in out
    assert out.endswith("10 of 11 verdicts, 0 of 1 plates equal\n")


def test_changed_evidence_gives_another_verdict(lines, capsys):
    def change(values):
        if values.get("well") == "C1":
            values["fields"][0] |= {"n_rounded": values["fields"][0]["n_rounded"] + 1}
        return values

    assert audit(lines(change)) == 1
    assert "final verdict of well C1: n_dead is" in capsys.readouterr().out


@pytest.mark.parametrize(("key", "value"), [("decision_sha256", "0" * 64), ("controls_valid", 1)])
def test_one_changed_value_of_a_plate_is_named(lines, capsys, key, value):
    def change(values):
        return {**values, key: value} if "samples" in values else values

    assert audit(lines(change)) == 1
    out = capsys.readouterr().out
    assert f"plate p7: {key} is {value!r} and comes out as " in out
    assert "11 of 11 verdicts, 0 of 1 plates equal" in out


def test_a_message_that_leaves_lists_out_is_named_and_not_equal(lines, capsys):
    def change(values):
        if values.get("well") == "B1":
            values |= {"reference": {**values["reference"], "fields": []}, "left_out": ["reference.fields"]}
        return values

    assert audit(lines(change)) == 1
    out = capsys.readouterr().out
    assert "final verdict of well B1: cannot be recomputed from the message alone" in out
    assert "10 of 11 verdicts, 0 of 1 plates equal" in out


def test_a_rule_that_nobody_knows_is_said(lines, capsys):
    assert audit(lines(lambda values: {**values, "rule": "gone/1"})) == 1
    assert "cannot be recomputed: rule gone/1 with hash" in capsys.readouterr().out


def test_a_source_without_records_proves_nothing(tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    assert audit(tmp_path / "empty.jsonl") == 1
    assert capsys.readouterr().out == "no records equal\n"


def reproduce(station, *options):
    return audit(
        station / "journal.db", "--frames", station / "frames", "--config", station / "station.toml", *options
    )


def test_kept_frames_give_the_same_readings_verdicts_and_plate(station, capsys):
    assert reproduce(station) == 0
    assert capsys.readouterr().out == "5 of 5 readings, 6 of 6 verdicts, 1 of 1 plates equal\n"


def test_readings_and_verdicts_name_the_calibrations_they_stand_on(station, capsys):
    found = list(read_records(station / "journal.db"))
    assert [v["calibrations"] for v in found if v["schema"] == LEAVES["reading"]] == [
        ["pixel_size-1", "flat_field-1"]
    ] * 5
    final = [v for v in found if v["schema"] == LEAVES["verdict"]][-1]
    assert final["calibrations"] == ["flat_field-1", "pixel_size-1"]
    assert cli.main(["report", str(station / "journal.db"), "--out", str(station / "p.html")]) == 0
    assert "flat_field-1, pixel_size-1" in (station / "p.html").read_text("utf-8")


def test_without_frames_readings_stand_as_they_are(station, capsys):
    assert audit(station / "journal.db") == 0
    assert capsys.readouterr().out.splitlines() == [
        "6 of 6 verdicts, 1 of 1 plates equal",
        "5 readings were not read again; give --frames to do so",
    ]


def frame_of(station, number):
    readings = [v for v in read_records(station / "journal.db") if v["schema"] == LEAVES["reading"]]
    values = next(v for v in readings if v["source"] == f"{number}.png")
    return station / "frames" / values["taken_at"][:10] / f"{values['frame_sha256']}.png"


def test_one_changed_pixel_of_a_frame_is_found(station, capsys):
    path = frame_of(station, 1)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    image[7, 7] ^= 1
    cv2.imwrite(str(path), image)
    assert reproduce(station) == 1
    out = capsys.readouterr().out
    assert "reading of 1.png, seq 3: " in out
    assert "is altered: its SHA-256 is" in out
    assert "4 of 5 readings" in out


@pytest.mark.parametrize(("shift", "code"), [(2e-6, 0), (2e-3, 1)])
def test_positions_are_equal_but_for_the_rounding_of_last_digits(station, capsys, shift, code):
    changed = station / "changed.jsonl"
    with changed.open("w", encoding="utf-8") as stream:
        for values in read_records(station / "journal.db"):
            if values.get("source") == "1.png":
                values["cells"][0]["row"] += shift
            print(json.dumps(values), file=stream)
    options = ("--frames", station / "frames", "--config", station / "station.toml")
    assert audit(changed, *options) == code
    assert ("reading of 1.png, seq 3: cells.0.row is" in capsys.readouterr().out) == bool(code)


def test_a_reading_of_another_version_is_named(station, capsys):
    older = station / "older.jsonl"
    with older.open("w", encoding="utf-8") as stream:
        for values in read_records(station / "journal.db"):
            if values.get("source") == "1.png":
                del values["quality"]["tint"]
            print(json.dumps(values), file=stream)
    assert audit(older, "--frames", station / "frames", "--config", station / "station.toml") == 1
    assert "reading of 1.png, seq 3: the record is of another version of nanotox: tint is missing" in (
        capsys.readouterr().out
    )


def test_a_frame_that_is_gone_is_named(station, capsys):
    path = frame_of(station, 0)
    path.unlink()
    assert reproduce(station) == 1
    assert f"{path} does not exist" in capsys.readouterr().out


def test_another_model_file_is_said_before_all_differences(station, capsys):
    text = (station / "station.toml").read_text()
    (station / "station.toml").write_text(
        text.replace("phase-cell", "brightfield-cell").replace('"phase"', '"brightfield"')
    )
    assert reproduce(station) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("readings were made with phase-cell, SHA-256 ")
    assert "expected the same model file" in first
    assert any(line.startswith("reading of 0.png, seq 1: ") for line in rest)
    assert any(line.endswith(" more differences") for line in rest)
    assert max(map(len, rest)) < 300
    assert "1 of 5 readings" in rest[-1]


def test_frames_need_their_folder(station, capsys):
    assert (
        audit(station / "journal.db", "--frames", station / "none", "--config", station / "station.toml") == 2
    )
    assert "expected the one where the station kept its frames" in capsys.readouterr().err


def test_a_report_shows_kept_frames_and_is_itself_evidence(station, capsys):
    out = station / "plate.html"
    options = ["--frames", str(station / "frames"), "--config", str(station / "station.toml")]
    assert cli.main(["report", str(station / "journal.db"), "--out", str(out), *options]) == 0
    text = out.read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 1
    assert "lab/bench-1" in text
    assert "DUPLICATE_FIELD: shows the same cells" in text
    assert audit(out) == 0
    assert "1 of 1 verdicts, 1 of 1 plates equal" in capsys.readouterr().out


def test_a_field_that_cannot_be_shown_is_named(station, capsys):
    for path in (station / "frames").rglob("*.png"):
        path.unlink()
    options = ["--frames", str(station / "frames"), "--config", str(station / "station.toml")]
    assert cli.main(["report", str(station / "journal.db"), "--out", str(station / "p.html"), *options]) == 0
    assert "is not shown: " in capsys.readouterr().err
    assert "data:image" not in (station / "p.html").read_text("utf-8")
