"""`nanotox doctor` says of each part whether it is fit, and what to do where it is not."""

import base64
import json
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

import device.cli.broker_check as broker_module
import device.cli.doctor as doctor_module
import device.service
from device import cli
from device.analysis.phantom import render_field
from device.cli.broker_check import validity, validity_of_file
from device.errors import CameraError
from device.journal import Journal
from device.model_card.strict import write_record
from device.publishers import Lost
from device.station.safe_mode import Starts

CONFIG = (Path(__file__).parent / "data" / "bench.toml").read_text()


@pytest.fixture(scope="module")
def image():
    return render_field(modality="phase", seed=1, size=(480, 640), n_cells=120).image


@pytest.fixture
def lab(tmp_path, monkeypatch, image):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(device.service, "clock_state", lambda: "synced")
    (tmp_path / "station.toml").write_text(CONFIG)
    (tmp_path / "images").mkdir()
    cv2.imwrite("images/0.png", image)
    Journal(tmp_path / "journal.db", site="lab", station="bench-1").close()
    return tmp_path


def doctor(capsys):
    code = cli.main(["doctor", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == (1 if "fail" in {line["state"] for line in lines} else 0)
    assert all(line["do"] for line in lines if line["state"] == "fail"), "each fault says what to do"
    return {line["check"]: line for line in lines}


def test_a_station_that_is_fit_is_green(lab, capsys):
    found = doctor(capsys)
    states = {check: line["state"] for check, line in found.items()}
    assert states.pop("systemd") in ("ok", "skip")
    assert states == {
        **dict.fromkeys(("camera", "focus", "clock", "disk", "model", "journal", "starts"), "ok"),
        **dict.fromkeys(("broker", "calibration"), "skip"),
    }
    assert "640 x 480 px" in found["camera"]["found"]
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "[ ok ] camera" in out
    assert "the station is fit to measure" in out


def test_text_marks_a_fault_with_a_word_and_counts_them(lab, capsys):
    shutil.rmtree("images")
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert (
        "[FAIL] camera       camera.path is images, which does not exist; expected a folder of images" in out
    )
    assert "1 to mend" in out


def test_a_wrong_configuration_is_exit_2(lab, capsys):
    Path("station.toml").write_text(CONFIG.replace("0.65", "0"))
    assert cli.main(["doctor"]) == 2
    assert "scale.um_per_px is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "state", "expected"),
    [
        (
            lambda image: cv2.GaussianBlur(image, (0, 0), 6),
            "fail",
            "out of focus against the model's reference",
        ),
        (lambda image: np.full_like(image, 255), "fail", "cannot be judged: "),
    ],
)
def test_focus_is_judged_as_the_station_does(lab, capsys, image, change, state, expected):
    cv2.imwrite("images/0.png", change(image))
    found = doctor(capsys)["focus"]
    assert (found["state"], expected in found["found"]) == (state, True)


def test_a_camera_that_hangs_is_given_up(lab, capsys, monkeypatch):
    import threading

    hold = threading.Event()

    class Hanging:
        live = True

        def frames(self):
            hold.wait(60)
            return iter(())

        def close(self):
            pass

    monkeypatch.setattr("device.cameras.open_camera", lambda *_: Hanging())
    monkeypatch.setattr(doctor_module, "_FRAME_S", 0.05)
    found = doctor(capsys)["camera"]
    hold.set()
    assert found["state"] == "fail"
    assert found["found"].startswith("no frame within 0.05 s")


def test_a_camera_that_is_lost_says_why(lab, capsys, monkeypatch):
    def lose(*_):
        raise CameraError("camera 'x' cannot be opened; expected a V4L2 camera")

    monkeypatch.setattr("device.cameras.open_camera", lose)
    assert "expected a V4L2 camera" in doctor(capsys)["camera"]["do"]


def test_a_clock_that_nobody_set_and_a_full_disk_are_faults(lab, capsys, monkeypatch):
    monkeypatch.setattr(device.service, "clock_state", lambda: "unsynced")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1 << 20))
    found = doctor(capsys)
    assert found["clock"]["state"] == found["disk"]["state"] == "fail"


