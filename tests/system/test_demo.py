"""`nanotox demo` as a user starts it."""

import re
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system


def test_the_demo_ends_by_itself_with_every_verdict_as_true():
    if not (shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")):
        pytest.skip("mosquitto is not installed; tools/test installs it")
    command = [sys.executable, "-m", "device.cli", "demo", "--fields", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 wells as true" in done.stdout
    assert len(re.findall(r"final: \w+ \(as true\)", done.stdout)) == 6
    # one well a dose cannot judge a sample
    assert done.stdout.count("inconclusive: TOO_FEW_REPLICATES") == 3
    assert "\x1b" not in done.stdout
