"""A model is put into use as a whole or not at all, and none that is damaged harms more than its own trial.

NANOTOX_LONG=1 in the environment loads 2,000 mutated models of 40.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device import cli
from device.errors import ConfigError, ModelError
from device.journal import Journal
from device.model_card import BUNDLE_FILES
from device.models import find_bundle
from device.station.activation import active_bundle, switch_file, try_bundle
from device.station.instruments import load_config, open_instruments

IS_LONG = bool(os.environ.get("NANOTOX_LONG"))
TINY = Path(__file__).parent / "data" / "tiny-cell"
BENCH = (Path(__file__).parent / "data" / "bench.toml").read_text()
CONFIG = BENCH.replace("adherent", "suspension").replace("phase", "brightfield").replace("images", ".")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "station.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bundle_with(folder, change):
    """A copy of the tiny bundle whose model is changed, with checksums that are right."""
    shutil.copytree(TINY, folder, dirs_exist_ok=True)
    model = folder / "model.tflite"
    model.write_bytes(change(model.read_bytes()))
    sums = "".join(f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in BUNDLE_FILES)
    (folder / "SHA256SUMS").write_text(sums)
    return folder


def model(*arguments):
    return cli.main(["model", *map(str, arguments)])


def in_use():
    tools = open_instruments(load_config(Path("station.toml")))
    return tools.classify.id


def events(lab):
    journal = Journal(lab / "journal.db", site="lab", station="bench-1")
    try:
        return journal.notes("model_activate", "model_rollback", limit=9)
    finally:
        journal.close()


def test_an_activated_model_is_used_trusted_and_noted_and_rolled_back(lab, capsys):
    shipped = in_use()
    assert model("activate", TINY, "--operator", "Ada") == 0
    assert "tiny-cell (" in capsys.readouterr().out
    assert (in_use().name, in_use().trusted) == ("tiny-cell", True)
    assert find_bundle(TINY).id.trusted is False, "elsewhere it is a stranger"
    ((kind, noted),) = events(lab)
    assert (kind, noted["activation"]["operator"], noted["activation"]["sha256"]) == (
        "model_activate",
        "Ada",
        in_use().sha256,
    )
    assert model("rollback", "--operator", "Ada") == 0
    assert "the shipped model is used from the next start on" in capsys.readouterr().out
    assert in_use() == shipped
    assert events(lab)[0][0] == "model_rollback"
    assert model("rollback", "--operator", "Ada") == 2
    assert "no model was activated" in capsys.readouterr().err


def test_the_copy_is_used_whatever_becomes_of_the_folder(lab, tmp_path):
    folder = shutil.copytree(TINY, tmp_path / "mine")
    assert model("activate", folder, "--operator", "Ada") == 0
    shutil.rmtree(folder)
    assert in_use().name == "tiny-cell"


def test_a_copy_that_rots_is_refused_with_advice(lab, capsys):
    assert model("activate", TINY, "--operator", "Ada") == 0
    kept = next((lab / "journal.models").iterdir()) / "model.tflite"
    content = bytearray(kept.read_bytes())
    content[200] ^= 1
    kept.write_bytes(content)
    with pytest.raises(ModelError, match="the file was damaged or changed"):
        in_use()
    assert model("activate", TINY, "--operator", "Ada") == 0, "and can be copied again"
    assert in_use().name == "tiny-cell"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda model: b"", "is no TFLite model"),
        # ai-edge-litert refuses half a model; tflite-runtime reads on and ends as it may.
        (lambda model: model[:5000], "fails its trial: "),
        (lambda model: model.replace(b"features", b"featured"), "expected one int8 of shape"),
    ],
)
def test_a_model_that_fails_its_trial_is_not_used(lab, tmp_path, capsys, change, expected):
    bad = bundle_with(tmp_path / "bad", change)
    assert model("activate", bad, "--operator", "Ada") == 2
    assert re.search(expected, capsys.readouterr().err)
    assert not switch_file(load_config(Path("station.toml"))).exists()
    assert events(lab) == []


def test_a_model_named_in_station_toml_goes_first_and_that_is_said(lab, capsys):
    (lab / "station.toml").write_text(CONFIG + f'[model]\ncell_model = "{TINY}"\n')
    assert model("activate", "chamber-cell", "--operator", "Ada") == 2
    assert "goes before any other; expected none" in capsys.readouterr().err


def test_a_model_of_another_assay_is_refused(lab, capsys):
    assert model("activate", "phase-cell", "--operator", "Ada") == 2
    assert "is for assay adherent; expected suspension" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[1]", '{"schema": "models/2"}', '{"schema": "models/1", "x": 1}'])
def test_a_damaged_switch_is_said_with_advice(lab, text):
    (lab / "journal.models.json").write_text(text)
    with pytest.raises(ConfigError, match="remove it to use the shipped models again"):
        in_use()


def test_a_station_that_runs_is_not_switched_behind_its_back(lab, capsys):
    journal = Journal(lab / "journal.db", site="lab", station="bench-1")
    assert model("activate", TINY, "--operator", "Ada") == 1
    assert "is in use by another process; stop it" in capsys.readouterr().err
    journal.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process ended with SIGSEGV"),
        ("import resource; x = bytearray(3 << 30)", "fails its trial: MemoryError"),
        ("print('{\"sha256\": 1}')", "was altered while it was tried"),
    ],
)
def test_what_happens_to_the_child_is_told(monkeypatch, tmp_path, code, expected):
    import device.station.activation as module

    head, _, _ = module._TRIAL.partition("from device")
    monkeypatch.setattr(module, "_TRIAL", head + code)
    with pytest.raises(ModelError, match=expected):
        try_bundle(tmp_path, "0")


def test_an_untrusted_model_is_tried_apart_before_the_station_loads_it(lab, tmp_path, monkeypatch):
    import device.station.instruments as module

    (lab / "station.toml").write_text(CONFIG + f'[model]\ncell_model = "{TINY}"\n')
    tried = []
    monkeypatch.setattr(module, "try_bundle", lambda *which: tried.append(which))
    assert in_use().trusted is False
    assert tried == [(TINY, find_bundle(TINY).id.sha256)]


KILLER = """
import json, os, signal, sys
from pathlib import Path
import device.station.activation as activation
from device.journal import Journal
from device.station.instruments import load_config

