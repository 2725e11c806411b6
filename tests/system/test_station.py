import argparse
import contextlib
import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from device import models
from device.analysis.assess import assess
from device.cli import main
from device.cli.plate import RefusedError, RunningStation
from device.journal import Journal
from device.messages import State, Topics, payload
from device.messages.schema import asyncapi
from device.publishers import Connected, Lost, Message, Received, Settled, Setup, _link, mqtt, open_publisher
from device.records import Frame, Outcome, PlateReport, SampleVerdict, Scale
from device.station import load_config, open_instruments
from device.station.sender import Sender

pytestmark = pytest.mark.system

NOW = datetime(2026, 3, 4, tzinfo=UTC)
TINY = Path(__file__).parents[1] / "device" / "data" / "tiny-cell"
WILL = Message("nanotox/v1/lab/b/availability", b"offline", retain=True, content_type="text/plain")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(is_met, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_met():
            return True
        time.sleep(0.01)
    return False


class Bench:
    """An installed station in a folder of its own: files, journal and the process."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None
        (folder / "images").mkdir()
        rng = np.random.default_rng(7)
        for i in range(6):
            cv2.imwrite(str(folder / f"images/f{i}.png"), rng.integers(60, 200, (64, 64), np.uint8))
        bundle = models.find_bundle(TINY)
        card = replace(bundle.card, name="toy", assay="adherent", modality="phase")
        models.write_bundle(folder / "toy", card=card, model=bundle.model, golden=bundle.golden)

    def configure(
        self, port, *, camera='kind = "folder"\npath = "images"\nloop = true', drain_s=5.0, more=""
    ):
        (self.folder / "station.toml").write_text(
            f'[station]\nsite = "lab"\nname = "bench-1"\nassay = "adherent"\nmodality = "phase"\n'
            f"[scale]\num_per_px = 0.65\n[camera]\n{camera}\n"
            f'[model]\ncell_model = "toy"\n[publisher]\nhost = "127.0.0.1"\nport = {port}\n'
            f"[journal]\ndrain_s = {drain_s}\n{more}"
        )

    def trust_model(self):
        """Vouch for the toy model; one that is not known is tried in a process of its own at each start."""
        known = hashlib.sha256((self.folder / "toy" / "SHA256SUMS").read_bytes()).hexdigest()
        config = self.folder / "station.toml"
        config.write_text(config.read_text().replace("[model]", f'[model]\ntrusted = ["{known}"]'))

    def start(self):
        command = [sys.executable, "-m", "device.cli", "run", "--config", str(self.folder / "station.toml")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self.folder)
        return self

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def end(self, *, number=None):
        """Send a signal if one is given; return the exit code and what was said."""
        if number is not None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def n_stored(self):
        path = self.folder / "journal.db"
        if not path.exists():
            return 0
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return db.execute("SELECT max(seq) FROM record").fetchone()[0] or 0
        except sqlite3.OperationalError:
            return 0  # not made yet
        finally:
            db.close()

    def journal(self):
        return Journal(self.folder / "journal.db", site="lab", station="bench-1")


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def test_every_image_reaches_the_subscriber_once_and_the_station_ends_by_itself(bench, broker, subscribe):
    subscriber = subscribe(broker)
    bench.configure(broker.port, camera='kind = "folder"\npath = "images"')
    code, said = bench.start().end()
    assert code == 0, said
    assert subscriber.wait_for(lambda s: s.words() == ["online", "stopped"])
    assert [reading["source"] for reading in subscriber.payloads("reading")] == [
        f"f{i}.png" for i in range(6)
    ]
    assert subscriber.seqs() == list(range(1, 7))
    message = next(m for m in subscriber.messages if m.topic.endswith("/reading"))
    assert message.properties.ContentType == "application/json"
    assert (message.qos, message.retain) == (1, False)
    assert all(len(m.payload) <= 16 * 1024 for m in subscriber.messages)
    late = subscribe(broker)
    assert late.wait_for(lambda s: s.words() == ["stopped"])
    assert {m.topic.rsplit("/", 1)[1] for m in late.messages} == {
        "availability",
        "info",
        "state",
        "health",
        "head",
    }
    assert late.payloads("head")[0]["seq"] == 6
    assert (
        0
        < next(m for m in late.messages if m.topic.endswith("/state")).properties.MessageExpiryInterval
        <= 300
    )


def test_a_plate_on_the_phantom_camera_ends_with_its_report(bench, broker, subscribe):
    subscriber = subscribe(broker)
    (bench.folder / "plate.csv").write_text(
        "well,sample,role,dose,dose_unit,dead_fraction,fields\n"
        "A1,medium,negative,,,0.03,2\nA2,zinc,positive,,,0.9,2\nB1,silver,test,10,ug/mL,0.1,2\n"
    )
    bench.configure(broker.port, camera='kind = "phantom"', more='[plate]\nfile = "plate.csv"')
    code, said = bench.start().end()
    assert code == 0, said
    assert subscriber.wait_for(lambda s: len(s.payloads("plate")) == 1)
    verdicts = subscriber.payloads("verdict")
    assert [v["well"] for v in verdicts if v["stage"] == "final"] == ["A1", "A2", "B1"]
    assert all(record["simulated"] for record in verdicts + subscriber.payloads("reading"))
    assert "non_toxic" not in {verdict["outcome"] for verdict in verdicts}, (
        "the toy model is nobody's to trust"
    )
    assert sorted(subscriber.seqs()) == list(range(1, 6 + 6 + 3 + 1 + 1))


def test_nothing_written_is_lost_when_the_station_is_killed(bench, broker, subscribe):
    subscriber = subscribe(broker)
    bench.configure(broker.port)
    for _ in range(2):
        before = bench.n_stored()
        bench.start()
        assert wait_until(lambda least=before + 12: bench.n_stored() >= least)
        bench.kill()
    at_kill = bench.n_stored()
    bench.start()
    assert wait_until(lambda: bench.n_stored() >= at_kill + 3)
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said
    journal = bench.journal()
    n_stored = journal.verify()
    assert journal.count_unsent() == 0
    assert subscriber.wait_for(lambda s: set(s.seqs()) == set(range(1, n_stored + 1)))
    assert n_stored >= at_kill + 3 >= 27
    told = {}
    for reading in subscriber.payloads("reading"):
        assert told.setdefault(reading["seq"], reading) == reading, "a duplicate is the same record"
    assert {reading["ledger_id"] for reading in told.values()} == {journal.ledger_id}
    assert len({reading["boot_id"] for reading in told.values()}) == 3
    journal.close()


def test_the_station_works_on_while_the_broker_is_killed(bench, make_broker, subscribe, tmp_path):
    # It remembers who subscribed; else the station may be back before the subscriber, and speak to nobody.
    saved = (
        f"persistence true\npersistence_location {tmp_path}/\nautosave_interval 1\nautosave_on_changes true\n"
    )
    broker = make_broker(saved)
    subscriber = subscribe(broker)
    bench.configure(broker.port)
    bench.start()
    assert subscriber.wait_for(lambda s: len(s.seqs()) >= 5)
    alone = set()
    for _ in range(2):
        broker.kill()
        at_kill = bench.n_stored()
        assert wait_until(lambda least=at_kill + 10: bench.n_stored() >= least), "no broker stops no camera"
        at_return = bench.n_stored()
        alone |= set(range(at_kill + 1, at_return + 1))
        broker.start()
        assert subscriber.wait_for(lambda s, least=at_return: max(s.seqs()) > least)
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said
    assert said.count("no broker") == 2, "each outage is told once"
    journal = bench.journal()
    n_stored = journal.verify()
    assert journal.count_unsent() == 0
    assert subscriber.wait_for(lambda s: max(s.seqs()) == n_stored)
    # A killed broker takes some of what it acknowledged to its grave; that is in the journal for replay.
    # Whatever was stored while there was none has arrived.
    assert alone <= set(subscriber.seqs())
    assert len(set(range(1, n_stored + 1)) - set(subscriber.seqs())) <= 2 * _link.WINDOW
    journal.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(bench, broker, subscribe, number):
    subscriber = subscribe(broker)
    bench.configure(broker.port)
    bench.start()
    assert subscriber.wait_for(lambda s: len(s.seqs()) >= 3)
    began = time.monotonic()
    code, said = bench.end(number=number)
    assert (code, time.monotonic() - began < 5) == (0, True), said
    assert "Traceback" not in said
    assert subscriber.wait_for(lambda s: s.words() == ["online", "stopped"])


def test_an_absent_broker_is_told_and_the_records_follow_at_the_next_start(bench, make_broker, subscribe):
    bench.configure(9, camera='kind = "folder"\npath = "images"', drain_s=0.3)
    code, said = bench.start().end()
    assert code == 1
    assert "nanotox: error: 6 records unsent, kept in " in said
    assert "Traceback" not in said
    broker = make_broker()
    subscriber = subscribe(broker)
    bench.configure(broker.port, camera='kind = "folder"\npath = "images"')
    code, said = bench.start().end()
    assert code == 0, said
    assert subscriber.wait_for(lambda s: s.seqs() == list(range(1, 13)))


@pytest.mark.parametrize(
    ("change", "code", "expected"),
    [
        (("um_per_px = 0.65", ""), 2, "scale.um_per_px is missing; expected 0.05 to 10 (station.toml)"),
        (("loop = true", "lop = true"), 2, "camera.lop is unknown; expected path, loop; did you mean loop?"),
        (('"folder"', '"webcam"'), 2, "camera.kind is 'webcam'; expected one of folder, "),
        (('"phase"', '"brightfield"'), 2, "model toy is for phase; expected brightfield"),
        (('"toy"', '"broken"'), 2, "broken"),
        (('"images"', '"nowhere"'), 1, "which does not exist; expected a folder of images"),
    ],
)
def test_a_station_that_cannot_be_right_does_not_start(bench, capsys, change, code, expected):
    bench.configure(9)
    broken = bench.folder / "broken"
    subprocess.run(["cp", "-r", bench.folder / "toy", broken], check=True)
    model = bytearray((broken / "model.tflite").read_bytes())
    model[len(model) // 2] ^= 1
    (broken / "model.tflite").write_bytes(bytes(model))
    path = bench.folder / "station.toml"
    path.write_text(path.read_text().replace(*change))
    assert main(["run", "--config", str(path)]) == code
    said = capsys.readouterr().err
    error = next(line for line in said.splitlines() if line.startswith("nanotox: error: "))
    assert expected in error
    assert "Traceback" not in said
    assert bench.n_stored() == 0


def test_the_first_reading_is_there_in_a_second_and_a_half(bench):
    bench.configure(9)
    bench.trust_model()
    walls, cpus = [], []
    while len(walls) < 3 and not (walls and min(*walls, *cpus) <= 1.5):
        before = bench.n_stored()
        children = os.times()
        began = time.monotonic()
        bench.start()
        assert wait_until(lambda least=before + 1: bench.n_stored() >= least)
        walls.append(time.monotonic() - began)
        bench.kill()
        after = os.times()
        cpus.append(
            after.children_user + after.children_system - children.children_user - children.children_system
        )
    # A busy machine lends only part of a processor: the work itself must then be that short.
    assert min(walls) <= 1.5 or min(cpus) <= 1.5, (walls, cpus)


# Plates by commands

PLATE = (
    "well,sample,role,dose,dose_unit,dead_fraction,fields\n"
    "A1,medium,negative,,,0.03,2\nA2,zinc,positive,,,0.9,2\nB1,silver,test,10,ug/mL,0.1,2\n"
)


def plate(bench, *arguments):
    return main(["plate", *arguments, "--config", str(bench.folder / "station.toml")])


def test_a_plate_is_started_watched_and_ends_by_itself_and_its_frames_are_kept(
    bench, broker, subscribe, capsys, monkeypatch
):
    monkeypatch.setattr("device.cli.plate._ANSWER_S", 60.0)  # a busy machine
    subscriber = subscribe(broker)
    (bench.folder / "p7.csv").write_text(PLATE)
    keep = "[plate]\nwait = true\n[frames]\nkeep = true\n"
    bench.configure(broker.port, camera='kind = "phantom"', more=keep)
    bench.start()
    assert subscriber.wait_for(lambda s: s.payloads("state"))
    assert subscriber.payloads("state")[-1]["mode"] == "idle"
    assert plate(bench, "status") == 0
    assert capsys.readouterr().out == "no plate runs; start one with nanotox plate start\n"
    assert plate(bench, "start", "--plate", str(bench.folder / "p7.csv"), "--operator", "Ada") == 0
    assert "plate p7 runs: 3 wells" in capsys.readouterr().out
    capsys.readouterr()
    assert plate(bench, "status", "--watch") == 0
    told = capsys.readouterr().out.splitlines()
    # on a slow machine it may end before it is looked at
    assert told[0] == "plate p7 by Ada" or told[0].startswith("no plate runs")
    assert "\x1b" not in "".join(told)
    assert subscriber.wait_for(lambda s: s.payloads("plate"))
    report = subscriber.payloads("plate")[0]
    assert (report["plate"], report["operator"], report["n_wells"]) == ("p7", "Ada", 3)
    final = [v["well"] for v in subscriber.payloads("verdict") if v["stage"] == "final"]
    assert final == ["A1", "A2", "B1"]
    readings = subscriber.payloads("reading")
    assert [(r["plate"], r["well"], r["field"]) for r in readings] == [
        ("p7", well, i) for well in ("A1", "A2", "B1") for i in range(2)
    ]
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said
    config = load_config(bench.folder / "station.toml")
    tools = open_instruments(config)
    journal, known = bench.journal(), Scale(0.65, "measured")
    for reading in (journal.full(r["seq"]) for r in readings):
        file = bench.folder / "frames" / reading["taken_at"][:10] / f"{reading['frame_sha256']}.png"
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        again = payload(assess(Frame(image, NOW, "kept", 0, known), tools.classify, tools.settings))
        same = {"n_live", "n_dead", "n_other", "affected", "tally", "quality", "cells", "outcome"}
        assert {key: again[key] for key in same} == {key: reading[key] for key in same}
    journal.close()


def test_a_live_plate_outlives_a_killed_station(bench, broker, subscribe, capsys, monkeypatch):
    monkeypatch.setattr("device.cli.plate._ANSWER_S", 60.0)  # a busy machine
    subscriber = subscribe(broker)
    (bench.folder / "p7.csv").write_text(PLATE.replace(",2\n", ",1000\n"))
    bench.configure(broker.port, camera='kind = "phantom"\nlive = true\nperiod_s = 0.2')

    def n_of_well(s):
        return sum(reading["well"] == "A1" for reading in s.payloads("reading"))

    def resumed(s):
        return len({state["boot_id"] for state in s.payloads("state") if state["plate"] == "p7"}) == 2

    bench.start()
    assert subscriber.wait_for(lambda s: s.payloads("reading"), 90)
    assert plate(bench, "start", "--plate", str(bench.folder / "p7.csv"), "--operator", "Ada") == 0
    assert plate(bench, "well", "A1") == 0
    assert subscriber.wait_for(lambda s: n_of_well(s) >= 4, 90)
    bench.kill()
    bench.start()
    assert subscriber.wait_for(resumed, 90)
    assert plate(bench, "well", "A1") == 0
    before = n_of_well(subscriber)
    assert subscriber.wait_for(lambda s: n_of_well(s) >= before + 3, 90)
    capsys.readouterr()
    assert plate(bench, "status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["plate"], status["operator"], status["well"]) == ("p7", "Ada", "A1")
    assert plate(bench, "finish") == 1
    assert "fields are missing in A1, A2, B1" in capsys.readouterr().err
    assert plate(bench, "finish", "--force") == 0
    assert subscriber.wait_for(lambda s: s.payloads("plate"))
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said
    journal = bench.journal()
    rows = [(row.leaf, journal.full(row.seq)) for row in journal.rows()]
    journal.close()
    stored = [values for leaf, values in rows if leaf == "reading" and values["well"] == "A1"]
    final = next(v for leaf, v in rows if leaf == "verdict" and v["stage"] == "final" and v["well"] == "A1")
    accepted = [reading["field"] for reading in stored if reading["quality"]["passed"]]
    assert len({reading["boot_id"] for reading in stored}) == 2
    assert [count["field"] for count in final["fields"]] == accepted == list(range(len(accepted)))


def test_records_come_again_when_they_are_asked_for(bench, broker, subscribe, capsys, monkeypatch):
    monkeypatch.setattr("device.cli.plate._ANSWER_S", 60.0)  # a busy machine
    bench.configure(broker.port, camera='kind = "folder"\npath = "images"')
    code, said = bench.start().end()
    assert code == 0, said
    bench.configure(broker.port, camera='kind = "folder"\npath = "images"', more="[plate]\nwait = true\n")
    bench.start()
    subscriber = subscribe(broker)
    asked = ["replay", "--config", str(bench.folder / "station.toml"), "--from"]
    assert main([*asked, "2", "--to", "1001"]) == 0
    assert capsys.readouterr().out == "records 2 to 1001 come again\n"
    assert subscriber.wait_for(lambda s: s.seqs() == [2, 3, 4, 5, 6])
    assert main([*asked, "7", "--to", "9"]) == 1
    assert "from_seq is 7; expected at most 6, the newest record" in capsys.readouterr().err
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said


def test_nobody_at_the_other_end_is_told_in_one_line(bench, make_broker, capsys, monkeypatch):
    bench.configure(9)
    assert plate(bench, "status") == 1
    assert "no broker at 127.0.0.1:9 ([Errno 111] Connection refused)" in capsys.readouterr().err
    broker = make_broker()
    bench.configure(broker.port)
    monkeypatch.setattr("device.cli.plate._ANSWER_S", 0.5)
    assert plate(bench, "status") == 1
    assert "station lab/bench-1 does not answer within 0.5 s; expected it to run" in capsys.readouterr().err


# What is on the wire


def ask(bench, name, /, **args):
    """What the station answers to a command: its result, or the code of its refusal.

    On a very busy machine the rendering camera misses its deadline: it is asked again when it is back.
    """
    asker = argparse.Namespace(config=bench.folder / "station.toml", operator="Ada")
    for _ in range(20):
        with RunningStation(asker) as station:
            try:
                return station.ask(name, args)
            except RefusedError as error:
                if error.code != "CAMERA":
                    return error.code
    raise AssertionError("the camera does not come back")


def test_a_calibration_by_command_is_used_by_the_station_that_starts_anew(
    bench, broker, subscribe, monkeypatch
):
    monkeypatch.setattr("device.cli.plate._ANSWER_S", 60.0)
    subscriber = subscribe(broker)
    bench.configure(broker.port, camera='kind = "phantom"\nlive = true\nperiod_s = 0.2')
    bench.trust_model()
    bench.start()
    assert subscriber.wait_for(lambda s: s.payloads("reading"), 90)
    assert ask(bench, "qc_run", fields=1)["state"] in ("learning", "no_field")
    assert ask(bench, "calibrate", kind="pixel_size", period_um=10) == "IMAGE"
    made = ask(bench, "calibrate", kind="flat_field")
    assert subscriber.wait_for(lambda s: s.words() == ["online", "stopped", "online"], 90)
    n = len(subscriber.payloads("reading"))
    assert subscriber.wait_for(lambda s: len(s.payloads("reading")) > n, 90)
    first, second = (subscriber.payloads("info")[i] for i in (0, -1))
    assert first["boot_id"] != second["boot_id"]
    assert (first["calibrations"], second["calibrations"][0]["id"]) == ([], made["id"])
    assert bench.process.poll() is None, "it is one process"
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said
    assert sorted(subscriber.seqs()) == list(range(1, max(subscriber.seqs()) + 1))


def test_all_that_a_station_publishes_is_in_the_contract_and_obeys_it(
    bench, broker, subscribe, capsys, monkeypatch
):
    subscriber, document = subscribe(broker), asyncapi("0.1.0")
    (bench.folder / "plate.csv").write_text(PLATE)
    (bench.folder / "occupied").write_text("frames cannot be kept here")
    more = '[plate]\nfile = "plate.csv"\n[frames]\nkeep = true\npath = "occupied"\n'
    bench.configure(broker.port, camera='kind = "phantom"\nlive = true\nperiod_s = 0.2', more=more)
    config = bench.folder / "station.toml"
    config.write_text(config.read_text().replace("[scale]", "health_s = 1\noverlay = true\n[scale]"))
    monkeypatch.setattr("device.cli.plate._ANSWER_S", 60.0)
    bench.start()
    assert subscriber.wait_for(lambda s: s.payloads("alert") and len(s.payloads("health")) > 2, 90)
    assert plate(bench, "well", "A1") == 0
    assert subscriber.wait_for(lambda s: any(m.topic.endswith("/image/overlay") for m in s.messages), 90)
    assert subscriber.wait_for(lambda s: s.payloads("latest"), 90)
    (captured,) = ask(bench, "capture")["seqs"]
    assert ask(bench, "annotate", seq=captured, decision="accept")["reviewed"] == "reading/1"
    assert 'kind = "phantom"' in ask(bench, "config_get")["toml"]
    assert ask(bench, "identify")["host"]
    assert ask(bench, "ping")["plate"] == ask(bench, "plate_status")["plate"] == "plate"
    waits = {"qc_run": {}, "calibrate": {"kind": "flat_field"}, "model_rollback": {}}
    waits |= {"model_activate": {"name": "phase-cell"}, "plate_start": {"plate": "p", "csv": "well"}}
    assert {ask(bench, name, **args) for name, args in waits.items()} == {"PLATE_RUNS"}
    assert ask(bench, "replay", from_seq=1, to_seq=1) is None
    assert plate(bench, "finish", "--force") == 0
    assert subscriber.wait_for(lambda s: s.payloads("plate"))
    late = subscribe(broker)
    assert late.wait_for(lambda s: s.payloads("latest"))
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said
    assert subscriber.wait_for(lambda s: s.words()[-1] == "stopped")
    channels, seen = document["channels"], {}
    for message in subscriber.messages:
        leaf = message.topic.removeprefix("nanotox/v1/lab/bench-1/").replace("/", "_")
        leaf = "reply" if leaf.startswith("reply_") else leaf
        seen.setdefault(leaf, []).append(message)
    heard = {leaf for leaf in channels if not leaf.startswith("cmd_")}
    assert seen.keys() == channels.keys(), "every leaf and every command, and none besides"
    for leaf, messages in seen.items():
        form = document["components"]["messages"][leaf]
        # a $ref counts from the document
        validator = jsonschema.Draft202012Validator({**form["payload"], "components": document["components"]})
        binding = document["operations"][leaf]["bindings"]["mqtt"]
        for message in messages:
            assert message.properties.ContentType == form["contentType"] or leaf.startswith("cmd_")
            assert message.qos == binding["qos"]
            if form["contentType"] == "application/json":
                assert len(message.payload) <= 16 * 1024
                validator.validate(json.loads(message.payload))
    kept = {
        m.topic.removeprefix("nanotox/v1/lab/bench-1/").replace("/", "_") for m in late.messages if m.retain
    }
    assert kept == {leaf for leaf in heard if document["operations"][leaf]["bindings"]["mqtt"]["retain"]}
    picture, by_seq = seen["image_overlay"][-1], {r["seq"]: r for r in subscriber.payloads("reading")}
    assert len(picture.payload) <= 100_000
    assert cv2.imdecode(np.frombuffer(picture.payload, np.uint8), cv2.IMREAD_COLOR) is not None
    told = dict(picture.properties.UserProperty)
    assert by_seq[int(told["seq"])]["ledger_id"] == told["ledger_id"]
    assert {m.properties.MessageExpiryInterval for m in seen["image_overlay"]} == {120}
    assert {m.properties.MessageExpiryInterval for m in seen["health"]} == {3}
    assert all(
        h["n_captured"] == h["n_analyzed"] + h["n_dropped"] + h["n_waiting"]
        for h in subscriber.payloads("health")
    )
    published = {v["seq"]: v for v in subscriber.payloads("verdict")}
    assert all(published[now["verdict"]["seq"]] == now["verdict"] for now in subscriber.payloads("latest"))
    # The first record came twice, by replay.
    by_seq = {a["seq"]: a for a in subscriber.payloads("alert")}
    alerts = [(a["code"], a["raised"]) for a in by_seq.values()]
    # A machine that is very busy renders too late at times.
    assert [alert for alert in alerts if alert[0] != "CAMERA_LOST"] == [("FRAMES_NOT_KEPT", True)]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, 16 MB; a file on it stands for whoever fills it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here; a limit of the file size is tested in test_journal.py")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk):
    with contextlib.suppress(OSError), (disk / "films").open("wb") as film:
        while True:
            film.write(bytes(4096))
            film.flush()


@pytest.mark.parametrize("has_journal", [False, True])
def test_a_disk_that_is_full_at_the_start_is_told_and_waited_for(
    bench, broker, subscribe, small_disk, has_journal
):
    subscriber = subscribe(broker)
    bench.configure(broker.port)
    bench.trust_model()
    config = bench.folder / "station.toml"
    config.write_text(config.read_text().replace("[journal]", f'[journal]\npath = "{small_disk}/journal.db"'))
    if has_journal:
        bench.start()
        assert subscriber.wait_for(lambda s: len(s.payloads("reading")) > 3)
        assert bench.end(number=signal.SIGTERM)[0] == 0
    fill(small_disk)
    before = len(subscriber.payloads("reading"))
    bench.start()
    if has_journal:  # the room held beside it is enough to say so to all
        assert subscriber.wait_for(lambda s: s.payloads("state")[-1]["fault"] == "STORAGE_FULL")
        assert subscriber.wait_for(lambda s: [a["code"] for a in s.payloads("alert")] == ["STORAGE_FULL"])
    else:
        assert "STORAGE_FULL: " in next(line for line in bench.process.stderr if "ERROR" in line)
        assert not subscriber.words()
    assert len(subscriber.payloads("reading")) == before
    (small_disk / "films").unlink()
    assert subscriber.wait_for(lambda s: len(s.payloads("reading")) > before + 3)
    assert subscriber.wait_for(lambda s: s.payloads("state")[-1]["fault"] is None)
    code, said = bench.end(number=signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False), said
    journal = Journal(small_disk / "journal.db", site="lab", station="bench-1")
    n_stored = journal.verify()
    journal.close()
    assert subscriber.wait_for(lambda s: set(s.seqs()) == set(range(1, n_stored + 1)))


def test_a_full_disk_is_told_nothing_is_lost_and_it_goes_on_by_itself(bench, broker, subscribe, small_disk):
    subscriber = subscribe(broker)
    bench.configure(broker.port)
    config = bench.folder / "station.toml"
    config.write_text(config.read_text().replace("[journal]", f'[journal]\npath = "{small_disk}/journal.db"'))
    bench.start()
    assert subscriber.wait_for(lambda s: len(s.payloads("reading")) > 3)
    for round_ in (1, 2):
        fill(small_disk)
        assert subscriber.wait_for(lambda s: [a["code"] for a in s.payloads("alert")] == ["STORAGE_FULL"])
        assert subscriber.wait_for(lambda s: s.payloads("state")[-1]["fault"] == "STORAGE_FULL")
        assert bench.process.poll() is None
        before = len(subscriber.payloads("reading"))
        (small_disk / "films").unlink()
        more = before + 5 * round_
        assert subscriber.wait_for(lambda s, more=more: len(s.payloads("reading")) > more)
        assert subscriber.wait_for(lambda s: s.payloads("state")[-1]["fault"] is None)
        assert wait_until(lambda: (small_disk / "journal.db.ballast").exists())
    code, said = bench.end(number=signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False), said
    journal = Journal(small_disk / "journal.db", site="lab", station="bench-1")
    n_stored = journal.verify()
    assert subscriber.wait_for(lambda s: set(s.seqs()) == set(range(1, n_stored + 1)))
    assert journal._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    journal.close()
    cleared = [(a["code"], a["raised"]) for a in subscriber.payloads("alert")]
    assert cleared == [("STORAGE_FULL", True), ("STORAGE_FULL", False)]


def test_a_clock_that_jumps_ten_years_changes_no_order_and_no_duration(bench, broker, subscribe, monkeypatch):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed; clocks that jump are also injected in the tests of device")
    subscriber, setting = subscribe(broker), bench.folder / "clock"
    setting.write_text("+0d\n")
    bench.configure(broker.port)
    config = bench.folder / "station.toml"
    config.write_text(config.read_text().replace("[scale]", "health_s = 1\n[scale]"))
    bench.trust_model()  # waiting for the child of a trial the library makes an error of
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("FAKETIME_TIMESTAMP_FILE", str(setting))
        patch.setenv("FAKETIME_NO_CACHE", "1")
        patch.setenv(
            "FAKETIME_DONT_FAKE_MONOTONIC", "1"
        )  # as a time server: it sets the clock, not the uptime
        bench.start()
    for jump in ("+0d", "+3650d", "-3650d", "+0d"):
        setting.write_text(jump + "\n")
        before, told = len(subscriber.payloads("reading")), len(subscriber.payloads("health"))
        assert subscriber.wait_for(lambda s, least=before + 5: len(s.payloads("reading")) >= least, 60)
        assert subscriber.wait_for(lambda s, least=told + 2: len(s.payloads("health")) >= least, 60)
    code, said = bench.end(number=signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False), said
    journal = bench.journal()
    n_stored = journal.verify()
    rows = [json.loads(row.message) for row in journal.rows()]
    journal.close()
    assert subscriber.wait_for(lambda s: set(s.seqs()) == set(range(1, n_stored + 1)))
    readings = [row for row in rows if row["schema"] == "reading/1"]
    numbers = [reading["sequence"] for reading in readings]
    assert numbers == sorted(numbers), "the order of seq is that of the frames"
    years = {int(reading["ts"][:4]) for reading in readings}
    assert max(years) - min(years) >= 19
    assert all((health["oldest_unsent_s"] or 0) >= 0 for health in subscriber.payloads("health"))


# The publisher against a real broker


def test_a_visitor_hears_what_it_asks_for_but_nothing_that_was_kept(broker):
    heard, other = Heard(), Heard()
    sender = connect(broker.port, other)
    other.wait(Connected)
    sender.send(Message("nanotox/v1/lab/b/cmd/ping", b"kept", retain=True))
    other.wait(Settled)
    settings = mqtt.Settings(host="127.0.0.1", port=broker.port, session_expiry_s=0)
    visitor = open_publisher("mqtt", settings, Setup("nanotox-v", None, heard, ("nanotox/v1/lab/b/cmd/#",)))
    visitor.start()
    assert heard.wait(Connected).refused is None
    asked = Message("nanotox/v1/lab/b/cmd/ping", b"{}", response_topic="a/b", correlation=b"7", expiry_s=30)
    sender.send(asked)
    found = heard.wait(Received)
    assert found.expiry_s in (29, 30)
    assert replace(found, expiry_s=None) == Received(
        "nanotox/v1/lab/b/cmd/ping", b"{}", "a/b", b"7", retained=False
    )
    sender.send(Message("nanotox/v1/lab/b/cmd/ping", b"1", retain=True))
    assert heard.wait(Received, n=2).retained
    for publisher in (sender, visitor):
        publisher.close()


class Heard:
    def __init__(self):
        self.events, self._news = [], threading.Condition()

    def __call__(self, event):
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait(self, kind, n=1):
        with self._news:
            assert self._news.wait_for(lambda: len(self.of(kind)) >= n, 20), self.events
        return self.of(kind)[n - 1]

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def connect(port, heard, **options):
    settings = mqtt.Settings(host="127.0.0.1", port=port, **options)
    publisher = open_publisher("mqtt", settings, Setup("nanotox-b", WILL, heard))
    publisher.start()
    return publisher


def test_a_topic_that_the_access_list_forbids_is_heard_of(make_broker, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic write nanotox/v1/lab/b/availability\n")
    broker, heard = make_broker(f"acl_file {acl}\n"), Heard()
    publisher = connect(broker.port, heard)
    heard.wait(Connected)
    refused = publisher.send(Message("nanotox/v1/lab/b/verdict", b"{}"))
    taken = publisher.send(WILL)
    heard.wait(Settled, n=2)
    answers = {event.token: event.failure for event in heard.of(Settled)}
    assert answers == {refused: "Not authorized (code 135)", taken: None}
    publisher.close()


def test_a_wrong_password_is_told_and_not_hammered(make_broker, tmp_path):
    passwords, mine = tmp_path / "passwords", tmp_path / "mine"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", passwords, "bench", "right"], check=True, capture_output=True)
    mine.write_text("wrong")
    mine.chmod(0o600)
    broker = make_broker(f"password_file {passwords}\n")
    broker_log = broker._folder / "mosquitto.log"
    heard = Heard()
    publisher = connect(broker.port, heard, user="bench", password_file=mine)
    assert heard.wait(Lost).detail == "the broker refuses: Not authorized (code 135)"
    time.sleep(1.0)  # within which a naive client had tried ten times
    publisher.close()
    assert len(heard.of(Lost)) == 1
    assert broker_log.exists()


def test_the_broker_says_offline_for_a_station_that_vanished(broker, subscribe, monkeypatch):
    monkeypatch.setattr(mqtt, "_WILL_DELAY_S", 1)
    subscriber = subscribe(broker)
    heard = Heard()
    publisher = connect(broker.port, heard)
    heard.wait(Connected)
    publisher._closing.set()
    publisher._link.client.socket().shutdown(2)
    began = time.monotonic()
    assert subscriber.wait_for(lambda s: s.words() == ["offline"])
    assert time.monotonic() - began > 0.8, "a short break must not show"
    publisher.close()


def test_two_stations_of_one_name_are_told_so(broker):
    heard, other = Heard(), Heard()
    publishers = [connect(broker.port, heard), connect(broker.port, other)]
    assert wait_until(
        lambda: any("another station running" in lost.detail for lost in heard.of(Lost) + other.of(Lost))
    )
    for publisher in publishers:
        publisher.close()


def test_a_record_that_the_broker_never_takes_blocks_none_behind_it(
    make_broker, subscribe, bench, monkeypatch, caplog
):
    monkeypatch.setattr(mqtt, "_RETRY_S", (0.01, 0.05))
    broker = make_broker("message_size_limit 3000\n")
    subscriber = subscribe(broker)
    journal = bench.journal()
    journal.append(a_plate(1), a_plate(30), a_plate(2))
    head = State("state/1", journal.boot_id, NOW, "running", None, None, None, 0, 0, None)
    sender = Sender(
        journal,
        Topics("lab", "bench-1"),
        info=head,
        state=head,
        make_publisher=lambda setup: open_publisher("mqtt", mqtt.Settings(port=broker.port), setup),
        client_id="nanotox-bench-1",
    )
    sender.start()
    assert subscriber.wait_for(lambda s: {1, 2, 3} <= set(s.seqs()))
    assert sender.end(5.0) == 0
    told = {record["seq"]: record for record in subscriber.payloads("plate")}
    assert (told[2]["left_out"], "samples" in told[2]) == (["*"], False)
    assert len(told[3]["samples"]) == 2
    assert told[2]["hash"] == told[3]["prev_hash"]
    assert len(journal.full(2)["samples"]) == 30
    assert journal.verify() == 3
    assert "record 2 breaks every connection" in caplog.text
    journal.close()


def a_plate(n_samples):
    told = None, None, None, None, None
    sample = SampleVerdict(
        "z", "test", 1.0, "%", Outcome.INVALID, (), "any", ("A1",), (Outcome.INVALID,), 3, *told
    )
    samples = (sample,) * n_samples
    return PlateReport("p", None, "r/1", "d" * 64, None, False, (), samples, (), None, n_samples, False)


def test_monitoring_reads_what_health_says_until_the_station_ends(bench, broker, subscribe):
    subscriber, port = subscribe(broker), free_port()
    bench.configure(broker.port, more=f"[http]\nport = {port}\n")
    bench.trust_model()

    def ask(page):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=30) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def scrape():
        families = list(text_string_to_metric_families(ask("metrics")))
        whose = {(s.labels["site"], s.labels["station"]) for family in families for s in family.samples}
        assert whose <= {("lab", "bench-1")}
        return {s.name: s.value for family in families for s in family.samples if len(s.labels) == 2}

    bench.start()
    assert wait_until(lambda: scrape().get("nanotox_frames_analyzed_total", 0) >= 6)
    assert json.loads(ask("healthz"))["status"] == "ok"
    assert subscriber.wait_for(lambda s: s.payloads("health"))
    told = scrape()
    assert told["nanotox_disk_free_bytes"] > 0
    assert told["nanotox_resident_memory_bytes"] > 1 << 20
    counted = [told[f"nanotox_frames_{what}"] for what in ("analyzed_total", "dropped_total", "waiting")]
    assert told["nanotox_frames_captured_total"] == sum(counted)
    with contextlib.ExitStack() as crowd:
        for _ in range(30):  # none of them says anything
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        n_before = bench.n_stored()
        assert wait_until(lambda: bench.n_stored() >= n_before + 6)
    code, said = bench.end(number=signal.SIGTERM)
    assert code == 0, said
    last = subscriber.payloads("health")[-1]
    assert last["n_captured"] >= told["nanotox_frames_captured_total"]
    assert ask("metrics") == ""
