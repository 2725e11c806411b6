"""The card once, nothing faked: labels, GAN, co-training, CNN, int8, station, Mosquitto, subscriber."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.training]

PLATE = """well,sample,role,dose,dose_unit,replicate,dead_fraction,fields
B1,medium,blank,,,1,0.02,5
P1,zinc,positive,,,1,0.95,5
T1,item,test,10,ug/mL,1,0.9,5
"""


def call(*words, code=0):
    """Run a command as its user would; return what it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def configure(folder, port):
    (folder / "station.toml").write_text(
        f"""
[station]
site = "lab"
name = "bench-1"
assay = "adherent"
modality = "phase"
method = "paper"
[scale]
um_per_px = 0.65
[camera]
kind = "folder"
path = "fields"
[model]
cell_model = "run/bundle"
[plate]
file = "fields/plate.csv"
[publisher]
host = "127.0.0.1"
port = {port}
"""
    )
    return folder / "station.toml"


def test_labels_become_a_model_that_the_station_judges_with(tmp_path, broker, subscribe):
    (tmp_path / "plate.csv").write_text(PLATE)
    fields, run, data = tmp_path / "fields", tmp_path / "run", tmp_path / "data"
    mixed = ("--fields", 12, "--dead-fraction", 0.5)
    call("device.cli", "phantom", "--wells", tmp_path / "plate.csv", "--seed", 1, "--out", fields)
    call("device.cli", "phantom", *mixed, "--seed", 2, "--out", data)
    recipe = ("--out", run, "--unit", "cell", "--smoke", "--model", "phase-cell")
    said = call("training.cli", "paper", fields, *recipe, code=2)
    assert "expected both classes" in said  # the one well in split train is a dead one
    call("training.cli", "paper", data, *recipe)
    report = (run / "report.md").read_text()
    assert "34" in report
    assert "37" in report
    digest = hashlib.sha256((run / "bundle" / "SHA256SUMS").read_bytes()).hexdigest()

    subscriber = subscribe(broker)
    call("device.cli", "run", "--config", configure(tmp_path, broker.port))

    assert subscriber.wait_for(lambda s: s.payloads("plate"))
    readings, verdicts = subscriber.payloads("reading"), subscriber.payloads("verdict")
    files = sorted(path.name for path in (fields / "images").glob("*.png"))
    assert sorted(Path(reading["source"]).name for reading in readings) == files
    assert {reading["cell_model"]["sha256"] for reading in readings} == {digest}
    assert all(reading["n_live"] + reading["n_dead"] + reading["n_other"] > 0 for reading in readings)
    finals = {verdict["well"]: verdict for verdict in verdicts if verdict["stage"] == "final"}
    assert sorted(finals) == ["B1", "P1", "T1"]
    assert all(final["research_use_only"] is True for final in finals.values())
    # an untrusted model, and the paper's method, never decide alone
    assert {final["outcome"] for final in finals.values()} <= {"inconclusive", "invalid"}
    assert sorted(subscriber.seqs()) == list(range(1, len(subscriber.seqs()) + 1))