STEPS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.copyfile", "open", "sqlite3.connect"}
activation.try_bundle = lambda *_: None  # it writes nothing
config, armed = load_config(Path("station.toml")), []

def hook(event, _):
    if armed and event in STEPS:
        armed[0] -= 1
        if armed[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)

def work():
    journal = Journal(config.journal.path, site="lab", station="bench-1")
    if sys.argv[1] == "rollback":
        activation.roll_back(config, operator="Ada", note=journal.note)
    else:
        activation.activate(config, sys.argv[2], operator="Ada", at="now", note=journal.note)
    journal.close()

switch = activation.switch_file(config)
before = switch.read_bytes()
for step in range(1, 1000):
    switch.write_bytes(before)
    child = os.fork()
    if not child:
        armed.append(step)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    bundle = activation.active_bundle(config, "cell")
    journal = Journal(config.journal.path, site="lab", station="bench-1")
    journal.verify()
    journal.close()
    print(json.dumps([step, os.WIFSIGNALED(status), bundle and bundle.id.sha256]))
    if not os.WIFSIGNALED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


@pytest.mark.parametrize("action", ["activate", "rollback"])
def test_a_kill_at_every_step_leaves_a_model_that_works(lab, tmp_path, action):
    assert model("activate", TINY, "--operator", "Ada") == 0
    other = bundle_with(tmp_path / "other", lambda model: model + b" ")  # the same model by another name
    old, new = find_bundle(TINY).id.sha256, find_bundle(other).id.sha256
    if action == "rollback":
        assert model("activate", other, "--operator", "Ada") == 0
        old, new = new, old
    command = [sys.executable, "-c", KILLER, action, str(other)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=lab)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(steps) > (20 if action == "activate" else 5)
    assert all(sha256 in (old, new) for _, _, sha256 in steps)
    assert steps[0][2] == old
    assert steps[-1][1:] == [False, new]
    assert active_bundle(load_config(lab / "station.toml"), "cell").id.sha256 == new


def test_old_copies_go_but_not_those_that_a_rollback_needs(lab, tmp_path, monkeypatch):
    monkeypatch.setattr("device.station.activation.try_bundle", lambda *_: None)
    bundles = [bundle_with(tmp_path / f"b{i}", lambda model, i=i: model + b" " * i) for i in range(6)]
    names = [find_bundle(bundle).id.sha256 for bundle in bundles]
    for number in (0, 1, 2, 3, 4, 5, 0, 5):
        assert model("activate", bundles[number], "--operator", "Ada") == 0
    assert {path.name for path in (lab / "journal.models").iterdir()} == {names[i] for i in (4, 0, 5)}
    for number in (1, 2, 3, 3):
        assert model("activate", bundles[number], "--operator", "Ada") == 0
    assert {path.name for path in (lab / "journal.models").iterdir()} == {names[i] for i in (1, 2, 3)}
    assert model("rollback", "--operator", "Ada") == 0
    assert model("rollback", "--operator", "Ada") == 0
    assert in_use().sha256 == names[2]
    assert model("activate", bundles[2], "--operator", "Ada") == 0
    assert model("activate", bundles[4], "--operator", "Ada") == 0
    assert model("activate", bundles[5], "--operator", "Ada") == 0
    kept = {path.name for path in (lab / "journal.models").iterdir()}
    assert kept == {names[i] for i in (2, 4, 5)}


MUTANTS = """
import hashlib, json, os, resource, sys
from collections import Counter
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from device.classifier import open_network
from device.errors import ConfigError, ModelError
from device.models import find_bundle
from test_activation import TINY, bundle_with

model, seen = (TINY / "model.tflite").read_bytes(), Counter()
folder = Path(sys.argv[2])
for seed in range(int(sys.argv[3])):
    rng = np.random.default_rng(seed)
    content = bytearray(model)
    if seed % 4 == 0:
        content = content[: rng.integers(8, len(content))]
    elif seed % 4 == 1:
        for _ in range(8):
            content[rng.integers(8, len(content))] = rng.integers(256)
    else:
        near = rng.integers(8, 600) if seed % 4 == 2 else rng.integers(8, len(content))
        content[near] ^= 1 << rng.integers(8)
    bundle_with(folder, lambda _: bytes(content))
    sys.stdout.flush()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (10, 11))
        try:
            open_network(find_bundle(folder))
        except (ModelError, MemoryError):
            os._exit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    seen[f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"] += 1
print(json.dumps(seen))
"""


@pytest.mark.timeout(3600 if IS_LONG else 300)
def test_mutated_models_harm_no_more_than_their_own_trial(tmp_path):
    """Checksums are made right here; without that all of them are refused before the runtime sees them."""
    n = 2000 if IS_LONG else 40
    command = [sys.executable, "-c", MUTANTS, str(Path(__file__).parent), str(tmp_path / "mutant"), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    (tmp_path / "seen.json").write_text(json.dumps(seen))
    assert sum(seen.values()) == n
    assert seen.keys() <= {"exit 0", "exit 2", *(f"signal {number}" for number in (4, 6, 7, 8, 9, 11, 24))}
    assert n - seen.get("exit 0", 0) > n // 4, "most harm a runtime enough to be seen"
