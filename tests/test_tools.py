"""The scripts that a new user starts first."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [ROOT / "tools" / name for name in ("prepare.bash", "check", "test", "demo")] + [
    ROOT / ".ci" / "run"
]


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
    out = tmp_path / "accuracy.md"
    words = ("--shared", tmp_path, "--fields", "1", "--pictures", tmp_path / "worst", "--out", out)
    subprocess.run(
        [sys.executable, ROOT / "tools" / "make-accuracy", *words], capture_output=True, check=True
    )
    text = out.read_text()
    assert "Skipped, as there is no such folder of images: `ldc`, `usiigaci`, `dsb2018`, `hepg2_huh7`" in text
    assert re.search(r"\| dead cells, F1 \| 0\.985 \| [01]\.\d{3} \(no interval, \d+ dead cells\) \|", text)
    assert "| phase, brightfield | round_radius_um | 5.6 to 7.4 | 5.3 to 5.6 or 7.4 to 7.8 |" in text
    assert (tmp_path / "worst" / "phase-table1.png").is_file()
    assert (ROOT / "docs" / "test-split-log.md").read_text() == log
