"""What a station says over HTTP, and that nobody who asks can hang it."""

import contextlib
import json
import re
import socket
import threading
import tomllib
import urllib.error
import urllib.request
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import device.station.monitor as module
from device.config import HttpSection
from device.errors import JournalError
from device.messages.schema import json_schema
from device.records import Health, Outcome
from device.service import Watchdog
from device.station.health import CONDITIONS
from device.station.monitor import _METRICS, Monitor, to_prometheus

HEALTH = Health(
    schema="health/1",
    boot_id="b00t",
    ts=datetime(2026, 3, 4, tzinfo=UTC),
    clock_state="synced",
    alerts=("CAMERA_LOST", "NEW_CODE"),
    n_unsent=3,
    oldest_unsent_s=1.5,
    n_captured=9,
    n_analyzed=6,
    n_dropped=2,
    n_waiting=1,
    n_camera_reopens=4,
    n_reconnects=5,
    disk_free_bytes=1 << 40,
    cpu_celsius=51.5,
    throttled=("THROTTLED",),
    rss_bytes=1 << 26,
)


def samples(text):
    """Every sample as (name, labels without site and station): value."""
    told = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("site"), labels.pop("station")) == ("lab", "bench-1")
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert family.documentation
            told[sample.name, *labels.values()] = sample.value
    return told


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Asked:
    """A monitor whose station a test turns."""

    def __init__(self):
        self.port, self.health, self.late, self.fault, self.n_read = free_port(), HEALTH, (), None, 0
        self.hangs = None
        self.monitor = Monitor(
            HttpSection(self.port),
            site="lab",
            station="bench-1",
            health=self._read,
            late=lambda: self.late,
            fault=lambda: self.fault,
        )

    def _read(self):
        self.n_read += 1
        if self.hangs is not None:
            assert self.hangs.wait(30)
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    def get(self, path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - its own port
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def start(self):
        self.monitor.start()
        for _ in range(3000):
            try:
                self.connect().close()
            except ConnectionRefusedError:
                threading.Event().wait(0.01)
            else:
                return self
        raise AssertionError("it does not listen")


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(module, "_FRESH_S", 0.0)
    made = Asked()
    yield made
    made.monitor.close()


def test_every_field_of_health_is_told_and_a_null_is_left_out():
    told = samples(to_prometheus(HEALTH, site="lab", station="bench-1"))
    for name, (field, _, _) in _METRICS.items():
        assert told[(f"nanotox_{name}",)] == getattr(HEALTH, field)
    assert told["nanotox_station_info", "b00t"] == told[("nanotox_clock_synced",)] == 1
    raised = {
        code for (name, *code), value in told.items() if name == "nanotox_alert" and value for code in code
    }
    assert raised == {"CAMERA_LOST", "NEW_CODE"}
    assert {key[1] for key in told if key[0] == "nanotox_alert"} == {*CONDITIONS, "NEW_CODE"}
    assert (told["nanotox_throttled", "THROTTLED"], told["nanotox_throttled", "UNDER_VOLTAGE"]) == (1, 0)
    apart = {"schema", "ts", "research_use_only", "boot_id", "clock_state", "alerts", "throttled"}
    assert {field for field, _, _ in _METRICS.values()} | apart == {item.name for item in fields(Health)}
    unknown = replace(
        HEALTH, clock_state="unknown", throttled=None, cpu_celsius=None, rss_bytes=None, oldest_unsent_s=None
    )
    names = {key[0] for key in samples(to_prometheus(unknown, site="lab", station="bench-1"))}
    assert names == {key[0] for key in told} - {
        *("nanotox_clock_synced", "nanotox_throttled", "nanotox_cpu_celsius"),
        *("nanotox_resident_memory_bytes", "nanotox_record_unsent_oldest_seconds"),
    }


def test_a_probe_hears_which_loop_stands_or_which_fault_there_is(asked):
    asked.start()
    assert asked.get("/healthz") == (200, '{"status": "ok", "loops": [], "fault": null, "text": null}\n')
    asked.fault = "STORAGE_FULL"
    status, body = asked.get("/healthz?verbose")
    assert (status, json.loads(body)["fault"]) == (503, "STORAGE_FULL")
    assert json.loads(body)["text"] == CONDITIONS["STORAGE_FULL"]
    asked.late = ("analyse",)
    status, body = asked.get("/healthz")
    assert (status, json.loads(body)["status"], json.loads(body)["loops"]) == (503, "stalled", ["analyse"])
    assert asked.n_read == 0, "the journal is not asked"


def test_only_two_pages_and_only_get(asked):
    asked.start()
    status, body = asked.get("/metrics")
    assert status == 200
    assert samples(body)[("nanotox_frames_captured_total",)] == 9
    assert asked.get("/")[0] == asked.get("/metrics/")[0] == 404
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert asked.get("/metrics", method)[0] == 501
    assert asked.n_read == 1


def test_the_journal_is_asked_once_a_second_however_many_ask(asked, monkeypatch):
    monkeypatch.setattr(module, "_FRESH_S", 3600.0)
    asked.start()
    assert {asked.get("/metrics")[0] for _ in range(20)} == {200}
    assert asked.n_read == 1


def test_a_journal_that_is_closed_or_hangs_is_told_and_does_not_stop_a_probe(asked, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT_S", 0.2)
    asked.start()
    asked.health = JournalError("it is closed")
    assert asked.get("/metrics") == (503, "the journal does not answer; see /healthz\n")
    asked.health, asked.hangs = HEALTH, threading.Event()
    first = threading.Thread(target=asked.get, args=("/metrics",))
    first.start()
    while asked.n_read < 2:
        threading.Event().wait(0.01)
    assert asked.get("/metrics")[0] == 503
    assert asked.get("/healthz")[0] == 200
    asked.hangs.set()
    first.join()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /metrics",
        b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 5000,
        b"\x16\x03\x01\0\r\n",
        b"\0" * 4000,
    ],
    ids=["nothing", "half", "long", "tls", "zeros"],
)
def test_who_says_too_little_too_much_or_nonsense_is_hung_up_on(asked, monkeypatch, said):
    monkeypatch.setattr(module, "_LIMIT_S", 0.3)
    asked.start()
    with asked.connect() as stranger:
        stranger.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(4096) == b""
    assert asked.get("/healthz")[0] == 200


