"""The dashboard in a real headless Chromium, on a real broker with real stations; NANOTOX_LONG=1: more."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribe import simple as listen_once
from playwright.sync_api import sync_playwright

from device import models
from device.collector.check import Kept
from device.collector.history import History
from device.collector.store import Store
from device.errors import JournalError
from device.journal import Journal
from device.journal.reviews import read_reviews
from device.messages import Identity, Info, State, Topics, body_of
from device.messages.recompute import parse
from device.messages.schema import json_schema
from device.messages.sealing import canonical, rfc3339, seal
from device.publishers import mqtt, open_publisher
from device.records import Outcome, Verdict
from device.station.sender import Sender

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # on a busy machine the lab alone takes minutes

TINY = Path(__file__).parents[1] / "device/data/tiny-cell"
LONG = bool(os.environ.get("NANOTOX_LONG"))
TOKEN = "a-token-of-the-lab-4711"  # noqa: S105 - of this test alone
SIZES = {"bench": (800, 480), "phone": (390, 844), "wall": (1920, 1080)}
WAIT_MS = 120_000
STATION = """
[station]
site = "lab"
name = "{name}"
assay = "adherent"
modality = "phase"
overlay = true
health_s = 2.0
[scale]
um_per_px = 0.65
[model]
cell_model = "toy"
trusted = ["{trusted}"]
[journal]
path = "{name}.db"
[publisher]
host = "127.0.0.1"
port = {port}
[camera]
kind = "phantom"
{more}
"""
PLATE = """well,sample,role,dose,dose_unit,dead_fraction,fields
A1,medium,negative,,,0.03,1
A2,zinc,positive,,,0.9,1
B1,silver,test,10,ug/mL,0.1,1
"""

PAGES = (
    "/",
    "/station/lab/bench-1",
    "/station/lab/bench-2",
    "/station/lab/nobody",
    "/station/lab/bench-2/review",
    "/plates",
    "/plate?name=plate&site=lab&station=bench-1",
    "/plate?name=none&site=lab&station=bench-1",
)
HOSTILE = json.loads((Path(__file__).parent / "hostile.json").read_text(encoding="utf-8"))
"""Strings that want to be code, to fetch something, or to break the page."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


INTRUDERS = """where => [...(where ?? document).querySelectorAll("*")].filter(e => {
    const is = (...names) => names.includes(e.tagName.toUpperCase());
    return is("IFRAME", "OBJECT", "EMBED", "BASE", "MARQUEE", "VIDEO", "AUDIO", "MATH")
        || (is("META") && e.httpEquiv == "refresh") || (is("IMG") && !e.src.includes("/overlay/"))
        || (is("SCRIPT") && !e.nonce && !e.getAttribute("nonce") && e.type != "application/json")
        || (is("FORM") && e.hasAttribute("action"))
        || (is("LINK") && e.href.includes("pwned"))
        || (is("STYLE") && /pwned|display:none!/.test(e.textContent))
        || [...e.attributes].some(a => /^on/.test(a.name)
            || (a.name == "href" && /^\\s*(java\\s*script|data):/.test(a.value)));
}).map(e => e.outerHTML.slice(0, 200))"""
"""What only a payload would bring in."""
INTRUDERS_OF = f"""async paths => (await Promise.all(paths.map(async path => {{
    const answer = await fetch(path), said = await answer.text();
    const found = ({INTRUDERS})(new DOMParser().parseFromString(said, "text/html"));
    return answer.ok && said.length > 1000 && !found.length ? [] : [path, answer.status, ...found];
}}))).flat()"""
"""The same of pages that are fetched and parsed, but not run: a hundred in a second."""
BROKEN = """() => [...document.querySelectorAll("thead th")].filter(e => {
    const range = document.createRange();
    range.selectNodeContents(e);
    const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
    return lines.size > e.innerText.trim().split(/[\\s-]+/).length;
}).map(e => e.innerText)"""
"""Titles of columns that are broken within a word."""


KEPT = ("schema", "site", "station", "ts", "prev_hash", "hash", "full_sha256")


