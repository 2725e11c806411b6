import gc
import json
import logging
import os
import queue
import selectors
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from device import publishers
from device.errors import ConfigError, PublishError
from device.publishers import Connected, Lost, Message, Settled, Setup, jsonl, mqtt, open_publisher

DEVICE = Path(publishers.__file__).parents[1]
WILL = Message("nanotox/v1/lab/b/availability", b"offline", retain=True, content_type="text/plain")


class Heard:
    """Keeps events and lets a test wait for one."""

    def __init__(self):
        self.events, self._news = [], threading.Condition()

    def __call__(self, event):
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait(self, kind, n=1, timeout_s=15):
        with self._news:
            met = self._news.wait_for(lambda: len(self.of(kind)) >= n, timeout_s)
        assert met, f"no {kind.__name__} in {self.events}"
        return self.of(kind)[n - 1]

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def heard():
    return Heard()


def test_an_unknown_kind_is_answered_with_the_kinds_there_are(heard):
    with pytest.raises(ConfigError, match=r"publisher\.kind is 'kafka'; expected one of jsonl, mqtt"):
        open_publisher("kafka", None, Setup("x", WILL, heard))


def test_paho_is_told_to_publish_in_one_place_only():
    calls = [
        f"{path.relative_to(DEVICE)}"
        for path in DEVICE.rglob("*.py")
        for line in path.read_text().splitlines()
        if ".publish(" in line
    ]
    assert calls == ["publishers/mqtt.py"]


def test_callbacks_take_no_lock_and_log_nothing():
    # paho calls back with its own lock held: whoever waits there for another one can stop both for good.
    source = (DEVICE / "publishers" / "mqtt.py").read_text()
    assert "Lock" not in source
    assert "log." not in source


def test_jsonl_writes_a_line_a_message_and_settles_each(tmp_path, heard):
    path = tmp_path / "new" / "out.jsonl"
    publisher = open_publisher("jsonl", jsonl.Settings(path), Setup("x", WILL, heard))
    publisher.start()
    tokens = [publisher.send(Message("a/b", b'{"x":1}')), publisher.send(WILL)]
    publisher.close()
    publisher.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"topic": "a/b", "retain": False, "payload": {"x": 1}},
        {"topic": WILL.topic, "retain": True, "payload": "offline"},
    ]
    assert heard.events == [Connected(16), Settled(tokens[0], None), Settled(tokens[1], None)]


def test_jsonl_without_a_folder_to_write_to_is_an_error(tmp_path, heard):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match=r"publisher\.path .* cannot be written"):
        open_publisher("jsonl", jsonl.Settings(tmp_path / "file" / "x.jsonl"), Setup("x", WILL, heard))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"user": "me"}, "user and password_file go together"),
        ({"cert_file": Path("c")}, "cert_file and key_file go together"),
        ({"cert_file": Path("c"), "key_file": Path("k")}, "cert_file is given without ca_file"),
    ],
)
def test_settings_that_belong_together_are_asked_for_together(options, expected):
    with pytest.raises(ValueError, match=expected):
        mqtt.Settings(**options)


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        ("secret", 0o644, r"may be read by others; expected mode 0600, run chmod 600"),
        ("", 0o600, "is empty; expected a password in its first line"),
        (None, 0, "cannot be read"),
    ],
)
def test_a_password_file_is_readable_and_private(tmp_path, heard, content, mode, expected):
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(PublishError, match=expected):
        open_publisher("mqtt", mqtt.Settings(user="me", password_file=path), Setup("x", WILL, heard))


@pytest.mark.parametrize("folder", [None, "elsewhere"])
def test_a_credential_without_its_service_is_told(tmp_path, heard, monkeypatch, folder):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    expected = r"exists inside the service only; expected systemd to start this"
    if folder:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / folder))
        expected = r"\$CREDENTIALS_DIRECTORY/word cannot be read"
    settings = mqtt.Settings(user="me", password_file=Path("$CREDENTIALS_DIRECTORY/word"))
    with pytest.raises(PublishError, match=expected):
        open_publisher("mqtt", settings, Setup("x", WILL, heard))


def test_a_credential_that_the_world_may_read_is_refused(tmp_path, heard, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "word").write_text("secret")
    (tmp_path / "word").chmod(0o444)
    settings = mqtt.Settings(user="me", password_file=Path("$CREDENTIALS_DIRECTORY/word"))
    with pytest.raises(PublishError, match="may be read by others"):
        open_publisher("mqtt", settings, Setup("x", WILL, heard))


def test_a_damaged_certificate_is_an_error(tmp_path, heard):
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(PublishError, match=r"TLS files of \[publisher\] cannot be used"):
        open_publisher("mqtt", mqtt.Settings(ca_file=path), Setup("x", WILL, heard))


