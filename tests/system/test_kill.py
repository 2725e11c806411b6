"""The promise: nothing lost, nothing doubled, whatever is killed. tools/kill-test is the long version."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("make_broker")  # skips where there is no Mosquitto
def test_of_600_verdicts_none_is_lost_or_doubled_over_twelve_kills(tmp_path):
    kills = ("--broker-kills", "5", "--station-kills", "5", "--collector-kills", "2")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "kill-test", "--verdicts", "600", *kills, "--keep", tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    logs = "\n".join(path.read_text(errors="replace") for path in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    names, _, values = (line.strip("| ").split(" | ") for line in done.stdout.splitlines()[:3])
    told = dict(zip(names, values, strict=True))
    assert (told["lost"], told["phantom"], told["duplicate"]) == ("0", "0", "0")
    assert int(told["verdicts"]) >= 600
    assert told["kills: broker + station + collector"] == "5 + 5 + 2"
    assert int(told["doubled on the wire, dropped"]) > 0, "without one the kills have hit nothing"
    assert "Traceback" not in logs