def test_a_byte_now_and_then_does_not_hold_a_connection(asked, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT_S", 0.5)
    asked.start()
    with asked.connect() as slow:
        slow.settimeout(0.05)
        for _ in range(3000):
            try:
                slow.sendall(b"a")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            raise AssertionError("it was let go on")


def test_a_crowd_of_strangers_takes_four_threads_and_leaves_again(asked, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT_S", 0.5)
    before = threading.active_count()
    asked.start()
    crowd = [asked.connect() for _ in range(16)]
    assert threading.active_count() <= before + 1 + 4
    for stranger in crowd:
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
        stranger.close()
    while threading.active_count() > before + 1:
        threading.Event().wait(0.01)
    assert asked.get("/healthz")[0] == 200


def test_a_port_that_is_taken_is_told_once_and_had_when_it_is_free(asked, monkeypatch, caplog):
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    tried = []
    monkeypatch.setattr(
        module, "_Server", lambda *given, make=module._Server: tried.append(1) or make(*given)
    )
    with socket.socket() as other:
        other.bind(("127.0.0.1", asked.port))
        other.listen()
        asked.monitor.start()
        while len(tried) < 3:
            threading.Event().wait(0.01)
    while asked.n_read == 0:
        try:
            asked.get("/metrics")
        except OSError:
            threading.Event().wait(0.01)
    assert (
        len([message for message in caplog.messages if message.startswith("no /metrics on 127.0.0.1:")]) == 1
    )


def test_without_a_port_nothing_listens():
    monitor = Monitor(
        HttpSection(),
        site="lab",
        station="b",
        health=lambda: HEALTH,
        late=lambda: (),
        fault=lambda: None,
    )
    monitor.start()
    assert not monitor._thread.is_alive()
    monitor.close()


def test_a_loop_is_late_when_it_has_not_beaten_for_so_long():
    now = [100.0]
    watchdog = Watchdog(("a", "b"), clock=lambda: now[0])

    def beat(name):
        thread = threading.Thread(target=watchdog.beat, name=name)
        thread.start()
        thread.join()

    assert watchdog.late(30) == ()
    now[0] = 120.0
    beat("a")
    now[0] = 131.0
    assert watchdog.late(30) == ("b",)
    now[0] = 151.0
    assert watchdog.late(30) == ("a", "b")
    beat("a")
    beat("b")
    assert watchdog.late(30) == ()


# The files for lab IT; tools/check-monitoring starts the programs themselves

LAB = Path(__file__).parents[2] / "systemd/lab"


def flat(schema, root):
    """Names of the numbers, texts and truths of a payload, as Telegraf joins them; those of lists are not."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for arm in schema.get("anyOf", ()):
        yield from flat(arm, root)
    for name, inner in schema.get("properties", {}).items():
        yield from (f"{name}_{path}" if path else name for path in flat(inner, root))
    if "properties" not in schema and "anyOf" not in schema and schema.get("type") != "array":
        yield ""


@pytest.fixture(scope="module")
def telegraf():
    """What Telegraf makes of the shipped file: names of metrics, each with its labels."""
    said = tomllib.loads((LAB / "telegraf.conf").read_text())
    told = {"nanotox_availability": {"site", "station"}}
    for source in said["inputs"]["mqtt_consumer"]:
        topic = source["topics"][0]
        leaf = topic.rpartition("/")[2]
        assert topic == f"nanotox/v1/+/+/{leaf}"
        parsed = source["topic_parsing"][0]
        assert (parsed["topic"], parsed["tags"]) == (f"+/+/+/+/{leaf}", "_/_/site/station/_")
        if leaf == "availability":
            continue
        schema = json_schema(f"{leaf}/1")
        there = set(flat(schema, schema))
        kept, tags = source.get("fieldinclude", there), source.get("tag_keys", [])
        assert there >= {*kept, *tags, *source.get("json_string_fields", []), source["json_time_key"]}
        for name in kept:
            told[f"{source['name_override']}_{name}"] = {"site", "station", *tags}
    availability, outcome = (mapping["mapping"][0] for mapping in said["processors"]["enum"])
    assert set(availability["value_mappings"]) == {"online", "stopped", "offline"}
    assert set(outcome["value_mappings"]) == set(Outcome)
    assert outcome["default"] == outcome["value_mappings"]["invalid"]
    return told | {"nanotox_verdict_outcome_code": told["nanotox_verdict_outcome"]}


def test_dashboard_and_rules_ask_for_what_is_told_and_by_its_labels(telegraf):
    told = {"up": {"job"}}
    for family in text_string_to_metric_families(to_prometheus(HEALTH, site="lab", station="bench-1")):
        for sample in family.samples:
            told[sample.name] = set(sample.labels)
    assert not set(told) & set(telegraf)
    told |= telegraf
    dashboard = json.loads((LAB / "grafana.json").read_text())
    asked = [(t["expr"], t["legendFormat"]) for panel in dashboard["panels"] for t in panel["targets"]]
    asked += [(e, "") for e in re.findall(r"^\s+expr: (.+)$", (LAB / "alerts.yml").read_text(), re.MULTILINE)]
    asked += [(v["query"]["query"], "") for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert len(asked) > 20
    for expression, legend in asked:
        names = re.findall(r"\b(?:nanotox_\w+|up\b)", re.sub(r'"[^"]*"', '""', expression))
        assert names, expression
        for name in names:
            labels = re.findall(r"(\w+)=~?\"", expression) + re.findall(r"\{\{(\w+)\}\}", legend)
            for by in re.findall(r"by \(([^)]*)\)", expression):
                labels += by.split(", ")
            assert set(labels) <= told[name], expression


def test_the_panels_of_the_dashboard_stand_apart():
    panels = json.loads((LAB / "grafana.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        cells = {(column, row) for column in range(x, x + w) for row in range(y, y + h)}
        assert x + w <= 24
        assert not cells & taken
        taken |= cells
