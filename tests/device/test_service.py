import contextlib
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from device import service
from device.service import Watchdog, blink, clock_state, notify_systemd

UNIT = Path(__file__).parents[2] / "systemd" / "nanotox.service"


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_what_it_is_told(tmp_path, monkeypatch, abstract):
    address = f"@nanotox-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert notify_systemd("READY=1", "STATUS=field 3")
        assert systemd.recv(100) == b"READY=1\nSTATUS=field 3"


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify"])
def test_a_station_started_by_hand_tells_nobody(monkeypatch, address):
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify_systemd("READY=1")


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """Give a function that returns what systemd heard since it was asked last."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)

        def hear():
            said = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    said.append(systemd.recv(100).decode())
            return said

        yield hear


def beat_as(watchdog, *names):
    for name in names:
        loop = threading.Thread(target=watchdog.beat, name=name)
        loop.start()
        loop.join()


def test_the_watchdog_is_fed_when_due_and_each_loop_has_turned_since(heard):
    now = [0.0]
    watchdog = Watchdog(("a", "b"), clock=lambda: now[0])
    beat_as(watchdog, "a", "b")
    assert not watchdog.feed(), "not due yet"
    now[0] = 10.0
    assert watchdog.feed()
    assert heard() == ["WATCHDOG=1"]
    now[0] = 20.0
    beat_as(watchdog, "a", "c")
    assert not watchdog.feed(), "b has not turned since"
    assert heard() == []
    beat_as(watchdog, "b")
    assert watchdog.feed()


@pytest.mark.parametrize(("name", "value"), [("WATCHDOG_USEC", None), ("WATCHDOG_PID", "1")])
def test_a_watchdog_that_is_not_for_this_process_is_not_fed(heard, monkeypatch, name, value):
    monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    now = [0.0]
    watchdog = Watchdog(("a",), clock=lambda: now[0])
    beat_as(watchdog, "a")
    now[0] = 1e6
    assert not watchdog.feed()
    assert heard() == []


def test_the_clock_says_whether_it_can_be_trusted():
    assert clock_state() in ("synced", "unsynced", "unknown")


def systemd_analyze(*arguments):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed; `apt-get install systemd` gives it")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def units(tmp_path):
    """The shipped units with a program that exists here, since `verify` looks for it."""
    program = tmp_path / "nanotox"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in UNIT.parent.glob("*.service"):
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/nanotox/bin/nanotox", str(program)))
    return tmp_path


@pytest.mark.parametrize("name", ["nanotox", "nanotox-alarm", "nanotox-collect"])
def test_a_unit_is_clean_under_systemd_analyze_verify(units, name):
    checked = systemd_analyze("verify", "--man=no", str(units / f"{name}.service"))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["nanotox", "nanotox-collect"])
def test_a_unit_exposes_little(units, name):
    unit = str(units / f"{name}.service")
    checked = systemd_analyze("security", "--offline=true", "--threshold=15", "--no-pager", unit)
    assert checked.returncode == 0, checked.stdout[-300:]


def test_the_unit_says_what_a_station_may_rely_on():
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    # ProcSubset=pid hides /proc/cpuinfo and makes inference 70 times slower.
    assert "ProcSubset" not in [line.split("=")[0] for line in lines]
    assert {
        *("Type=notify", "NotifyAccess=main", "WatchdogSec=30", "Restart=on-failure"),
        *("StartLimitIntervalSec=300", "StartLimitBurst=5", "OnFailure=nanotox-alarm.service"),
        *("RestartPreventExitStatus=2", "LimitCORE=0", "DevicePolicy=closed", "DynamicUser=yes"),
        *("LoadCredential=nanotox.key", "LoadCredential=nanotox.password"),
    } <= set(lines)


def test_a_systemd_that_reads_nothing_hangs_no_loop(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr("device.service._NOTIFY_S", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        assert notify_systemd("READY=1")
        assert not all(notify_systemd("STATUS=x" * 1000) for _ in range(2000))


def test_a_light_blinks_and_then_does_what_it_did(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="this machine has no light called ACT or led0"):
        blink(0.0, tmp_path)
    light, ended = tmp_path / "sys/class/leds/led0", threading.Event()
    light.mkdir(parents=True)
    (light / "trigger").write_text("none [mmc0] timer heartbeat")
    put_back = service._put_back
    monkeypatch.setattr(service, "_put_back", lambda *asked: (put_back(*asked), ended.set()))
    assert blink(0.0, tmp_path) == "led0"
    assert ended.wait(20)
    assert (light / "trigger").read_text() == "mmc0"
    (light / "trigger").write_text("none [timer]")
    assert blink(0.0, tmp_path) == "led0", "one that blinks already is left to whoever puts it back"
    assert (light / "trigger").read_text() == "timer"
