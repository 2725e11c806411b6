"""Claims about `nanotox dataset bundle`: which readings are chosen, and what of them is written."""

import csv
import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from device import cli
from device.journal import Journal
from device.journal.read import read_records
from device.messages import Topics
from device.messages.sealing import rfc3339
from device.plates import read_dataset_info
from device.publishers import Received
from device.records import Scale
from device.station import load_config
from device.station.bench_commands import BenchCommands
from device.station.commands import Desk


def bundle(folder, *options, source="journal.db", out="out"):
    places = ["--frames", folder / "frames", "--config", folder / "station.toml", "--out", folder / out]
    return cli.main(["dataset", "bundle", str(folder / source), *map(str, [*places, *options])])


def rows(folder, name="manifest.csv"):
    with (folder / "out" / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def invent(station):
    """A function of changes, one a reading, that writes them as a journal `many.jsonl` with tiny frames."""
    first = next(v for v in read_records(station / "journal.db") if v["schema"].startswith("reading/"))

    plain = first["quality"] | {"odd_cells": 0.0, "flags": []}

    def write(*changes):
        lines = []
        for number, change in enumerate(changes):
            _, png = cv2.imencode(".png", np.full((9, 12), change.pop("gray", number), np.uint8))
            sha256 = hashlib.sha256(png.data).hexdigest()
            (station / "frames" / first["taken_at"][:10] / f"{sha256}.png").write_bytes(png.data)
            p_dead, quality = change.pop("p_dead", 0.01), plain | change.pop("quality", {})
            cell = {"row": 4.0, "col": 6.0, "cell_class": "live", "area_um2": 30.0, "p_dead": p_dead}
            size = {"height_px": 9, "width_px": 12, "cells": [cell], "quality": quality}
            # The message of the first may just have passed 16 KiB.
            own = {"seq": number + 1, "source": f"{number}.png", "frame_sha256": sha256, "left_out": []}
            lines.append(json.dumps(first | {"affected": 0.1, "p_toxic": None} | size | own | change))
        (station / "many.jsonl").write_text("\n".join(lines))
        return station

    return write


def chosen(folder, *options):
    assert bundle(folder, *options, source="many.jsonl") == 0
    found = {int(row["seq"]) - 1: row["why"] for row in rows(folder)}
    for path in sorted((folder / "out").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return found


def test_a_bundle_holds_frames_proposals_and_where_they_came_from(station, capsys):
    assert bundle(station) == 0
    assert capsys.readouterr().out.splitlines() == [
        "corrected       0",
        "uncertain       1",
        "disagreeing     0",
        "odd             1",
        "random          1",
        f"{station / 'out'}: 3 of 3 readings with a kept frame",
    ]
    readings = {v["seq"]: v for v in read_records(station / "journal.db") if "cells" in v}
    proposals = Counter(row["file"] for row in rows(station, "proposals.csv"))
    for row in rows(station):
        values = readings[int(row["seq"])]
        png = (station / "out" / row["file"]).read_bytes()
        assert hashlib.sha256(png).hexdigest() == values["frame_sha256"]
        assert (row["label"], row["group"], row["split"]) == ("", "plate/A1", "unlabeled")
        assert (row["ledger_id"], row["taken_at"]) == (values["ledger_id"], values["taken_at"])
        assert row["cell_model.sha256"] == values["cell_model"]["sha256"]
        assert proposals[row["file"]] == len(values["cells"])
    info = read_dataset_info(station / "out")
    assert info.scale == Scale(0.65, "measured")
    assert (info.modality, info.assay, info.origin) == ("phase", "adherent", "station lab/bench-1")
    assert (info.simulated, info.label_source) == (False, None)
    sums = dict(line.split("  ")[::-1] for line in (station / "out/SHA256SUMS").read_text().splitlines())
    there = {str(path.relative_to(station / "out")) for path in (station / "out").rglob("*.*")}
    assert there == sums.keys()
    assert all(hashlib.sha256((station / "out" / n).read_bytes()).hexdigest() == s for n, s in sums.items())


def test_a_proposal_is_the_box_of_a_disk_as_large_as_the_cell(invent):
    folder = invent({})
    assert bundle(folder, source="many.jsonl") == 0
    (row,) = rows(folder, "proposals.csv")
    reach = np.sqrt(30 / np.pi) / 0.65 - 0.5
    box = [6 - reach, 4 - reach, 6 + reach, 4 + reach]
    assert [float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax")] == pytest.approx(box, abs=0.05)
    assert (row["label"], row["p_dead"]) == ("live", "0.010")


def test_a_frame_kept_at_half_the_size_has_its_own_pixels(invent):
    cell = {"row": 8.5, "col": 12.5, "cell_class": "lysed", "area_um2": None, "p_dead": 0.9}
    folder = invent({"height_px": 18, "width_px": 24, "cells": [cell]})
    assert bundle(folder, source="many.jsonl") == 0
    (row,) = rows(folder, "proposals.csv")
    reach = 9 / 1.3 - 0.5
    assert [float(row[name]) for name in ("xmin", "ymax")] == pytest.approx([6 - reach, 4 + reach], abs=0.05)
    assert row["label"] == "lysed"
    assert read_dataset_info(folder / "out").scale == Scale(1.3, "measured")


def test_a_bundle_has_one_scale(invent, capsys):
    folder = invent({}, {"height_px": 18, "width_px": 24}, {})
    assert bundle(folder, source="many.jsonl") == 3
    assert "holds 1 of 2 pixels a side; expected 1, as those before it" in capsys.readouterr().err
    assert [row["seq"] for row in rows(folder)] == ["1", "3"]


@pytest.fixture
def review(station):
    """A function that sends a review of a record to the desk of the station; it returns the answer."""

    def send(**args):
        config, answers = load_config(station / "station.toml"), []
        topics, now = Topics("lab", "bench-1"), datetime.now(UTC)
        journal = Journal(config.journal.path, site="lab", station="bench-1")
        bench = BenchCommands(config, None, None, journal, deliver=None)
        noting = SimpleNamespace(note=journal.note)
        desk = Desk(topics, known=(), answer=answers.append, records=noting, bench=bench)
        command = {"transaction": "t", "issued_at": rfc3339(now), "operator": "Ada", "args": args}
        desk.carry_out(desk.hear(Received(topics.of("cmd/annotate"), json.dumps(command).encode())))
        journal.close()
        return json.loads(answers[0].payload)

    return send


def test_reviews_come_along_and_only_corrected_cells_have_a_label(station, review, capsys):
    readings = [v for v in read_records(station / "journal.db") if v["schema"].startswith("reading/")]
    seen, other = readings[:2]
    first, *_ = seen["cells"]
    missed = {"row": 1.0, "col": 1.0, "label": "lysed"}
    moved = {"row": first["row"] + 1, "col": first["col"], "label": "other"}
    why = {"decision": "correct", "reason": "debris"}
    assert review(seq=seen["seq"], **why, cells=[moved, missed])["ok"]
    assert review(seq=other["seq"], **why, cells=[{"row": 9, "col": 9, "label": "dead"}])["ok"]
    assert review(seq=other["seq"], decision="accept")["ok"]
    assert bundle(station, "--count", 2) == 0
    assert capsys.readouterr().out.startswith("corrected       1\n")
    reviews = rows(station, "reviews.csv")
    assert [(int(r["seq"]), r["decision"], r["n_cells"]) for r in reviews] == [
        (seen["seq"], "correct", "2"), (other["seq"], "correct", "1"), (other["seq"], "accept", "0"),
    ]  # fmt: skip
    assert {(r["operator"], r["reviewed"]) for r in reviews} == {("Ada", "reading/1")}
    assert (reviews[0]["hash"], reviews[0]["reason"]) == (seen["hash"], "debris")
    cells = rows(station, "cells.csv")
    assert {cell["file"] for cell in cells} == {reviews[0]["file"]}
    said = [(c["label"], c["label_source"], c["operator"]) for c in cells]
    assert said[0] == ("other", "person", "Ada")
    assert said[-1] == ("lysed", "person", "Ada")
    assert set(said[1:-1]) == {("", "", "")}, "what nobody said is no label"
    assert len(said) == len(seen["cells"]) + 1
    assert float(cells[-1]["xmax"]) + float(cells[-1]["xmin"]) == pytest.approx(2.0, abs=0.2)
    sums = (station / "out/SHA256SUMS").read_text()
    assert "reviews.csv" in sums
    assert "cells.csv" not in sums, "a person goes on with it"


PLAIN = [{} for _ in range(8)]


def test_each_reason_chooses_its_own_and_no_reading_twice(invent):
    odd, drift = {"odd_cells": 0.3, "flags": ["OOD_CELLS"]}, {"odd_cells": 0.0, "flags": ["DRIFT"]}
    folder = invent(
        *({**v} for v in PLAIN),
        {"p_dead": 0.84}, {"p_dead": 0.7}, {"p_dead": 0.99},  # the model calls dead from 0.85 on
        {"p_toxic": 0.95, "affected": 0.2}, {"p_toxic": 0.05, "affected": 0.9},
        {"p_toxic": 0.95, "affected": 0.9}, {"p_toxic": 0.89, "affected": 0.2}, {"p_toxic": 0.05},
        {"quality": odd}, {"quality": drift}, {"quality": {"odd_cells": 0.01}},
    )  # fmt: skip
    found = chosen(folder, "--count", 12, "--seed", 17)
    assert sum(why == "random" for why in found.values()) == 3
    assert all(number < len(PLAIN) for number, why in found.items() if why == "random")  # by this seed
    assert [number for number in (8, 9, 10) if found[number] == "uncertain"] == [8, 9, 10]
    assert [number for number, why in found.items() if why == "disagreeing"] == [11, 12]
    assert [number for number, why in found.items() if why == "odd"] == [16, 17, 18]
    assert len(found) == 12
    more = chosen(folder, "--count", 15, "--seed", 17)  # the others are used up
    assert Counter(more.values()) == {"random": 3, "disagreeing": 2, "odd": 3, "uncertain": 7}
    assert set(chosen(folder, "--count", 6, "--seed", 17)) >= {8, 12, 16}  # the strongest of each first


def test_the_random_part_is_drawn_from_all_before_the_others_choose(invent):
    plain = {n for n, why in chosen(invent(*({} for _ in range(12))), "--seed", 1).items() if why == "random"}
    hard = chosen(invent(*({"p_dead": 0.5, "quality": {"odd_cells": 0.5}} for _ in range(12))), "--seed", 1)
    assert {n for n, why in hard.items() if why == "random"} == plain
    assert len(plain) == 3
    other = chosen(invent(*({} for _ in range(12))), "--seed", 2)
    assert {n for n, why in other.items() if why == "random"} != plain


def test_a_field_without_cells_may_come_by_chance_only(invent):
    found = chosen(invent(*({"cells": []} for _ in range(8))))
    assert list(found.values()) == ["random"] * 2


def test_refused_fields_stay_out_unless_asked_for(invent, capsys):
    refused = {"passed": False, "refused_by": ["BLUR"]}
    folder = invent({}, {"quality": refused}, {})
    assert set(chosen(folder)) == {0, 2}
    assert set(chosen(folder, "--refused")) == {0, 1, 2}
    assert bundle(invent({"quality": refused}), source="many.jsonl") == 2
    assert "no accepted reading of" in capsys.readouterr().err


def test_a_frame_that_was_read_twice_comes_once(invent):
    assert set(chosen(invent({"gray": 1}, {"gray": 2}, {"gray": 1}))) == {1, 2}
    other = {"gray": 2, "quality": {"um_per_px": 0.5}}
    assert set(chosen(invent({"gray": 1}, other, {"gray": 1}))) == {2}  # and that is the newest


def test_readings_of_another_scale_than_the_newest_stay_out(invent, capsys):
    folder = invent({"quality": {"um_per_px": 0.5}}, {"simulated": True}, {}, {"modality": "brightfield"}, {})
    assert set(chosen(folder)) == {2, 4}
    assert "3 readings left out: of another scale, modality or assay" in capsys.readouterr().out


def test_without_a_plate_a_day_is_a_group(invent):
    folder = invent({"plate": None, "well": None})
    assert bundle(folder, source="many.jsonl") == 0
    day = rows(folder)[0]["taken_at"][:10]
    assert rows(folder)[0]["group"] == f"lab/bench-1/{day}"


def test_frames_that_are_missing_or_altered_are_named_and_left_out(station, capsys):
    kept = sorted((station / "frames").rglob("*.png"))
    kept[0].unlink()
    image = cv2.imread(str(kept[1]), cv2.IMREAD_UNCHANGED)
    image[7, 7] ^= 1
    cv2.imwrite(str(kept[1]), image)
    assert bundle(station) == 3
    said = capsys.readouterr()
    assert f"is left out: {kept[0]} does not exist" in said.err
    assert f"is left out: {kept[1]} is altered" in said.err
    assert said.out.endswith("out: 1 of 3 readings with a kept frame\n")
    assert len(rows(station)) == 1
    kept[2].unlink()
    assert bundle(station, out="none") == 1
    assert "none of 3 chosen frames came into" in capsys.readouterr().err


def test_mistakes_are_told(station, capsys):
    def fault(*options, **other):
        assert bundle(station, *options, **other) == 2
        return capsys.readouterr().err

    assert "--seed is -1; expected 0 or more" in fault("--seed", -1)
    assert "is not empty; expected a new or empty folder" in fault(out="frames")
    (station / "none.jsonl").write_text("")
    assert "has a kept frame and its list of cells; expected the journal of a" in fault(source="none.jsonl")
    text = (station / "station.toml").read_text()
    (station / "station.toml").write_text(text.replace("bench-1", "bench-2"))
    assert "holds readings of lab/bench-1; expected those of lab/bench-2" in fault()
    assert not (station / "out").exists()