def test_a_slow_model_is_a_fault(lab, capsys, monkeypatch):
    monkeypatch.setattr(doctor_module, "_MS_PER_CROP", 0.0)
    assert "ProcSubset" in doctor(capsys)["model"]["do"]


def test_an_altered_journal_is_a_fault(lab, capsys):
    journal = Journal(lab / "journal.db", site="lab", station="bench-1")
    journal.note("start")
    journal.close()
    database = sqlite3.connect("journal.db", isolation_level=None)
    database.execute("UPDATE event SET kind = 'stop'")
    database.close()
    found = doctor(capsys)["journal"]
    assert (found["state"], found["do"]) == ("fail", "keep the file as evidence")


def test_what_a_running_station_uses_is_left_alone(lab, capsys):
    journal = Journal(lab / "journal.db", site="lab", station="bench-1")
    found = doctor(capsys)
    journal.close()
    assert {found["camera"]["state"], found["focus"]["state"]} == {"skip"}
    assert found["journal"]["state"] == "ok"


def test_a_broker_that_is_away_is_a_fault_in_words(lab, capsys):
    text = CONFIG.replace('kind = "jsonl"', 'kind = "mqtt"\nhost = "127.0.0.1"\nport = 1')
    Path("station.toml").write_text(text)
    found = doctor(capsys)["broker"]
    assert found["state"] == "fail"
    assert "127.0.0.1:1 without TLS: " in found["found"]


def test_a_broker_that_fails_at_tls_is_told_by_its_code(lab, capsys, monkeypatch):
    class Failing:
        def __init__(self, _kind, _settings, setup):
            self.start = lambda: setup.notify(Lost("the certificate has expired", "TLS_ERROR"))

        def close(self):
            pass

    Path("station.toml").write_text(CONFIG.replace('kind = "jsonl"', 'kind = "mqtt"'))
    monkeypatch.setattr("device.publishers.open_publisher", Failing)
    assert "TLS_ERROR: the certificate has expired" in doctor(capsys)["broker"]["found"]


def certificate(first, last):
    """Something with the two times of a certificate, as PEM."""
    times = b"".join(b"\x17\x0d" + f"{time:%y%m%d%H%M%SZ}".encode() for time in (first, last))
    der = b"\x30\x20\x02\x01" + b"\x30\x1e" + times
    body = base64.encodebytes(der).decode()
    return der, f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("first", "last", "state", "expected"),
    [(-10, 300, "ok", "valid until"), (-300, 10, "fail", "valid until"), (5, 300, "fail", "valid from")],
)
def test_certificates_say_until_when_they_hold(tmp_path, monkeypatch, first, last, state, expected):
    now = datetime.now(UTC).replace(microsecond=0)
    times = (now + timedelta(days=first), now + timedelta(days=last))
    der, pem = certificate(*times)
    (tmp_path / "ca.pem").write_text("a comment\n" + pem)
    assert validity(der) == validity_of_file(tmp_path / "ca.pem") == times
    monkeypatch.setattr(broker_module, "validity_of_broker", lambda *_: times)

    class Files:
        ca_file, cert_file = tmp_path / "ca.pem", None

    found = list(broker_module._certificates(Files))
    assert [f.state for f in found] == [state, state]
    assert all(expected in f.found for f in found)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_said(tmp_path, text):
    (tmp_path / "ca.pem").write_text(text)

    class Files:
        ca_file, cert_file, key_file = tmp_path / "ca.pem", tmp_path / "none.pem", None
        host, port = "127.0.0.1", 1

    assert {f.state for f in broker_module._certificates(Files)} == {"fail"}


def test_safe_mode_is_red_and_says_what_runs_instead(lab, capsys):
    told = "3 crashes within 10 min; it runs with model old"
    write_record(lab / "journal.starts.json", Starts(safe_mode=told))
    found = doctor(capsys)["starts"]
    assert (found["state"], found["found"]) == ("fail", f"SAFE_MODE: {told}")
