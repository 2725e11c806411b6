"""The commands of README.md do what it says, in its order, in one shell."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TOUR = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Five minutes")[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", TOUR, flags=re.DOTALL)


def run_blocks(blocks, folder, port):
    """Run blocks of README in one shell in `folder`; return its standard output."""
    script = "\n".join(["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *blocks])
    replaced = {
        "$PWD/.venv/bin": str(BIN),
        'cd "$(mktemp -d)"': f'cd "{folder}"',
        "1884": str(port),
        # as a job of this shell it ends with it
        f"mosquitto -p {port} -d": f"mosquitto -p {port} 2>/dev/null & sleep 1",
    }
    for found, put in replaced.items():
        assert found in script or found.startswith("mosquitto"), f"README no longer says {found}"
        script = script.replace(found, put)
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_every_command_of_the_readme_exists():
    for program in set(re.findall(r"^(?:tools|docs)/[\w./-]+", "\n".join(BLOCKS), flags=re.MULTILINE)):
        assert (ROOT / program).exists()
    for link in re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / link).exists(), f"README links to {link}"


@pytest.mark.system
def test_the_tour_ends_with_verdicts_on_a_broker(folder):
    if shutil.which("mosquitto_sub") is None:
        pytest.skip("mosquitto_sub is not installed; tools/test installs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = run_blocks([block for block in BLOCKS if "nanotox-train" not in block], folder, port)
    assert '"n_dead"' in out
    assert "item" in out
    verdicts = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    final = {verdict["well"]: verdict["outcome"] for verdict in verdicts if verdict["stage"] == "final"}
    assert final == {"B1": "non_toxic", "N1": "non_toxic", "P1": "toxic", "T1": "non_toxic", "T2": "toxic"}
    assert len(list((folder / "seen").glob("*.png"))) == 4