def spoil(values, schema, root, text):
    """Return a payload in which every text that is free by its schema is `text`, and nothing is left out."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for arm in schema.get("anyOf", ()):
        if arm.get("type") != "null":
            return spoil(values, arm, root, text)
    kind, fixed = schema.get("type"), schema.get("enum", [schema.get("const")])[0]
    if kind == "object":
        given = values or {}
        known = schema.get("properties", {}).items()
        made = {key: spoil(given.get(key), item, root, text) for key, item in known if key not in KEPT}
        return given | made
    if kind == "array":
        return [spoil(value, schema["items"], root, text) for value in values or [None]]
    if fixed is None and kind == "string":
        return text if not {"pattern", "format"} & set(schema) else values or "2026-01-01T00:00:00.000Z"
    made = {"boolean": False}.get(kind, 1) if fixed is None else fixed
    return made if values is None else values


def wait_until(is_met, timeout_s=200):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_met():
            return True
        time.sleep(0.05)
    return False


class Watcher:
    """A page of the browser, and whatever it did that it should not."""

    def __init__(self, browser, base):
        self.page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        self._base, self.wrong, self.urls = base, [], []
        self.page.set_default_timeout(WAIT_MS)
        self.page.on(
            "console", lambda m: self.wrong.append(f"console: {m.text}") if m.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on(
            "dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        self.page.on("request", self._note)
        self.page.on("websocket", lambda socket: self._note(socket))

    def _note(self, request):
        self.urls.append(request.url)
        if urlsplit(request.url).netloc != urlsplit(self._base).netloc and not request.url.startswith(
            "data:"
        ):
            self.wrong.append(f"request: {request.url}")

    def open(self, path):
        answer = self.page.goto(self._base + path)
        assert answer.status == 200, path
        self.page.wait_for_function("document.querySelector('#content')?.innerText.trim().length > 0")
        return self.page

    def look_for_intruders(self, where):
        """Nothing of a payload ran, nor became more than text."""
        if self.page.evaluate("window.__pwned"):
            self.wrong.append(f"{where}: code of a payload ran")
        if found := self.page.evaluate(INTRUDERS):
            self.wrong.append(f"{where}: markup of a payload: {found}")

    def look_at_layout(self, where):
        """No page is wider than its window, at none of the sizes."""
        for name, (width, height) in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": height})
            found = self.page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            if found[0] > found[1]:
                self.wrong.append(f"{where} at {name}: {found[0]} px wide in {found[1]}")
            if broken := self.page.evaluate(BROKEN):
                self.wrong.append(f"{where} at {name}: words are broken: {broken}")

    def look_for_barriers(self, where):
        self.page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run({resultTypes: ['violations']})")
        for fault in found["violations"]:
            if fault["impact"] in ("serious", "critical"):
                nodes = [node["html"][:150] for node in fault["nodes"][:3]]
                self.wrong.append(f"{where}: axe {fault['impact']} {fault['id']}: {nodes}")


class Lab:
    """A dashboard on a broker, with one finished plate and one live station."""

    def __init__(self, folder, broker):
        self.folder, self.broker, self._programs = folder, broker, []
        bundle = models.find_bundle(TINY)
        card = replace(bundle.card, name="toy", assay="adherent", modality="phase")
        models.write_bundle(folder / "toy", card=card, model=bundle.model, golden=bundle.golden)
        (folder / "plate.csv").write_text(PLATE)
        (folder / "token").write_text(TOKEN + "\n")
        (folder / "token").chmod(0o600)
        port = free_port()
        self.dashboard = self.start(
            "dashboard",
            "--broker",
            f"mqtt://127.0.0.1:{broker.port}",
            "--db=lab.db",
            f"--port={port}",
            "--operator-token-file=token",
        )
        self.base = f"http://127.0.0.1:{port}"

    def is_open(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", urlsplit(self.base).port)) == 0

    def start(self, name, *arguments):
        command = [sys.executable, "-m", "device.cli", name, *arguments]
        with (self.folder / f"{name}-{len(self._programs)}.log").open("w") as said:
            self._programs.append(subprocess.Popen(command, stderr=said, stdout=said, cwd=self.folder))
        return self._programs[-1]

    def run_station(self, name, more):
        digest = hashlib.sha256((self.folder / "toy/SHA256SUMS").read_bytes()).hexdigest()
        config = self.folder / f"{name}.toml"
        config.write_text(STATION.format(name=name, trusted=digest, port=self.broker.port, more=more))
        return self.start("run", f"--config={config}")

    @contextlib.contextmanager
    def speaker(self, name):
        """A station without a camera: give a function that stores a record, which the real sender sends."""
        journal = Journal(self.folder / f"{name}.db", site="lab", station=name)
        told = self.listen("info", "state")
        own = {"station": name, "boot_id": journal.boot_id, "ledger_id": journal.ledger_id}
        settings = mqtt.Settings(host="127.0.0.1", port=self.broker.port)
        sender = Sender(
            journal,
            Topics("lab", name),
            info=parse(Info, told["info"] | own),
            state=parse(State, told["state"] | own | {"plate": None, "well": None}),
            make_publisher=lambda setup: open_publisher("mqtt", settings, setup),
            client_id=f"nanotox-{name}",
        )
        sender.start()

        def say(record):
            journal.append(record)
            sender.stored()

        try:
            yield say
        finally:
            sender.end(5.0)
            journal.close()

    def listen(self, *leaves, under="nanotox/v1/lab/bench-2"):
        """Return what is retained of a station."""
        topics = {f"{under}/{leaf}": leaf for leaf in leaves}
        heard = {}
        asked = [(topic, 1) for topic in topics]
        options = {"hostname": "127.0.0.1", "port": self.broker.port, "msg_count": len(topics)}
        for message in listen_once(asked, **options):
            heard[topics[message.topic]] = message.payload
        return {leaf: said if leaf.startswith("image") else json.loads(said) for leaf, said in heard.items()}

    def records(self, kind, station="bench-1"):
        """Return what the collector has of a station; bench-1 ran the finished plate."""
        path = self.folder / "lab.db"
        try:
            return History(path).select(kind, "lab", station) if path.exists() else []
        except JournalError:  # it is being made
            return []

    def logs(self):
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def close(self):
        for program in self._programs:
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
        for program in self._programs:
            program.wait(120)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, make_lasting_broker):
    made = Lab(tmp_path_factory.mktemp("lab"), make_lasting_broker())
    try:
        more = "live = true\nperiod_s = 4.0\nwidth_px = 320\nheight_px = 240\n[frames]\nkeep = true"
        made.run_station("bench-2", more)
        assert wait_until(lambda: made.is_open() and made.records("reading", "bench-2")), made.logs()
        plate = made.run_station("bench-1", 'width_px = 320\nheight_px = 240\n[plate]\nfile = "plate.csv"')
        assert plate.wait(120) == 0, made.logs()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed; tools/test installs it")
    with sync_playwright() as playwright:
        # as root it cannot lock itself up; no name but this machine's is ever resolved
        options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        opened = playwright.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def tab(browser, lab):
    """One tab for all tests: what the library brings along is fetched and compiled once."""
    return Watcher(browser, lab.base)


@pytest.fixture
def watch(tab):
    """Give the tab; in the end nothing may have gone wrong in it."""
    tab.urls.clear()
    tab.page.set_viewport_size({"width": 1280, "height": 800})
    yield tab
    tab.page.goto("about:blank")
    wrong = list(tab.wrong)
    tab.wrong.clear()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_at_every_size_and_open_to_all(watch, path):
    watch.open(path)
    watch.look_at_layout(path)
    watch.look_for_barriers(path)


ITEM = r"item no \d+"
NOTE_ITEMS = """pattern => {
    window.came = {};
    const tile = [...document.querySelectorAll(".tile")].find(e => e.textContent.includes("quick"));
    new MutationObserver(() => {
        const said = tile.textContent.match(new RegExp(pattern));
        if (said) window.came[said[0]] ??= Date.now();
    }).observe(tile, {childList: true, subtree: true, characterData: true});
}"""
"""The page itself notes when a text came; both clocks are of this machine."""


class Quick:
    """A station whose verdicts are timed from the journal to one wall."""

    def __init__(self, page, say, verdict):
        self._page, self._say, self._verdict, self._sent_ms = page, say, verdict, {}
        say(verdict)
        page.locator(".tile", has_text="quick").wait_for()
        page.evaluate(NOTE_ITEMS, ITEM)

    def tell(self):
        item = f"item no {len(self._sent_ms)}"
        self._sent_ms[item] = time.time() * 1000
        self._say(replace(self._verdict, sample=item, outcome=Outcome.TOXIC))
        self._page.wait_for_function("item => window.came[item]", arg=item)

    def told(self):
        came_ms = self._page.evaluate("window.came")
        delays_ms = sorted(came_ms[item] - at for item, at in self._sent_ms.items())
        middle, p95 = (delays_ms[int(share * len(delays_ms))] for share in (0.5, 0.95))
        return (
            f"{len(delays_ms)} verdicts: median {middle:.0f} ms, p95 {p95:.0f} ms, max {delays_ms[-1]:.0f} ms"
        )


def test_a_verdict_is_on_the_wall_at_once(watch, lab):
    page = watch.open("/")
    verdict = parse(Verdict, body_of(lab.records("verdict")[-1]))
    with lab.speaker("quick") as say:
        quick = Quick(page, say, verdict)
        for _ in range(100 if LONG else 5):
            quick.tell()
        said = page.locator(".tile", has_text="quick").inner_text()
    print(quick.told())  # noqa: T201 - a figure
    assert "TOXIC" in said
    assert "just now" in said


def rss_mb(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not LONG, reason="NANOTOX_LONG=10 lets a hundred stations speak for ten minutes")
@pytest.mark.timeout(2400)
def test_a_hundred_stations_lose_no_row_and_fill_no_memory(watch, lab):
    many = lab.start("simulate", "--stations=100", "--rate=1", f"--broker=mqtt://127.0.0.1:{lab.broker.port}")
    page = watch.open("/")
    page.wait_for_function("document.querySelectorAll('.tile').length >= 100")
    verdict = parse(Verdict, body_of(lab.records("verdict")[-1]))
    memory = []
    with lab.speaker("quick") as say:
        quick = Quick(page, say, verdict)
        until = time.monotonic() + 60 * float(os.environ["NANOTOX_LONG"])
        while time.monotonic() < until:
            quick.tell()
            page.wait_for_timeout(2000)
            heap_mb = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
            memory.append((rss_mb(lab.dashboard.pid), heap_mb))
            if len(memory) % 30 == 1:
                print(f"MB: dashboard {memory[-1][0]:.0f}, page {heap_mb:.0f}; {quick.told()}")  # noqa: T201
    many.send_signal(signal.SIGTERM)
    assert many.wait(300) == 0, lab.logs()[-3000:]
    heads = lab.listen(*(f"s{number}/head" for number in range(100)), under="nanotox/v1/simulated")
    last = {head["ledger_id"]: head["seq"] for head in heads.values()}
    database = sqlite3.connect(f"file:{lab.folder / 'lab.db'}?mode=ro", uri=True)
    query = "SELECT count(*), max(seq) FROM record WHERE ledger_id = ?"
    is_whole = wait_until(
        lambda: all(database.execute(query, (one,)).fetchone() == (seq, seq) for one, seq in last.items())
    )
    database.close()
    print(f"{sum(last.values())} rows of 100 stations, all there: {is_whole}; {quick.told()}")  # noqa: T201
    assert is_whole


def fill(path, reading, n):
    """Make a collector's file of `n` readings of lab/old, a second apart, all like `reading`."""
    store, start = Store(path), datetime.now(UTC) - timedelta(seconds=n)
    at = {"ts": rfc3339(start), "taken_at": rfc3339(start)}
    first = reading | {"station": "old", "ledger_id": "old", "seq": 1} | at
    told = ("old", 1, "lab", "old", "reading/1", first["ts"], "h", canonical(first), "reading")
    store.keep([Kept(*told)])
    store.close()
    head, tail = canonical(first).decode().split('"seq":1,')
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        for number in range(2, n + 1):
            ts = rfc3339(start + timedelta(seconds=number))
            message = f'{head}"seq":{number},{tail}'.replace(first["ts"], ts).encode()
            database.execute(
                "INSERT INTO record SELECT ledger_id, ?, site, station, schema, ?, hash, ?, received_at, "
                "kind, plate, well FROM record WHERE ledger_id = 'old' AND seq = 1",
                (number, ts, message),
            )
        database.commit()


