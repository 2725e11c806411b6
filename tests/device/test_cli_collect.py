"""`nanotox collect`, `simulate` and `replay` without a broker: what they take and what they refuse."""

import argparse
import signal
import threading

import pytest

import device.collector
from device.cli import collect, main
from device.cli.broker import add_broker_options, broker_settings


def settings(*words):
    parser = argparse.ArgumentParser()
    add_broker_options(parser)
    return broker_settings(parser.parse_args(["--broker", *words]))


def test_a_broker_is_named_by_its_url(tmp_path):
    assert (settings("mqtt://lab.local").host, settings("mqtt://lab.local").port) == ("lab.local", 1883)
    assert (settings("mqtt://[::1]:99").host, settings("mqtt://[::1]:99").port) == ("::1", 99)
    made = settings("mqtts://h", "--ca-file", "ca", "--cert-file", "c", "--key-file", "k", "--prefix", "x/v1")
    assert (made.port, made.prefix, str(made.ca_file), str(made.key_file)) == (8883, "x/v1", "ca", "k")
    made = settings("mqtt://h", "--user", "ada", "--password-file", "p")
    assert (made.user, str(made.password_file)) == ("ada", "p")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lab.local"], "--broker is lab.local; expected mqtt://HOST, mqtt://HOST:PORT or mqtts://HOST"),
        (["http://lab"], "--broker is http://lab; expected mqtt://HOST"),
        (["mqtt://lab:x"], "expected mqtt://HOST, mqtt://HOST:PORT"),
        (["mqtt://lab:70000"], "expected mqtt://HOST, mqtt://HOST:PORT"),
        (["mqtt://ada:secret@lab"], "expected --user and --password-file, which nobody sees"),
        (["mqtt://ada:secret@lab:x"], "expected --user and --password-file"),
        (["mqtts://lab"], "--broker is mqtts://; expected --ca-file with mqtts:// and only there"),
        (["mqtt://lab", "--ca-file", "ca"], "--broker is mqtt://; expected --ca-file with mqtts://"),
        (["mqtt://lab", "--user", "ada"], "user and password_file go together"),
    ],
)
def test_a_broker_that_cannot_be_is_refused_in_one_line(words, expected, capsys, tmp_path):
    assert main(["collect", "--db", str(tmp_path / "lab.db"), "--broker", *words]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert "secret" not in told
    assert told.count("\n") == 1


def test_a_file_that_is_no_collection_is_told(capsys, tmp_path):
    (tmp_path / "lab.db").write_text("no database, but long enough to look at")
    assert main(["collect", "--db", str(tmp_path / "lab.db"), "--broker", "mqtt://127.0.0.1:9"]) == 1
    assert "cannot be opened (file is not a database)" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_collector_in_order(number, tmp_path, monkeypatch, capsys):
    reports = []

    def report(collector):
        reports.append(collector)
        signal.raise_signal(number)

    monkeypatch.setattr(device.collector.Collector, "_report", report)
    before = signal.getsignal(number)
    assert main(["collect", "--db", str(tmp_path / "lab.db"), "--broker", "mqtt://127.0.0.1:9"]) == 0
    assert len(reports) == 1
    assert signal.getsignal(number) is before
    assert threading.active_count() < 4


def test_a_replay_backward_is_refused(capsys):
    assert main(["replay", "--from", "7", "--to", "6"]) == 2
    assert "--to is 6; expected at least --from, 7" in capsys.readouterr().err


def test_the_last_numbers_are_told_though_nothing_comes_after_them(capsys, monkeypatch):
    now = 100.0
    monkeypatch.setattr(collect.time, "monotonic", lambda: now)
    tell = collect._Progress()
    tell("1 records")
    tell("2 records")
    assert capsys.readouterr().err == "1 records\n"
    now = 120.0
    tell("2 records")
    tell("2 records")
    assert capsys.readouterr().err == "2 records\n"
