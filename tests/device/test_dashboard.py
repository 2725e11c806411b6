import asyncio
import importlib
import re
from datetime import UTC, datetime, timedelta

import pytest

from device.collector.live import StationNow
from device.dashboard.chart import over_time
from device.dashboard.guard import Guard, Operator, is_loopback, read_token
from device.dashboard.words import sight
from device.errors import ConfigError, PublishError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
VERDICT = {
    "ts": "2026-03-01T11:59:55.000Z",
    "outcome": "toxic",
    "stage": "final",
    "role": "test",
    "sample": "item",
    "dose": 10.0,
    "dose_unit": "ug/mL",
    "plate": "p",
    "well": "B03",
    "simulated": False,
}
STATE = {"mode": "running", "plate": "p", "well": "B03", "field": 3, "fields_planned": 10}


def said(**leaves):
    return StationNow(
        "lab", "a", NOW, "online", **({"state": STATE, "verdict": VERDICT, "latest": {}} | leaves)
    )


def test_a_tile_says_outcome_subject_age_and_what_the_station_does():
    seen = sight(said(), NOW)
    assert (seen.look, seen.word, seen.provisional) == ("toxic", "TOXIC", False)
    assert (seen.subject, seen.age) == ("item 10 ug/mL · well B03", "just now")
    assert seen.doing == "running, plate p, well B03, field 4 of 10"


def test_a_control_says_what_it_is_meant_to_show():
    seen = sight(said(verdict=VERDICT | {"role": "positive"}), NOW)
    assert seen.subject == "positive control, meant to be harmed · well B03"


@pytest.mark.parametrize(
    ("role", "outcome", "meaning"),
    [
        ("positive", "toxic", "as it should be: this control is meant to be harmed"),
        ("positive", "non_toxic", "NOT as it should be: this control is meant to be harmed"),
        ("blank", "toxic", "NOT as it should be: this control is meant to be unharmed"),
        ("negative", "non_toxic", "as it should be: this control is meant to be unharmed"),
    ],
)
def test_the_word_of_a_control_is_not_taken_for_the_culture(role, outcome, meaning):
    seen = sight(said(verdict=VERDICT | {"role": role, "outcome": outcome}), NOW)
    assert (seen.meaning, seen.is_control) == (meaning, True)
    assert not sight(said(), NOW).is_control
    assert not sight(
        said(latest=None, verdict=VERDICT | {"role": role}), NOW + timedelta(minutes=3)
    ).is_control


def test_a_verdict_that_no_longer_holds_is_not_the_large_word():
    seen = sight(said(latest=None), NOW + timedelta(minutes=3))
    assert (seen.look, seen.word) == ("quiet", "NO NEWS FOR 3 min")
    assert seen.subject.startswith("last verdict: toxic")


def test_a_station_that_idles_is_not_late():
    assert sight(said(latest=None, state=STATE | {"mode": "idle"}), NOW + timedelta(hours=1)).word == "TOXIC"


@pytest.mark.parametrize(
    ("availability", "word"), [("offline", "OFFLINE"), ("stopped", "STOPPED"), (None, "OFFLINE")]
)
def test_a_station_that_is_gone_shows_no_outcome(availability, word):
    left = {"verdict": VERDICT | {"stage": "provisional"}, "state": STATE}
    seen = sight(StationNow("lab", "a", NOW, availability, latest={}, **left), NOW)
    assert (seen.look, seen.word, seen.doing, seen.provisional) == ("quiet", word, "", False)
    assert seen.subject.startswith("last provisional verdict: toxic, item")


def test_a_clock_that_is_ahead_does_not_make_a_verdict_young_for_ever():
    ahead = VERDICT | {"ts": "2027-01-01T00:00:00.000Z"}
    assert sight(said(verdict=ahead), NOW + timedelta(minutes=5)).age == "5 min ago"


@pytest.mark.parametrize(
    "leaves",
    [{"verdict": {"outcome": 1}}, {"verdict": {}}, {"verdict": VERDICT | {"ts": []}}, {"alerts": ({},)}],
)
def test_what_is_not_understood_shows_no_outcome(leaves):
    assert sight(said(**leaves), NOW).look == "quiet"


def test_the_token_is_compared_and_wrong_ones_are_limited_by_address():
    now = [0.0]
    operator = Operator("right-right-right", clock=lambda: now[0])
    assert operator.refusal("right-right-right", "a") is None
    assert {operator.refusal("wrong", "a") for _ in range(5)} == {"this is not the operator's token"}
    assert operator.refusal("right-right-right", "a") == "too many wrong tokens; wait 60 s"
    assert operator.refusal("right-right-right", "b") is None
    now[0] = 61.0
    assert operator.refusal("right-right-right", "a") is None


def test_without_a_token_nobody_commands():
    assert "commands are off" in str(Operator(None).refusal("", "a"))


def test_a_token_is_long_and_its_file_closed(tmp_path):
    file = tmp_path / "token"
    file.write_text("short\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="token of 5 characters; expected 16 or more"):
        read_token(file)
    file.write_text("0123456789abcdef\n")
    assert read_token(file) == "0123456789abcdef"
    file.chmod(0o644)
    with pytest.raises(PublishError, match="may be read by others"):
        read_token(file)


def answer(guard, **headers):
    """Return status and headers of a GET with these headers."""
    sent = []

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(key.encode(), value.encode()) for key, value in headers.items()]}
    asyncio.run(Guard(app, is_local=guard)(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_every_answer_bears_a_policy_with_a_nonce_of_its_own():
    policies = [answer(True, host="localhost:1")[1][b"content-security-policy"] for _ in range(2)]
    assert all(policy.startswith(b"default-src 'self'; script-src 'self' 'nonce-") for policy in policies)
    assert policies[0] != policies[1]


@pytest.mark.parametrize(
    ("is_local", "headers", "status"),
    [
        (True, {"host": "127.0.0.1:8765"}, 200),
        (True, {"host": "lab.example:8765"}, 403),
        (False, {"host": "lab.example:8765"}, 200),
        (False, {"host": "lab.example:8765", "origin": "http://lab.example:8765"}, 200),
        (False, {"host": "lab.example:8765", "origin": "http://evil.example"}, 403),
    ],
)
def test_strange_hosts_and_origins_are_turned_away(is_local, headers, status):
    assert answer(is_local, **headers)[0] == status


def test_loopback_is_this_machine_only():
    assert [is_loopback(h) for h in ("localhost", "::1", "127.0.0.9", "10.0.0.1", "localhost.evil")] == [
        *(True, True, True),
        *(False, False),
    ]


def test_pages_escape_what_a_payload_says():
    wall = importlib.import_module("device.dashboard.wall")
    hostile = "<img src=x onerror=alert(1)>"
    html = wall.tile_html(sight(said(verdict=VERDICT | {"sample": hostile}), NOW))
    assert "<img" not in html
    assert "&lt;img" in html


def test_a_running_plate_and_a_page_of_numbers_survive_what_they_do_not_know():
    frame = importlib.import_module("device.dashboard.frame")
    assert "does not understand" in frame.guarded(lambda: {}["missing"])


def test_a_clock_that_was_set_back_leaves_the_chart_in_order():
    times = ("2026-03-04T05:00:00.000Z", "2036-03-04T05:00:01.000Z", "2026-03-04T05:00:02.000Z")
    readings = [{"taken_at": time, "n": number} for number, time in enumerate(times)]
    chart = over_time(readings, [("cells", "#000", None, lambda reading: reading["n"])], unit="")
    assert re.findall(r"[ML]([0-9.-]+) ", chart) == ["52.0", "346.0", "640.0"]