@pytest.mark.skipif(not LONG, reason="NANOTOX_LONG=1 opens the history of a million readings")
@pytest.mark.timeout(2400)
def test_a_history_of_a_million_readings_opens_quickly(browser, lab, tmp_path):
    reading = lab.records("reading", "bench-2")[-1]
    fill(tmp_path / "lab.db", reading | {"cells": reading["cells"][:3]}, 1_000_000)
    other = Lab(tmp_path, lab.broker)
    took_ms = []
    try:
        page = Watcher(browser, other.base)
        assert wait_until(other.is_open)
        for _ in range(10):
            began = time.monotonic()
            page.open("/station/lab/old").locator(".panel svg path").first.wait_for(state="attached")
            took_ms.append(1000 * (time.monotonic() - began))
        page.page.context.close()
    finally:
        other.close()
    print(f"a million readings, with charts: {sorted(map(round, took_ms))} ms")  # noqa: T201 - a figure
    assert not page.wrong


FOCUSED = """() => {
    const e = document.activeElement, look = getComputedStyle(e);
    if (e === document.body) return null;
    const looks = [look.outlineStyle, look.boxShadow];
    const seen = e.matches("input, textarea") || looks.some(l => l != "none");
    const name = (e.getAttribute("aria-label") || e.innerText || "").trim();
    return name + (seen ? "" : " (focus not seen)");
}"""


