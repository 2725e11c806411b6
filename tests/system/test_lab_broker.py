"""The broker kit under a real Mosquitto: who may do what (S6), wrong TLS (S7), and where secrets are (S8)."""

import queue
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from device.messages import LEAVES
from device.publishers import Connected, Lost, Message, Settled, Setup, _link, mqtt, open_publisher

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
    # paho leaves the socket of a failed handshake to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "lab-broker"
PLAIN = ("availability", "info", "state", "health", "head", "reading", "verdict", "plate", "latest", "alert")
WORDS = [*PLAIN, "image/overlay"]
ROLES = {"bench-1": "station lab", "bench-2": "station lab", "dash": "dashboard", "coll": "collector"}
ROLES |= {"boss": "operator"}
STATIONS = ("nanotox/v1/lab/bench-1", "nanotox/v1/lab/bench-2", "nanotox/v1/other/bench-1")
FRESH = count()
COMMANDS = ("cmd/replay", "cmd/plate_start")
TOPICS = [f"{station}/{leaf}" for station in STATIONS for leaf in (*WORDS, "reply/me", *COMMANDS)]
TOPICS += ["nanotox/v1/lab/bench-1", "nanotox/v1/lab/bench-1/nonsense", "nanotox/v1/lab/bench-1/cmd/a/b"]
TOPICS += ["nanotox", "elsewhere", "$SYS/broker/version"]


def may_write(name, topic):
    station, leaf = "/".join(topic.split("/")[:4]), "/".join(topic.split("/")[4:])
    match ROLES.get(name, "nobody").split()[0]:
        case "station":
            return station == f"nanotox/v1/lab/{name}" and (leaf in WORDS or leaf == "reply/me")
        case "collector":
            return leaf == "cmd/replay"
        case "operator":
            return leaf in COMMANDS
    return False


def may_read(name, topic):
    station, leaf = "/".join(topic.split("/")[:4]), "/".join(topic.split("/")[4:])
    match ROLES.get(name, "nobody").split()[0]:
        case "station":
            return station == f"nanotox/v1/lab/{name}" and leaf in COMMANDS
        case "dashboard":
            return leaf in WORDS
        case "collector" | "operator":
            return leaf in WORDS or leaf == "reply/me"
    return False


