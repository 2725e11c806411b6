"""The scripts that a new user starts first."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from training.evaluation.detection import Matches
from training.export.acceptance import FieldResult

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [
    ROOT / "tools" / name for name in ("prepare.bash", "check", "test", "demo", "lab-broker", "install")
] + [ROOT / ".ci" / "run"]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a script of tools/ as a module."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    loader = SourceFileLoader(name.replace("-", "_"), str(ROOT / "tools" / name))
    tool = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(tool)
    return tool


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound_and_stops_at_the_first_failure(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    # prepare.bash is sourced by scripts that have set it
    assert "set -euo pipefail" in text or script.name == "prepare.bash"
    assert not re.search(r"https?://|\bindex-url\b", text), "where packages come from is the machine's affair"


def test_ci_runs_the_tests_and_nothing_else() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and line[0] != "#"]
    assert commands == ["set -euo pipefail", 'exec "$(dirname "$0")/../tools/test"']


def test_the_benchmark_runs_and_overwrites_nothing_when_quick(tmp_path: Path) -> None:
    document = ROOT / "docs" / "benchmarks.md"
    before = document.read_bytes()
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "bench", "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(" | ") for line in done.stdout.splitlines()[2:]]
    assert rows[0][1] == "`paper`, counting only"
    assert rows[1][1] == "OpenCV"
    assert all((row[4], row[5]) == ("50", "1.000 |") for row in rows), done.stdout
    assert document.read_bytes() == before


def test_a_change_that_no_test_notices_is_told_and_one_that_a_test_notices_is_not(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text("def grade(n: int) -> int:\n    return 3 if n > 2 else 0\n")
    claims = "from toy import grade\n\n\ndef test_grade():\n    assert grade(3) == 3\n"
    command = [sys.executable, ROOT / "tools" / "mutate", "--source", "toy.py", "--tests", "test_toy.py"]

    def undetected(text: str) -> list[str]:
        (tmp_path / "test_toy.py").write_text(text)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        found = re.findall(r"undetected: toy.py:2: (.*): return", done.stdout)
        assert done.returncode == bool(found), done.stderr
        assert f"| toy | 5 | {5 - len(found)} | 0 | {len(found)} |" in done.stdout
        return found

    assert undetected(claims) == ["> to >=", "0 to 1"]
    assert undetected(claims + "    assert grade(2) == 0\n") == []


def test_simulated_wells_are_judged_and_told_in_tables() -> None:
    command = [sys.executable, ROOT / "tools" / "simulate-verdicts", "--runs", "4"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in said.splitlines() if line.startswith("| 0.")]
    assert len(rows) == 40 + 9 + 9 + 5
    assert 0.9 <= np.mean([float(row[3]) for row in rows[:40]]) <= 1, "nominal 0.95"
    assert rows[40][3] == "0.000 / 1.000 / 0.000", "ten fields of 30 % are surely under 50 %"


def test_help_works_from_any_folder_and_unknown_options_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "tools" / "test", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "tools/test --quick" in done.stdout
    refused = subprocess.run(
        [ROOT / "tools" / "test", "--fast"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "unknown option --fast" in refused.stderr


@pytest.mark.training
def test_accuracy_is_measured_without_real_images_and_says_what_it_skipped(tmp_path: Path) -> None:
    log = (ROOT / "docs" / "test-split-log.md").read_text()
    out, seeds = tmp_path / "accuracy.md", tmp_path / "seeds"
    seeds.mkdir()
    for seed in range(2):
        (seeds / f"phase-cell-{seed}").symlink_to(ROOT / "models" / "phase-cell")
    words = ("--shared", tmp_path, "--seeds", seeds, "--fields", "1", "--pictures", tmp_path / "worst")
    command = [sys.executable, ROOT / "tools" / "make-accuracy", *words, "--out", out]
    subprocess.run(command, capture_output=True, check=True)
    text = out.read_text()
    assert "Skipped, as there is no such folder of images: `ldc`, `usiigaci`, `dsb2018`, `hepg2_huh7`" in text
    assert "`phase-cell`, mean of 2 seeds" in text
    found = re.findall(r"\| dead cells, F1 \| 0\.985 \| (.*) \| (.*) \|", text)
    assert found[0][0] == found[0][1], "the mean over copies of the shipped bundle is its figure"
    assert re.fullmatch(r"[01]\.\d{3} \(no interval, \d+ dead cells\)", found[0][0])
    assert "| phase, brightfield | round_radius_um | 5.6 to 7.4 | 5.3 to 5.6 or 7.4 to 7.8 |" in text
    assert (tmp_path / "worst" / "phase-table1.png").is_file()
    assert (ROOT / "docs" / "test-split-log.md").read_text() == log


@pytest.mark.training
def test_each_opening_of_a_test_split_is_appended_to_the_log(tmp_path, monkeypatch) -> None:
    tool = load("make-accuracy", monkeypatch)
    monkeypatch.setattr(tool, "LOG", tmp_path / "log.md")
    tool.LOG.write_text("earlier\n")
    pair = Matches(np.zeros((3, 2), np.intp), 4, 3)
    tool.log_test_split({"shipped `a`": [[FieldResult(None, {"dead": pair}, "g", Counter())]], "seeds": []})
    lines = tool.LOG.read_text().splitlines()
    assert lines[0] == "earlier"
    assert lines[1].endswith("| ldc | shipped `a` | 0.86 (no interval, 4 dead cells) |")
    assert len(lines) == 2


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Folders as a tiny experiment, a GAN and a recipe of the paper leave them; `cnn+gan` is better."""
    from training.experiment.summary import summarize, write_summary

    few, gan, paper = (tmp_path / name for name in ("few", "gan", "paper"))
    for folder in (few, gan, paper):
        folder.mkdir()
    y = [i % 4 == 0 for i in range(40)]
    scores = dict.fromkeys(("balanced_accuracy", "auc", "nll", "brier", "ece"), 0.5)
    tasks = {}
    for arm, wrong, f1 in (("cnn", 3, 0.75), ("cnn+gan", 0, 1.0), ("cnn+duplicates", 3, 0.75)):
        for seed in (0, 1):
            p = [float(dead and i >= 4 * wrong) for i, dead in enumerate(y)]
            reading = {arm: {"scores": scores | {"f1_dead": f1}, "p": p}}
            task = {"ratio": "equal", "budget": 20, "seed": seed, "n_labels": {"live": 10, "dead": 10}}
            tasks[f"{arm}-{seed}"] = task | {"wall_s": 1.0, "readings": reading}
    options = {"arms": ["cnn", "cnn+gan", "cnn+duplicates"], "labels": [20], "n_seeds": 2, "control": "cnn"}
    options |= {
        "ratios": ["equal"],
        "unit": "cell",
        "split": "val",
        "steps": None,
        "noise": False,
        "learner": "table2",
    }
    judged = {"split": "val", "classes": ["live", "dead"], "y": y, "group": [str(i) for i in range(40)]}
    data = {"folder": "ldc", "sha256": {"manifest.csv": "a" * 64}}
    results = {"options": options, "judged": judged, "data": data, "tasks": tasks}
    (few / "results.json").write_text(json.dumps(results))
    write_summary(few, results, summarize(results))
    said = {"n": 99, "disagreement": 0.1, "wrong": [0.01, 0.2], "classes": ["live", "dead"], "n_judged": 40}
    said |= {"learners": ["a", "b"], "f1_ceiling": 0.9, "f1_ceiling_interval": {"low": 0.8, "high": 0.95}}
    (few / "noise.json").write_text(json.dumps(said))
    made = {"n_generated": 75, "kid": None, "kid_halves": None, "memorized": None, "fidelity": 0.5}
    made |= {"fidelity_held_out": None, "c2st_auc": None}
    gate = {"passed": False, "note": "no gain", "n_folds": 5}
    (gan / "quality.json").write_text(json.dumps({"features": "f", "gate": gate, "classes": {"dead": made}}))
    where = {"folder": "/somewhere/ldc", "out": "/somewhere/gan", "seed": 0, "gate": True, "labels": None}
    for folder in (gan, paper):
        about = {"options": where, "data": {"manifest.csv": "a" * 64}}
        (folder / "provenance.json").write_text(json.dumps(about))
    (paper / "report.md").write_text("# Title\n\n## Table\n\nwords\n\n## Figures\n\n![c](c.png)\n")
    for picture in (few / "curves-equal.png", few / "noise-worst.png", paper / "c.png"):
        picture.write_bytes(b"png")
    for step in ("0900", "1500"):
        (gan / f"gan-dead-{step}.png").write_bytes(b"png")
    metric = {"value": 0.9, "low": None, "high": None, "n": 7}
    both = {"auc": metric, "balanced_accuracy": metric}
    fields = {
        "model": "field",
        "data": "100 mosaics of /somewhere/ldc, val",
        "folder": "ldc",
        "options": "--split val --mosaics 100",
        "n_refused": 1,
        "field_model": both,
    }
    (tmp_path / "field.json").write_text(json.dumps(fields | {"count_rule": both}))
    return tmp_path