def tab_to(page, name, key="Tab"):
    """Press `key` until what is called `name` has the focus."""
    reached = []
    while name not in reached:
        page.keyboard.press(key)
        reached.append(page.evaluate(FOCUSED))
        assert len(reached) < 100, reached


def walk(page, least):
    """Press Tab until the walk begins again; return what was reached, in words."""
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        what = page.evaluate(FOCUSED)
        if what is None or (len(reached) > least and what == reached[0]):
            break
        reached.append(what)
    return reached


def test_everything_can_be_reached_by_keyboard(watch):
    page = watch.open("/")
    page.locator(".tile", has_text="bench-2").wait_for()
    reached = walk(page, 4)
    assert reached[:3] == ["Skip to content", "Stations", "Plates"]
    assert {"bench-1", "bench-2"} <= set(reached)
    assert not [what for what in reached if "not seen" in what]
    page = watch.open("/station/lab/bench-2")
    page.get_by_text("Review this field").wait_for()
    reached = walk(page, 8)
    assert {"Review this field", "Your name", "Operator's token", "Finish the plate"} <= set(reached), reached
    assert not [what for what in reached if "not seen" in what]


def test_a_review_by_keyboard_alone_arrives_in_the_dataset_bundle(watch, lab):
    page = watch.open("/station/lab/bench-2/review")
    seq = int(page.get_by_role("heading", name="Your review of record").inner_text().rpartition(" ")[2])
    press = page.keyboard.press
    for name, typed in (("Your name", "Ada"), ("Operator's token", TOKEN)):
        tab_to(page, name)
        page.keyboard.type(typed)
    tab_to(page, "Accept")
    press("Enter")
    page.get_by_text("Done: the station carried it out").wait_for()
    tab_to(page, "Correct")
    press("Enter")
    page.get_by_text("Not sent: choose what it should have stated").wait_for()
    tab_to(page, "Should have stated", "Shift+Tab")
    press("ArrowDown")
    page.get_by_role("option", name="invalid", exact=True).wait_for()
    press("End")
    press("Enter")
    tab_to(page, "Reason (a correction needs one)")
    page.keyboard.type("debris, not cells")
    tab_to(page, "Correct")
    press("Enter")
    page.get_by_text("Done: the station carried it out").wait_for()
    assert [(one.decision, one.seq) for one in read_reviews(lab.folder / "bench-2.db")] == [
        *(("accept", seq), ("correct", seq))
    ]
    options = ("--frames=frames", "--config=bench-2.toml", "--out=to-label", "--count=1000")
    assert lab.start("dataset", "bundle", "bench-2.db", *options).wait(120) == 0, lab.logs()
    chosen, reviews = (
        list(csv.DictReader((lab.folder / "to-label" / name).read_text().splitlines()))
        for name in ("manifest.csv", "reviews.csv")
    )
    (mine,) = (row for row in chosen if int(row["seq"]) == seq)
    assert (lab.folder / "to-label" / mine["file"]).exists()
    told = ("file", "decision", "outcome", "reason", "operator")
    assert [tuple(row[key] for key in told) for row in reviews] == [
        (mine["file"], "accept", "", "", "Ada"),
        (mine["file"], "correct", "invalid", "debris, not cells", "Ada"),
    ]


