"""Claims about `nanotox-train recount`: what `grade` says, whoever reads the wells and however often."""

import json
import os
import shutil
import signal

import cv2
import numpy as np
import pytest

import training.pool
import training.recount
from device import cli
from device.analysis.phantom import render_plate
from device.plates import Plate, write_plate
from device.records import PlateWell
from training.cli import main

WELLS = [
    PlateWell("A1", "medium", "blank", None, None, 1, files=("A1_*.png",), dead_fraction=0.03, fields=2),
    PlateWell("A2", "ZDEC", "positive", None, None, 1, files=("A2_*.png",), dead_fraction=0.9, fields=2),
    PlateWell("B1", "silver", "test", 1.0, "%", 1, files=("B1_*.png",), dead_fraction=0.1, fields=2),
    PlateWell("B2", "silver", "test", 9.0, "%", 1, files=("B2_*.png",), dead_fraction=0.8, fields=2),
]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A folder of a rendered plate, with a flat field and a file that is no image."""
    folder = tmp_path_factory.mktemp("archive")
    for plan, field, phantom in render_plate(WELLS, seed=4, modality="phase"):
        cv2.imwrite(str(folder / f"{plan.well}_{field}.png"), phantom.image[:480, :640])
    cv2.imwrite(str(folder / "B1_7.png"), np.full((480, 640), 90, np.uint8))
    (folder / "B2_7.png").write_bytes(b"no image")
    write_plate(folder / "plate.csv", Plate("plate", tuple(WELLS)))
    return folder


@pytest.fixture(scope="session")
def graded(rendered):
    """A function of a folder that gives the lines of `grade` for the plate in it."""

    def grade(folder, capsys):
        options = ("--plate", str(folder / "plate.csv"), "--um-per-px", "0.65", "--model", "phase-cell")
        code = cli.main(["grade", str(folder), *options, "--json"])
        return code, capsys.readouterr().out

    return grade


def recount(archive, out, *options, plate="plate.csv", model="phase-cell"):
    models = () if model is None else ("--model", model)
    arguments = ("--plate", str(plate), "--um-per-px", "0.65", *models, "--out", str(out), *options)
    return main(["recount", str(archive), *arguments])


def written(out):
    return (out / "verdicts.jsonl").read_bytes(), (out / "results.json").read_bytes()


def test_a_plate_is_told_as_grade_tells_it(rendered, graded, tmp_path, capsys):
    code, lines = graded(rendered, capsys)
    assert recount(rendered, tmp_path, "--workers", "1", plate=rendered / "plate.csv") == code == 1
    assert (tmp_path / "verdicts.jsonl").read_text() == lines
    out, err = capsys.readouterr()
    decision = json.loads(lines.splitlines()[-1])["decision_sha256"]
    assert f"decision {decision}\n" in out
    assert "plate: B2_7.png: unreadable: " in err
    plate = json.loads((tmp_path / "results.json").read_text())["plates"][0]
    assert (plate["decision_sha256"], plate["n_wells"], plate["n_files"]) == (decision, 4, 10)
    refused = json.loads(lines.splitlines()[2])["refused_by"]
    assert plate["faults"][0] == ["B1_7.png", f"refused: {', '.join(refused)}"]


def test_one_process_four_and_a_cluster_that_loses_a_worker_give_the_same_bytes(
    rendered, tmp_path, monkeypatch
):
    distributed = pytest.importorskip("distributed")
    assert recount(rendered, tmp_path / "one", "--workers", "1") == 1
    assert recount(rendered, tmp_path / "four", "--workers", "4") == 1
    assert written(tmp_path / "four") == written(tmp_path / "one")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        keep, killed = training.pool._keep, []

        def kill_after_the_first(*args):
            if not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)
            return keep(*args)

        monkeypatch.setattr(training.pool, "_keep", kill_after_the_first)
        assert recount(rendered, tmp_path / "cluster", "--scheduler", cluster.scheduler_address) == 1
    assert killed
    assert written(tmp_path / "cluster") == written(tmp_path / "one")


def test_only_a_well_whose_image_changed_is_read_again(rendered, tmp_path, monkeypatch, capsys):
    archive = shutil.copytree(rendered, tmp_path / "archive")
    (archive / "B2_7.png").unlink()
    assert recount(archive, tmp_path / "out", "--workers", "1") == 3
    before = written(tmp_path / "out")
    done = []
    keep = training.pool._keep
    monkeypatch.setattr(training.pool, "_keep", lambda *args: done.append(args[1]) or keep(*args))
    assert recount(archive, tmp_path / "out", "--workers", "1") == 3
    assert (done, written(tmp_path / "out")) == ([], before)
    shutil.copy(archive / "A2_1.png", archive / "B2_1.png")
    assert recount(archive, tmp_path / "out", "--workers", "1") == 3
    assert done == ["plate/B2"]
    assert written(tmp_path / "out") != before


def test_an_archive_of_plates_is_told_plate_by_plate(rendered, graded, tmp_path, capsys):
    for name in ("p2", "p1"):
        folder = tmp_path / "archive" / name
        folder.mkdir(parents=True)
        for file in ("A1_0.png", "B1_0.png"):
            shutil.copy(rendered / file, folder)
        kept = tuple(well for well in WELLS if well.well in ("A1", "B1"))
        write_plate(folder / "plate.csv", Plate(name, kept))
    assert recount(tmp_path / "archive", tmp_path / "out", "--workers", "1") == 0
    capsys.readouterr()
    code, lines = graded(tmp_path / "archive" / "p1", capsys)
    told = (tmp_path / "out" / "verdicts.jsonl").read_text()
    assert code == 0
    assert told == "".join(lines.replace('"plate": "plate"', f'"plate": "{name}"') for name in ("p1", "p2"))


def test_images_that_a_worker_does_not_see_are_no_unreadable_fields(rendered, tmp_path, monkeypatch, capsys):
    archive = shutil.copytree(rendered, tmp_path / "archive")
    run_tasks = training.recount.run_tasks

    def lose_an_image(*args, **options):
        (archive / "B1_1.png").unlink()
        return run_tasks(*args, **options)

    monkeypatch.setattr(training.recount, "run_tasks", lose_an_image)
    assert recount(archive, tmp_path / "out", "--workers", "1") == 2
    told = capsys.readouterr().err
    assert "1 of 4 tasks failed" in told
    assert "task plate/B1: ConfigError: " in told
    assert "B1_1.png is missing here or changed meanwhile" in told


@pytest.mark.parametrize(
    ("archive", "plate", "model", "told"),
    [
        ("nowhere", "plate.csv", "phase-cell", "nowhere is no folder; expected the images of a plate"),
        ("", "p.csv", "phase-cell", "p.csv is no file, nor the name of one in"),
        ("", "/p.csv", "phase-cell", "/p.csv is no file, nor the name of one in"),
        ("", "plate.csv", "phase-cell", "no file B1_*.png in"),
        ("", "plate.csv", "moon", "no model 'moon'; expected the folder of a bundle"),
        ("", "plate.csv", None, "--model is missing; expected the model that counts"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(rendered, tmp_path, capsys, archive, plate, model, told):
    shutil.copy(rendered / "plate.csv", tmp_path)
    if model == "moon":
        for file in rendered.glob("*.png"):
            shutil.copy(file, tmp_path)
    assert recount(tmp_path / archive, tmp_path / "out", plate=plate, model=model) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
