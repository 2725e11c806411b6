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
