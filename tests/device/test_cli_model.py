"""`nanotox model` lists what is shipped and verifies what it is given."""

import json
import shutil
from pathlib import Path

import pytest

from device import cli, models

TINY = Path(__file__).parent / "data" / "tiny-cell"


def test_list_names_each_bundle_once(tmp_path, monkeypatch, capsys):
    shutil.copytree(TINY, tmp_path / "tiny-cell")
    monkeypatch.setattr(models, "bundles_folder", lambda: tmp_path)
    assert cli.main(["model", "list"]) == 0
    assert capsys.readouterr().out.split() == [
        *("tiny-cell", "cell", "suspension", "brightfield", "untrusted"),
        *("live,", "dead,", "other"),
    ]
    assert cli.main(["model", "list", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["classes"] == ["live", "dead", "other"]
    assert row["trusted"] is False


def test_verify_runs_the_golden_inputs_here(capsys):
    assert cli.main(["model", "verify", str(TINY), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["n_golden"] == 24
    assert row["shift"] <= row["shift_allowed"] <= 0.125
    assert row["shift_mean"] <= row["shift_mean_allowed"] <= 0.01
    assert cli.main(["model", "verify", str(TINY)]) == 0
    assert "tiny-cell is fit for " in capsys.readouterr().out


def test_verify_of_a_damaged_bundle_is_exit_2(tmp_path, capsys):
    copied = shutil.copytree(TINY, tmp_path / "copied")
    (copied / "model.tflite").write_bytes(b"12345678")
    assert cli.main(["model", "verify", str(copied)]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("nanotox: error: ")
    assert "model.tflite has SHA-256" in out.err


@pytest.mark.parametrize("name", models.list_bundles())
def test_shipped_bundles_are_fit_and_trusted(name, capsys):
    assert cli.main(["model", "verify", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trusted"] is True