@pytest.fixture
def make_results(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    tool = load("make-results", monkeypatch)
    (runs / "docs").mkdir()

    def make(**options: str) -> int:
        words = [word for name, place in options.items() for word in (f"--{name}", str(runs / place))]
        return tool.main(["--out", str(runs / "docs" / "results.md"), *words])

    return make


@pytest.mark.training
def test_results_are_composed_from_runs_and_say_what_was_not_reached(runs, make_results) -> None:
    assert make_results(experiment="few", noise="few", quality="gan", field="field.json", paper="paper") == 0
    text = (runs / "docs" / "results.md").read_text()
    assert "nanotox-train experiment data/ldc --arms cnn,cnn+gan,cnn+duplicates --seeds 2 --labels 20" in text
    assert "nanotox-train gan data/ldc --out runs/gan --seed 0 --gate\n" in text
    assert "| cnn+gan: 0.500 (0.000), 1.000 (0.000), NLL 0.500 (0.000) | F1 >= 0.87" in text
    assert "| reached | 0.89: reached |" in text
    assert re.search(r"\| cnn\+gan against cnn\+duplicates \| \+0\.176 \(.*\) \| (helps|no diff)", text)
    assert "At most 1.0% of live, 20.0% of dead are wrong" in text
    assert "**not passed**: no gain (5 folds)" in text
    assert "| field model | 0.900 (not known to not known)" in text
    assert "`nanotox-train evaluate field data/ldc --split val --mosaics 100 --json`" in text
    assert "### Table" in text
    assert "somewhere" not in text
    shown = set(re.findall(r"\(images/(.*?)\)", text))
    assert shown == {"results-few-curves-equal.png", "results-gan-gan-dead-1500.png", "results-paper-c.png"}
    assert {path.name for path in (runs / "docs" / "images").iterdir()} == shown

    results = json.loads((runs / "few" / "results.json").read_text())
    results["options"]["arms"] = ["cnn", "cnn+duplicates"]
    (runs / "few" / "results.json").write_text(json.dumps(results))
    assert make_results(experiment="few") == 0
    text = (runs / "docs" / "results.md").read_text()
    assert "| **not reached** | 0.89: not reached |" in text


@pytest.mark.training
@pytest.mark.parametrize(
    ("option", "place", "wanted"),
    [
        ("experiment", "gan", "results.json"),
        ("quality", "few", "quality.json"),
        ("paper", "few", "report.md"),
    ],
)
def test_results_of_an_unfinished_run_are_refused(runs, make_results, capsys, option, place, wanted) -> None:
    assert make_results(**{option: place}) == 2
    said = capsys.readouterr().err
    assert re.search(rf"{place}/{wanted} is missing; expected what a finished `nanotox-train", said)
    assert not (runs / "docs" / "results.md").exists()