def test_an_absent_broker_is_told_and_tried_again_until_the_end(heard):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    publisher = open_publisher("mqtt", mqtt.Settings(host="127.0.0.1", port=port), Setup("x", WILL, heard))
    publisher.start()
    heard.wait(Lost, n=3)
    assert publisher.send(WILL) is None
    publisher.close()
    assert {event.detail for event in heard.of(Lost)} == {"[Errno 111] Connection refused"}
    assert heard.of(Connected) == []


def test_a_name_that_no_server_knows_is_told(heard):
    settings = mqtt.Settings(host="no-such-broker.invalid")
    publisher = open_publisher("mqtt", settings, Setup("x", WILL, heard))
    publisher.start()
    assert heard.wait(Lost).detail
    publisher.close()


def test_a_server_that_is_no_broker_is_left_after_a_limit(heard, monkeypatch):
    monkeypatch.setattr(mqtt, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        settings = mqtt.Settings(host="127.0.0.1", port=mute.getsockname()[1])
        publisher = open_publisher("mqtt", settings, Setup("x", WILL, heard))
        publisher.start()
        assert "said nothing for 0.5 s" in heard.wait(Lost).detail
        publisher.close()


def test_many_are_driven_without_a_thread_and_leave_no_socket_behind(heard, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as mute, selectors.DefaultSelector() as sockets:
        settings = mqtt.Settings(host="127.0.0.1", port=mute.getsockname()[1])
        publisher = mqtt.open_publisher(settings, Setup("x", WILL, heard), sockets)
        publisher.start()
        publisher.tend()
        assert [key.data for key in sockets.get_map().values()] == [publisher]
        publisher.tend()
        assert heard.events == [], "it waits for an answer"
        mute.accept()[0].close()
        assert sockets.select(15)
        publisher.read()
        assert "connection lost" in heard.wait(Lost).detail
        assert not sockets.get_map()
        publisher.tend()
        assert not sockets.get_map(), "it pauses before the next try"
        publisher.close()


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_tls_station_speaks_to_no_plain_broker(tmp_path, heard, caplog):
    caplog.set_level(logging.DEBUG)
    key, cert = tmp_path / "key.pem", tmp_path / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
    made = subprocess.run([*command, "-keyout", key, "-out", cert], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl is not installed; it makes the certificate of this test")
    with socket.create_server(("127.0.0.1", 0)) as plain:
        settings = mqtt.Settings(host="127.0.0.1", port=plain.getsockname()[1], ca_file=cert)
        publisher = open_publisher("mqtt", settings, Setup("x", WILL, heard))
        publisher.start()
        link, _ = plain.accept()
        first = link.recv(1)
        link.close()
        assert heard.wait(Lost).detail
        publisher.close()
    publisher._thread.join(10)  # it may have been in the next handshake, which the closed socket ends
    gc.collect()
    assert first == b"\x16", "the first byte is that of a TLS handshake"
    assert publisher._context.verify_mode is ssl.CERT_REQUIRED
    assert publisher._context.check_hostname


def test_a_password_is_nowhere_to_be_seen(tmp_path, heard):
    path = tmp_path / "password"
    path.write_text("s3cret-word\nsecond line\n")
    os.chmod(path, 0o600)  # noqa: PTH101 - as a person would
    settings = mqtt.Settings(host="127.0.0.1", port=9, user="me", password_file=path)
    publisher = open_publisher("mqtt", settings, Setup("x", WILL, heard))
    assert publisher._password == "s3cret-word"  # noqa: S105 - made up
    assert "s3cret-word" not in repr(settings) + repr(publisher)


def test_a_broker_that_hangs_up_again_and_again_costs_no_files(monkeypatch):
    monkeypatch.setattr(mqtt, "_RETRY_S", (0.001, 0.001))
    losses, n_files = queue.Queue(), []
    with socket.create_server(("127.0.0.1", 0)) as broker:
        settings = mqtt.Settings(host="127.0.0.1", port=broker.getsockname()[1])
        publisher = open_publisher("mqtt", settings, Setup("nanotox-b", None, losses.put))
        publisher.start()
        gc.disable()
        try:
            for _ in range(12):
                broker.accept()[0].close()
                losses.get(timeout=30)
                n_files.append(len(list(Path("/proc/self/fd").iterdir())))
        finally:
            gc.enable()
            publisher.close()
    assert max(n_files[2:]) - min(n_files[2:]) <= 4, n_files


def test_the_broker_is_told_a_second_less_which_paho_takes_to_notice_its_silence(heard):
    with socket.create_server(("127.0.0.1", 0)) as broker:
        settings = mqtt.Settings(host="127.0.0.1", port=broker.getsockname()[1], keepalive_s=10)
        publisher = open_publisher("mqtt", settings, Setup("nanotox-b", None, heard))
        publisher.start()
        link, _ = broker.accept()
        with link, link.makefile("rb") as stream:
            _kind, _length, *name, version, _flags, high, low = stream.read(12)
            publisher.close()
    assert (bytes(name), version, 256 * high + low) == (b"\x00\x04MQTT", 5, 9)
