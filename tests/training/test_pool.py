"""Claims about `run_tasks`: every task once, in any number of processes, whatever ends a run early."""

import importlib
import json
import signal
import subprocess
import sys
from collections import Counter

import pytest

import training.pool
from device.errors import ConfigError
from training.pool import run_tasks

# Workers import what they do, and tests are no package: a module of its own, on the path that they inherit.
WORK = '''
import os, signal
from pathlib import Path


def work(task):
    """Note down that it was done, then do what the task says."""
    number, folder, what = task
    log = os.open(Path(folder, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{number}\\n".encode())
    once = Path(folder, f"once-{number}")
    if what == "raise":
        raise ValueError(f"no {number} today")
    if what == "nan":
        return {"half": float("nan")}
    if what == "die" or what == "die once" and not once.exists():
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what.startswith("SIG") and not once.exists():
        once.touch()
        while not Path(folder, "kept", "0.json").exists():
            pass
        os.kill(os.getpid() if what.endswith("here") else os.getppid(), signal.Signals[what.split()[0]])
        signal.pause()
    return {"half": number / 2, "pair": (number, "x"), "threads": os.environ["OMP_NUM_THREADS"]}
'''
RUN = """
import signal
import sys
from pathlib import Path
from pool_work import work
from training.pool import run_tasks

signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background may be born deaf to it
folder, *kinds, workers = sys.argv[1:]
try:
    run_tasks(
        {str(i): (i, folder, kind) for i, kind in enumerate(kinds)},
        work, folder=Path(folder, "kept"), workers=int(workers),
    )
except KeyboardInterrupt as stop:
    sys.exit(str(stop))
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The function of the module that workers import."""
    (tmp_path / "pool_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("pool_work").work
    del sys.modules["pool_work"]


@pytest.fixture
def run(tmp_path, work):
    """A function of what tasks do that runs them in this test's folder."""

    def run(kinds, **options):
        tasks = {str(i): (i, str(tmp_path), kind) for i, kind in enumerate(kinds)}
        return run_tasks(tasks, work, folder=tmp_path / "kept", **options)

    return run


@pytest.fixture
def done(tmp_path):
    """A function that gives how often each task was begun."""
    return lambda: Counter(map(int, (tmp_path / "log").read_text().split()))


def expected(n):
    return {str(i): {"half": i / 2, "pair": [i, "x"], "threads": "1"} for i in range(n)}


def run_apart(tmp_path, kinds, workers):
    command = [sys.executable, "-c", RUN, str(tmp_path), *kinds, str(workers)]
    path = f"{tmp_path}:{':'.join(sys.path)}"
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env={"PYTHONPATH": path}, timeout=120
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_results_are_in_order_and_equal_for_any_number_of_workers(run, work, tmp_path, workers):
    results = run([""] * 6, workers=workers)
    assert list(results) == [str(i) for i in range(6)]
    assert results == expected(6)
    assert run([""] * 6) == results, "kept results are the same values"


def test_a_second_run_does_only_what_is_missing_changed_or_damaged(run, done, tmp_path):
    run([""] * 5, workers=1)
    kept = tmp_path / "kept"
    (kept / "0.json").unlink()
    (kept / "1.json").write_bytes((kept / "1.json").read_bytes()[:-30])
    document = json.loads((kept / "2.json").read_text())
    document["result"]["half"] = 7.0
    (kept / "2.json").write_text(json.dumps(document))
    assert run(["", "", "", "changed", ""], workers=1) == expected(5)
    assert done() == {0: 2, 1: 2, 2: 2, 3: 2, 4: 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_fails_is_told_when_all_others_are_done(run, done, tmp_path, workers):
    with pytest.raises(ConfigError, match="2 of 5 tasks failed") as caught:
        run(["", "raise", "", "nan", ""], workers=workers)
    assert "task 1: ValueError: no 1 today" in caught.value.faults
    assert any(fault.startswith("task 3: ValueError: Out of range float") for fault in caught.value.faults)
    assert run([""] * 5, workers=workers) == expected(5)
    assert done() == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1}


def test_a_task_whose_process_dies_is_done_again(run, done):
    assert run(["", "die once", "", "", ""], workers=2) == expected(5)
    assert done()[1] == 2


def test_a_task_whose_process_dies_twice_is_given_up_and_no_other(run, done):
    with pytest.raises(ConfigError, match="1 of 6 tasks failed") as caught:
        run(["", "", "die", "", "", ""], workers=3)
    assert caught.value.faults[1].startswith("task 2: its process died twice")
    assert done()[2] == 2
    assert run([""] * 6, workers=1) == expected(6)


@pytest.mark.parametrize(("kind", "workers"), [("SIGINT", 2), ("SIGINT here", 1)])
def test_ctrl_c_stops_what_runs_and_keeps_what_is_done(run, done, tmp_path, kind, workers):
    stopped = run_apart(tmp_path, ["", kind, "", ""], workers)
    assert stopped.returncode == 1
    assert stopped.stderr.endswith(
        f"tasks are kept in {tmp_path}/kept; give the same command again to go on\n"
    )
    assert "Traceback" not in stopped.stderr
    begun = done()
    assert run(["", kind, "", ""], workers=1) == expected(4)
    assert done()[0] == 1
    assert begun[1] == 1


def test_a_run_that_is_killed_goes_on_where_it_stood(run, done, tmp_path):
    killed = run_apart(tmp_path, ["", "SIGKILL", "", ""], 2)
    assert killed.returncode == -signal.SIGKILL
    kept = {int(path.stem) for path in (tmp_path / "kept").glob("*.json")}
    before = done()
    assert 0 in kept
    assert run(["", "SIGKILL", "", ""], workers=1) == expected(4)
    assert done() - before == dict.fromkeys({0, 1, 2, 3} - kept, 1)


def test_names_of_tasks_are_no_paths(work, tmp_path):
    names = ("..", "a/b", "a b", "A1")
    run_tasks(
        dict.fromkeys(names, (2, str(tmp_path), "")),
        work,
        folder=tmp_path / "kept",
        workers=1,
    )
    assert len(list((tmp_path / "kept").iterdir())) == len(names)


def test_a_folder_that_cannot_be_written_is_told_at_once(run, tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(ConfigError, match="kept cannot be made"):
        run([""])


def test_a_full_disk_ends_the_run_and_names_the_file(run, done, monkeypatch):
    def full(_self, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ConfigError, match=r"kept/0.json cannot be written \(No space left on device\)"):
        run([""] * 9, workers=1)
    assert done() == {0: 1}


def test_a_scheduler_that_does_not_answer_is_told(run, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("training.pool._ANSWERS_WITHIN_S", 0.5)
    with pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        run([""], scheduler="tcp://127.0.0.1:9")


def test_a_cluster_gives_the_same_though_a_worker_is_killed(run, done):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        assert run(["", "die once", "", "", "", ""], scheduler=cluster.scheduler_address) == expected(6)
        assert done()[1] == 2
        with pytest.raises(ConfigError, match="task 6: ValueError: no 6 today"):
            run([""] * 6 + ["raise"], scheduler=cluster.scheduler_address)


def test_a_scheduler_that_goes_away_is_told_and_what_is_done_stays(run, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("training.pool._ANSWERS_WITHIN_S", 0.5)
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        keep = training.pool._keep
        monkeypatch.setattr("training.pool._keep", lambda *args: (keep(*args), cluster.close())[0])
        with pytest.raises(ConfigError, match="is gone; finished tasks are kept"):
            run([""] * 50, scheduler=cluster.scheduler_address)
    assert list((tmp_path / "kept").iterdir())


def test_a_cluster_without_its_library_is_told(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match="'distributed', which is not installed; install nanotox with the"):
        run([""], scheduler="tcp://127.0.0.1:9")