def run(*arguments, **options):
    return subprocess.run([TOOL, *map(str, arguments)], check=True, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """What tools/lab-broker makes for a lab: authority, the broker's files, a certificate for everybody."""
    folder = tmp_path_factory.mktemp("kit") / "nanotox"
    run("--dir", folder, "init", "localhost", "127.0.0.1")
    for name, role in ROLES.items():
        run("--dir", folder, "add", role.split()[0], name, *role.split()[1:])
    # a certificate of the lab's authority that has no block in the access list
    acl = (folder / "nanotox.acl").read_text()
    run("--dir", folder, "add", "dashboard", "stranger")
    (folder / "nanotox.acl").write_text(acl)
    return folder


def wait_for_line(broker, pattern):
    """Wait until the broker's log has a line; return whether it came."""
    for _ in range(600):
        if re.search(pattern, (broker._folder / "mosquitto.log").read_text()):
            return True
        threading.Event().wait(0.05)
    return False


@pytest.fixture
def start(make_broker, tmp_path):
    """Give a function that starts a Mosquitto with the shipped configuration on a port of its own."""

    def make(kit, **changes):
        text = (kit / "mosquitto.conf").read_text()
        for old, new in {"listener 8883": "", "per_listener_settings false": "", **changes}.items():
            assert old in text
            text = text.replace(old, new)
        return make_broker(f"persistence_location {tmp_path}/\n{text}")

    return make


class Peer:
    """A client with the certificate of `name`, MQTT 5, that keeps what it gets."""

    def __init__(self, kit, port, name, will=None):
        self.heard, self._answers, self._settled = [], queue.Queue(), {}
        self._news = threading.Condition()
        self.client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{name}-{next(FRESH)}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        context = ssl.create_default_context(cafile=str(kit / "ca.crt"))
        context.load_cert_chain(kit / f"clients/{name}.crt", kit / f"clients/{name}.key")
        client.tls_set_context(context)
        if will:
            client.will_set(will, b"will", qos=1)
        client.on_connect = lambda *args: self._answers.put(args[3])
        client.on_subscribe = client.on_unsubscribe = lambda *args: self._answers.put(args[3])
        client.on_message = lambda *args: self.heard.append(args[2])
        client.on_publish = self._settle
        client.connect("localhost", port)
        client.loop_start()
        self.welcome = self._answers.get(timeout=20)

    def _settle(self, _client, _data, mid, reason, _answer):
        with self._news:
            self._settled[mid] = reason.value
            self._news.notify_all()

    def publish(self, topics, *, retain=False):
        """Return the reason code that the broker gives for each topic."""
        mids = [self.client.publish(topic, b"{}", qos=1, retain=retain).mid for topic in topics]
        with self._news:
            assert self._news.wait_for(lambda: all(mid in self._settled for mid in mids), 30)
        return [self._settled[mid] for mid in mids]

    def subscribe(self, *topics):
        self.client.subscribe([(topic, 0) for topic in topics])
        self._answers.get(timeout=20)

    def end(self):
        """Return the topics heard so far; the answer comes after all that was routed before."""
        self.client.unsubscribe(["x"])
        self._answers.get(timeout=20)
        self.close()
        return {message.topic for message in self.heard}

    def close(self):
        self.client.disconnect()
        self.stop()

    def stop(self):
        """End without a goodbye; held by its callbacks its sockets might be finished before it."""
        client = self.client
        client.loop_stop()
        client.on_connect = client.on_subscribe = client.on_unsubscribe = None
        client.on_message = client.on_publish = None


@pytest.mark.parametrize("retain", [False, True])
def test_every_role_writes_what_it_may_and_nothing_else(kit, start, retain):
    broker = start(kit)
    for name in [*ROLES, "stranger"]:
        peer = Peer(kit, broker.port, name)
        allowed = [
            topic
            for topic, code in zip(TOPICS, peer.publish(TOPICS, retain=retain), strict=True)
            if code in (0, 16)
        ]
        peer.close()
        assert allowed == [topic for topic in TOPICS if may_write(name, topic)], name


@pytest.mark.parametrize("late", [False, True], ids=["live", "retained"])
def test_every_role_hears_what_it_may_whatever_it_asks_for(kit, start, late):
    broker = start(kit)
    asked = ("#", "nanotox/#", "nanotox/v1/+/+/verdict", "nanotox/v1/lab/bench-1/cmd/#", "$SYS/#", *TOPICS)
    peers = {}

    def listen():
        for name in [*ROLES, "stranger"]:
            peers[name] = Peer(kit, broker.port, name)
            peers[name].subscribe(*asked)

    if not late:
        listen()
    said = set()
    for name in ROLES:
        speaker = Peer(kit, broker.port, name)
        mine = [topic for topic in TOPICS if may_write(name, topic)]
        speaker.publish(mine, retain=late)
        speaker.publish(TOPICS, retain=late)  # what is refused reaches nobody
        speaker.close()
        said |= set(mine)
    if late:
        listen()
    for name, peer in peers.items():
        assert peer.end() == {topic for topic in said if may_read(name, topic)}, name


def test_a_will_is_told_only_where_its_client_may_write(kit, start):
    broker = start(kit)
    watchers = [Peer(kit, broker.port, name) for name in ("boss", "bench-1", "bench-2")]
    for watcher in watchers:
        watcher.subscribe("nanotox/#")
    leaves = ("availability", "verdict", "reply/me", *COMMANDS)
    topics = [f"{station}/{leaf}" for station in STATIONS[:2] for leaf in leaves]
    wills = [(name, topic) for name in (*ROLES, "stranger") for topic in topics]
    for name, topic in wills:
        peer = Peer(kit, broker.port, name, will=topic)
        peer.client.socket().shutdown(socket.SHUT_RDWR)
        peer.stop()
        client_id = peer.client._client_id.decode()
        assert wait_for_line(broker, f"Client {client_id} (closed|disconnected)")
    for watcher in watchers:
        watcher.end()
    heard = sorted(message.topic for watcher in watchers for message in watcher.heard)
    assert heard == sorted(topic for name, topic in wills if may_write(name, topic))


def test_the_access_list_names_every_leaf_that_a_station_publishes():
    blocks = (ROOT / "systemd" / "mosquitto.acl").read_text().split("\n\n")[1:]
    assert [block.split(":")[0] for block in blocks] == [
        f"# {r}" for r in ("station", "dashboard", "collector", "operator")
    ]
    for block in blocks:
        lines = block.splitlines()[2:]
        kind = "write" if "# station" in block else "read"
        listed = {line.split("/", 4)[4] for line in lines if line.startswith(f"topic {kind} ")}
        assert {*LEAVES, "availability"} <= listed, block.split(":")[0]
        assert all(re.fullmatch(r"topic (read|write) nanotox/v1/\S+", line) for line in lines)
        assert not any(line.endswith("/v1/#") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("init", "localhost"), "ca.crt is there; expected a new folder"),
        (("init",), "no HOST is given"),
        (("add", "king", "me"), "role is 'king'; expected station"),
        (("add", "dashboard", "Dash"), "NAME is 'Dash'; expected small letters"),
        (("add", "station", "bench-9"), "SITE is ''; expected that of station.toml"),
        (("--days", "soon", "add", "dashboard", "late"), "openssl x509 failed: .*soon"),
        (("--force", "init", "localhost"), "unknown option --force"),
        (("add", "dashboard", "bench-1"), "bench-1 is in .*; expected a new name"),
    ],
)
def test_the_kit_refuses_what_cannot_be_and_overwrites_nothing(kit, arguments, expected):
    before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run("--dir", kit, *arguments)
    assert refused.value.returncode == 2
    assert re.search(expected, refused.value.stderr, re.DOTALL)
    for left in kit.glob("clients/late.*"):
        left.unlink()
    assert before == {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    assert {path.stat().st_mode & 0o777 for path in kit.rglob("*.key")} == {0o600}


class Tap:
    """A TCP proxy that keeps every byte that a client sends."""

    def __init__(self, port):
        self.sent = bytearray()
        self._server, self._broker = socket.create_server(("127.0.0.1", 0)), port
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            broker = socket.create_connection(("127.0.0.1", self._broker))
            for ends in ((client, broker, self.sent), (broker, client, bytearray())):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    @staticmethod
    def _carry(source, sink, kept):
        try:
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def close(self):
        self._server.close()


def connect(kit, port, name="bench-1", host="127.0.0.1", **options):
    files = {
        "ca_file": kit / "ca.crt",
        "cert_file": kit / f"clients/{name}.crt",
        "key_file": kit / f"clients/{name}.key",
    }
    settings = mqtt.Settings(host=host, port=port, **(files | options))
    heard = queue.Queue()
    publisher = open_publisher("mqtt", settings, Setup("nanotox-bench-1", None, heard.put))
    publisher.start()
    return publisher, heard


def wait(heard, kind):
    while not isinstance(event := heard.get(timeout=30), kind):
        pass
    return event


def certify(kit, name, *, start, end):
    """Write a broker's certificate of the lab's authority that is in force from `start` to `end`."""
    folder = kit / name
    folder.mkdir()
    (folder / "index").touch()
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca = lab\n[lab]\ndatabase = {folder}/index\nnew_certs_dir = {folder}\n"
        "rand_serial = yes\ndefault_md = sha256\npolicy = any\nx509_extensions = names\n"
        "[any]\ncommonName = supplied\n[names]\nsubjectAltName = IP:127.0.0.1\n"
    )
    certificate, request = folder / "broker.crt", folder / "broker.csr"
    for command in (
        ["req", "-new", "-key", kit / "broker.key", "-subj", "/CN=broker", "-out", request],
        [
            "ca",
            "-batch",
            "-config",
            folder / "ca.cnf",
            "-cert",
            kit / "ca.crt",
            "-keyfile",
            kit / "ca.key",
            "-startdate",
            start,
            "-enddate",
            end,
            "-in",
            request,
            "-out",
            certificate,
            "-notext",
        ],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return certificate


WRONG = {
    "authority": "is of another authority than ca_file; .* find out whose broker that is",
    "name": "is for other names; expected localhost among them",
    "expired": r"has expired on 20\d\d-\d\d-\d\d, this machine's date",
    "no certificate": r"the broker refuses this certificate \(.*CERTIFICATE_REQUIRED\)",
    "plain port": r"does not answer in TLS \(.*\); expected the broker's TLS port, usually 8883",
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_tls_is_refused_in_words_and_nothing_is_sent_in_the_clear(
    kit, start, make_broker, monkeypatch, tmp_path, fault
):
    options, host = {}, "127.0.0.1"
    if fault == "authority":
        run("--dir", tmp_path / "other", "init", "localhost", "127.0.0.1")
        broker, options = start(kit), {"ca_file": tmp_path / "other/ca.crt"}
    elif fault in ("name", "expired"):
        year = {"name": "39", "expired": "21"}[fault]
        crt = certify(kit, f"wrong-{next(FRESH)}", start="200101000000Z", end=f"{year}0101000000Z")
        broker = start(kit, **{str(kit / "broker.crt"): str(crt)})
        host = "localhost" if fault == "name" else host
    elif fault == "no certificate":
        broker, options = start(kit), {"cert_file": None, "key_file": None}
    else:
        monkeypatch.setattr(_link, "ANSWER_S", 2.0)
        broker = make_broker()
    tap = Tap(broker.port)
    publisher, heard = connect(kit, tap.port, host=host, **options)
    lost = wait(heard, Lost)
    assert lost.fault == "TLS_ERROR"
    detail = lost.detail
    assert publisher.send(Message("nanotox/v1/lab/bench-1/verdict", b"{}")) is None
    publisher.close()
    tap.close()
    assert re.search(WRONG[fault], detail), detail
    assert heard.empty() or not any(isinstance(event, Connected) for event in heard.queue)
    assert is_tls(tap.sent)


def is_tls(sent):
    """Whether all that was sent stands in records of TLS, and none of what MQTT says can be read in it."""
    assert sent
    at = 0
    while at + 5 <= len(sent):
        kind, major, length = sent[at], sent[at + 1], int.from_bytes(sent[at + 3 : at + 5])
        if kind not in (20, 21, 22, 23) or major != 3:
            return False
        at += 5 + length
    return not any(word in sent for word in (b"MQTT", b"nanotox/", b"nanotox-bench-1"))


def test_a_broker_of_the_future_is_waited_for_and_told(kit, start):
    crt = certify(kit, f"wrong-{next(FRESH)}", start="20490101000000Z", end="20500101000000Z")
    broker = start(kit, **{str(kit / "broker.crt"): str(crt)})
    publisher, heard = connect(kit, broker.port)
    said = "is not valid yet on 20.*, this machine's date; waits until the clock is set"
    assert re.search(said, wait(heard, Lost).detail)
    # once the clock is right, here because the certificate is, it goes on by itself
    crt.write_bytes((kit / "broker.crt").read_bytes())
    broker.stop()
    broker.start()
    wait(heard, Connected)
    publisher.close()


def test_a_station_with_its_certificate_is_let_in_and_heard_under_its_own_name_only(kit, start):
    broker = start(kit)
    tap = Tap(broker.port)
    publisher, heard = connect(kit, tap.port)
    wait(heard, Connected)
    answers = {}
    for name in ("bench-1", "bench-2"):
        token = publisher.send(Message(f"nanotox/v1/lab/{name}/verdict", b'{"secret":"of the lab"}'))
        settled = wait(heard, Settled)
        assert settled.token == token
        answers[name] = settled.failure
    publisher.close()
    tap.close()
    assert answers == {"bench-1": None, "bench-2": "Not authorized (code 135)"}
    assert is_tls(tap.sent)
    assert b"of the lab" not in tap.sent


def test_files_of_systemd_credentials_are_read_from_where_the_service_has_them(
    kit, start, tmp_path, monkeypatch
):
    key = tmp_path / "nanotox.key"
    key.write_bytes((kit / "clients/bench-1.key").read_bytes())
    key.chmod(0o440)  # as with an ACL for the user of the service
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    publisher, heard = connect(kit, start(kit).port, key_file=Path("$CREDENTIALS_DIRECTORY/nanotox.key"))
    wait(heard, Connected)
    publisher.close()


@pytest.mark.parametrize("signed", [True, False], ids=["certificate", "password"])
def test_no_secret_is_in_arguments_environment_log_journal_or_configuration(kit, start, tmp_path, signed):
    secrets = [line for line in (kit / "clients/bench-1.key").read_text().splitlines() if "-" not in line[:5]]
    login = f'cert_file = "{kit}/clients/bench-1.crt"\nkey_file = "{kit}/clients/bench-1.key"\n'
    changes = {}
    if not signed:
        secrets, password, passwords = ["cr3t-of-bench"], tmp_path / "password", tmp_path / "passwords"
        password.touch(0o600)
        password.write_text(secrets[0])
        passwords.touch(0o600)
        subprocess.run(
            ["mosquitto_passwd", "-b", passwords, "bench-1", secrets[0]], check=True, capture_output=True
        )
        login = f'user = "bench-1"\npassword_file = "{password}"\n'
        changes = {
            "require_certificate true": "",
            "use_identity_as_username true": f"password_file {passwords}",
        }
    broker = start(kit, **changes)
    config = tmp_path / "station.toml"
    config.write_text(
        '[station]\nsite = "lab"\nname = "bench-1"\nassay = "adherent"\nmodality = "phase"\n'
        '[scale]\num_per_px = 0.65\n[camera]\nkind = "phantom"\n[model]\n'
        f'cell_model = "{ROOT}/models/phase-cell"\n[frames]\nkeep = true\n'
        f'[publisher]\nhost = "127.0.0.1"\nport = {broker.port}\nca_file = "{kit}/ca.crt"\n{login}'
    )
    command = [sys.executable, "-m", "device.cli"]
    shown = subprocess.run([*command, "config", "show", "--config", config], capture_output=True, check=True)
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        station = subprocess.Popen(
            [*command, "run", "--config", config, "--log-level", "debug"], stderr=stderr
        )
    try:
        wait_for_line(broker, "connected from .* as nanotox-bench-1")
        process = Path(f"/proc/{station.pid}")
        seen = {"argv": (process / "cmdline").read_bytes(), "environment": (process / "environ").read_bytes()}
    finally:
        station.terminate()
        station.wait(30)
    assert b"broker connected" in log.read_bytes(), log.read_text()
    mine = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("password", "passwords")
    ]
    assert {"journal.db", "log"} <= {path.name for path in mine}
    seen |= {str(path): path.read_bytes() for path in mine} | {"config show": shown.stdout + shown.stderr}
    assert [where for where, text in seen.items() for secret in secrets if secret.encode() in text] == []