def test_commands_want_the_token_which_is_told_nowhere(watch, lab):
    page = watch.open("/station/lab/bench-2")
    name, token = page.get_by_label("Your name"), page.get_by_label("Operator's token")

    def order(told):
        token.fill(told)
        page.get_by_role("button", name="Finish the plate").click()

    order("")
    page.get_by_text("Refused: this is not the operator's token").wait_for()
    order(TOKEN)
    page.get_by_text("Refused: your name is missing").wait_for()
    name.fill("A. Curie")
    order(TOKEN)
    page.get_by_text("The station refuses").wait_for()  # it was asked: no plate runs there
    for _ in range(50):  # on a busy machine the first five may be more than a minute apart
        order(TOKEN[:-1])
        page.wait_for_function("document.querySelector('input[type=password]').value === ''")
        if page.get_by_text("too many wrong tokens").count():
            break
    order(TOKEN)
    page.get_by_text("too many wrong tokens").wait_for()
    assert token.get_attribute("type") == "password"
    assert not [url for url in watch.urls if TOKEN in url]
    assert TOKEN not in json.dumps([page.context.cookies(), page.context.storage_state(), page.content()])
    kept = [path for path in lab.folder.rglob("*") if path.is_file() and path.name != "token"]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]


class Liar:
    """Stations that say whatever they like: each message of its form, but past journal and sender."""

    def __init__(self, lab):
        self._client, self._sent = (
            Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5),
            [],
        )
        self._client.connect("127.0.0.1", lab.broker.port)
        self._client.loop_start()
        self.told = told = lab.listen("info", "state", "health", "image/overlay")
        told |= {kind: lab.records(kind)[-1] for kind in ("reading", "verdict", "plate")}
        told["reading"] |= {"cells": told["reading"]["cells"][:1]}
        alert = {"schema": "alert/1", "code": "", "raised": True, "text": "", "since": told["state"]["ts"]}
        told["alert"] = {key: told["reading"][key] for key in Identity.__dataclass_fields__} | alert
        self._schemas = {leaf: json_schema(said["schema"]) for leaf, said in told.items() if "/" not in leaf}

    def spoiled(self, leaf, text):
        schema = self._schemas[leaf]
        return spoil(self.told[leaf], schema, schema, text)

    def say(self, station, leaf, body, **options):
        if isinstance(body, dict):
            body = body | {key: told for key, told in (("site", "lab"), ("station", station)) if key in body}
            body = canonical(body | {"hash": seal(body)} if "seq" in body else body)
        self._sent.append(self._client.publish(f"nanotox/v1/lab/{station}/{leaf}", body, qos=1, **options))

    def say_all(self, station, text, leaves, *, seq=1, number=1, **kept):
        """Say all `leaves` with `text` in every free text but those of records `kept`, then the rest."""
        self.say(station, "availability", "online", retain=True)
        verdict = None
        for place, leaf in enumerate(leaves):
            values = self.spoiled(leaf, text) | {"seq": seq + place} | kept
            values |= {"n_live": number} if leaf == "reading" else {"n_cells": number}
            verdict = values if leaf == "verdict" else verdict
            self.say(station, leaf, values)
        identity = [("ledger_id", kept.get("ledger_id", text)), ("seq", str(seq))]
        shown = Properties(PacketTypes.PUBLISH)
        # the broker takes no other letters there
        shown.UserProperty = [(key, "".join(filter(str.isprintable, said))) for key, said in identity]
        self.say(station, "image/overlay", self.told["image/overlay"], properties=shown)
        latest = {"schema": "latest/1", "valid_until": "2999-01-01T00:00:00.000Z", "research_use_only": True}
        verdict = verdict | {"site": "lab", "station": station}
        latest["verdict"] = verdict | {"hash": seal(verdict)}
        self.say(station, "latest", canonical(latest), retain=True)
        for leaf in ("state", "health", "info"):
            more = {"um_per_px": number} if leaf == "info" else {}
            self.say(station, leaf, self.spoiled(leaf, text) | more, retain=True)

    def wait(self):
        for message in self._sent:
            message.wait_for_publish(120)
            assert message.is_published()
        self._sent.clear()

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


RECORDS = ("reading", "verdict", "alert")
PLATE_NAME = HOSTILE[1]
AT_ONCE = """n => document.querySelector("figure img")
    && [`${n} um a pixel`, `, ${n} cells`, `: ${n} live`]
        .every(text => document.body.innerText.includes(text))"""


@pytest.fixture(scope="module")
def liar(lab):
    made = Liar(lab)
    yield made
    made.close()


def one_that_says_them_all(text, liar):
    """Return the report of a plate whose samples, doses and wells are called by all hostile strings."""
    values = [liar.spoiled("plate", text) for text in HOSTILE]
    samples = [one["samples"][-1] | {"role": "test", "dose": dose} for one in values for dose in (1.0, 10.0)]
    told = {"samples": samples, "doses": [one["doses"][-1] for one in values]}
    reference = values[0]["reference"] | {"wells": HOSTILE, "n_cells": 10}
    return liar.spoiled("plate", text) | told | {"reference": reference}


def test_no_text_of_a_payload_ever_becomes_more_than_text(watch, lab, liar):
    """Fifty stations say one hostile string each in every free text; one station says one after the other."""
    for number, text in enumerate(HOSTILE):
        liar.say_all(f"h{number}", text, (*RECORDS, "plate"))
        # words that are not free are hostile too: such a message is kept aside
        bad = {"outcome": text, "stage": text, "seq": 9, "ledger_id": text}
        liar.say(f"h{number}", "verdict", liar.told["verdict"] | bad)
    liar.wait()
    page = watch.open("/")
    page.wait_for_function("n => document.querySelectorAll('.tile').length >= n", arg=len(HOSTILE) + 2)
    page.get_by_text(HOSTILE[0]).first.wait_for()
    watch.look_for_intruders("wall")
    watch.look_at_layout("wall")
    assert "NOT UNDERSTOOD" not in page.inner_text("body")

    kept = {"ledger_id": "many", "plate": PLATE_NAME}
    liar.say_all("many", "tame", RECORDS, **kept)
    liar.wait()
    watch.open("/station/lab/many")
    page.get_by_text("1 um a pixel").wait_for()
    for number, text in enumerate(HOSTILE, 1):
        liar.say_all("many", text, RECORDS, seq=3 * number + 1, number=7000 + number, **kept)
        page.wait_for_function(AT_ONCE, arg=7000 + number)
        watch.look_for_intruders(f"station, string {number}")
    page.get_by_text("Usual: median").wait_for()
    watch.look_at_layout("station")
    report = one_that_says_them_all(HOSTILE[0], liar)
    liar.say("many", "plate", report | kept | {"seq": 3 * len(HOSTILE) + 4})
    liar.wait()
    assert wait_until(lambda: lab.records("plate", "many"))

    asked = [urlencode({"name": text, "site": "lab", "station": f"h{n}"}) for n, text in enumerate(HOSTILE)]
    many = urlencode({"name": PLATE_NAME, "site": "lab", "station": "many"})
    for path, wells in (("/plates", 0), ("/station/lab/many/review", 50), (f"/plate?{many}", 51)):
        said = watch.open(path).inner_text("body")
        assert "does not understand" not in said, path
        shown = [text for text in HOSTILE if text.isprintable() and " ".join(text.split()) in said]
        assert len(shown) >= len(HOSTILE) - 2, path  # two have letters that no page shows
        assert page.locator("tbody").count() >= wells
        watch.look_for_intruders(path)
        watch.look_at_layout(path)
    watch.wrong += page.evaluate(
        INTRUDERS_OF, [f"{at}?{one}" for one in asked for at in ("/plate", "/report")]
    )
    report = page.request.get(f"{lab.base}/report?{many}")
    assert report.ok
    page.goto("about:blank")
    page.set_content(report.text())
    assert "research use only" in page.inner_text("body").lower()
    watch.look_for_intruders("report")
