"""Publisher kind `mqtt`: MQTT 5, QoS 1 both ways (pictures QoS 0), one client a connection."""

import contextlib
import itertools
import random
import selectors
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from device.errors import PublishError
from device.publishers import Lost, Message, Setup
from device.publishers._link import Link, make_properties
from device.tls import client_context, read_secret

_RETRY_S = (0.1, 0.5)
"""First and longest wait before the next try; a broker restart must not cost more than 2 s."""
_REFUSED_S = 30.0
"""Wait after a refusal that only a person can mend, such as a wrong password."""
_JITTER = 0.2
"""Share by which waits differ, so that all stations of a lab do not return in the same instant."""
_TURN_S = 1.0
"""A connection is looked after this often."""
_SHORT_S = 2.0
"""A connection that ends sooner was none; that again and again means two stations under one name."""
_FLAPS = 3
_WILL_DELAY_S = 10
"""The will hides a Wi-Fi dropout that is shorter."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[publisher]` for kind `mqtt`.

    A file `$CREDENTIALS_DIRECTORY/NAME` is one that systemd hands to the service (`LoadCredential=NAME`).
    """

    host: str = "localhost"
    """Name or address of the broker."""
    port: int = field(default=1883, metadata={"range": (1, 65535)})
    """Its port; 8883 is usual with TLS."""
    prefix: str = field(default="nanotox/v1", metadata={"pattern": r"[a-z0-9-]+(/[a-z0-9-]+)*"})
    """First part of every topic."""
    user: str | None = None
    """User name, if the broker asks for one."""
    password_file: Path | None = None
    """File whose first line is the password, readable by its owner alone; never the password itself."""
    ca_file: Path | None = None
    """Certificate authority of the broker, PEM; switches TLS on."""
    cert_file: Path | None = None
    """Certificate of this station, PEM, where the broker wants one."""
    key_file: Path | None = None
    """Private key to `cert_file`, PEM, readable by its owner alone."""
    keepalive_s: int = field(default=10, metadata={"range": (5, 300)})
    """A silent broker is noticed after twice this, s."""
    session_expiry_s: int = field(default=86_400, metadata={"range": (0, 4_294_967_295)})
    """How long the broker remembers this station's session, s."""

    def __post_init__(self) -> None:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together; expected both or none")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together; expected both or none")
        if self.cert_file is not None and self.ca_file is None:
            raise ValueError("cert_file is given without ca_file; expected the broker's authority too")


def open_publisher(
    settings: Settings, setup: Setup, sockets: selectors.BaseSelector | None = None
) -> "MqttPublisher":
    """Return a publisher to a broker that need not be there yet; files that others may read are refused.

    Whoever gives `sockets` drives it: without a thread, by `tend` about every second and by `read` whenever
    its socket, registered there with the publisher as data, can be read.
    """
    password = context = None
    if settings.password_file is not None:
        password = read_secret(settings.password_file).partition("\n")[0].rstrip("\r")
        if not password:
            raise PublishError(f"{settings.password_file} is empty; expected a password in its first line")
    if settings.ca_file is not None:
        context = client_context(settings.ca_file, settings.cert_file, settings.key_file)
    return MqttPublisher(settings, setup, password, context, sockets)


class MqttPublisher:
    """A connection that is made again whenever it breaks, in a thread of its own or driven by its owner."""

    def __init__(
        self,
        settings: Settings,
        setup: Setup,
        password: str | None,
        context: ssl.SSLContext | None,
        sockets: selectors.BaseSelector | None,
    ) -> None:
        self._settings, self._setup = settings, setup
        self._password, self._context = password, context
        self._is_driven, self._sockets = sockets is not None, sockets or selectors.DefaultSelector()
        self._link: Link | None = None  # from the first try on
        self._numbers, self._n_short = itertools.count(), 0
        self._wait_s, self._connect_at = _RETRY_S[0], 0.0
        self._closing = threading.Event()
        self._bell: socket.socket | None = None  # of the thread
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to connect, and go on trying until `close`."""
        if not self._is_driven:
            ear, self._bell = socket.socketpair()
            self._thread = threading.Thread(
                target=self._run, args=(ear, self._bell), name="mqtt", daemon=True
            )
            self._thread.start()

    def tend(self) -> None:
        """Connect, keep the connection alive, or give up what has ended; for who gave `sockets`."""
        if self._link is None and time.monotonic() >= self._connect_at and not self._closing.is_set():
            self._link = self._connect()
        if (link := self._link) is not None:
            if link.is_over():
                self._part(link)
            else:
                link.tend()

    def read(self) -> None:
        """Hear what has come from the broker; for who gave `sockets`."""
        if (link := self._link) is not None:
            link.read()
            if link.over.is_set():
                self.tend()

    def send(self, message: Message) -> object | None:
        """Send the message; it answers as `Settled`, or never if the connection breaks first."""
        link = self._link
        return link.send(message) if link is not None and link.stands else None

    def close(self) -> None:
        """Say goodbye to the broker and end the thread."""
        self._closing.set()
        if link := self._link:
            link.leave()
        self._wake()
        if self._thread is not None:
            self._thread.join(2.0)

    def _run(self, ear: socket.socket, bell: socket.socket) -> None:
        """Drive itself."""
        with self._sockets, ear, bell:
            self._sockets.register(ear, selectors.EVENT_READ)
            while not self._closing.is_set():
                self.tend()
                wait_s = _TURN_S if self._link else min(self._connect_at - time.monotonic(), _TURN_S)
                for key, _ in self._sockets.select(max(0.0, wait_s)):
                    if key.data is self:
                        self.read()
                    else:
                        ear.recv(64)
            if self._link is not None:
                self._part(self._link)

    def _wake(self) -> None:
        """Have the thread look at once, if there is one, at what another one did."""
        if self._bell is not None:
            with contextlib.suppress(OSError):  # it has ended
                self._bell.send(b"\0")

    def _connect(self) -> Link:
        """Return a connection that is begun; it is over at once if there is no broker."""
        settings = self._settings
        link = Link(next(self._numbers), self._new_client(), self._setup, self._sockets, self, self._wake)
        link.begin(
            settings.host,
            settings.port,
            keepalive_s=settings.keepalive_s,
            session_expiry_s=settings.session_expiry_s,
        )
        return link

    def _part(self, link: Link) -> None:
        """Give up a connection, tell why, and set the time of the next try."""
        self._link, lived_s = None, link.lived_s
        link.part()
        if self._closing.is_set():
            return
        self._n_short = self._n_short + 1 if link.is_up and lived_s < _SHORT_S else 0
        hint = "; is another station running under this name?" if self._n_short >= _FLAPS else ""
        self._setup.notify(Lost(link.detail + hint, link.fault))
        low, high = _RETRY_S
        self._wait_s = low if lived_s >= _SHORT_S else min(2 * self._wait_s, high)
        pause = _REFUSED_S if link.fault == "BROKER_REFUSED" else self._wait_s
        self._connect_at = time.monotonic() + pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - jitter, no secret

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._setup.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=self._setup.is_durable,
        )
        if self._settings.user is not None:
            client.username_pw_set(self._settings.user, self._password)
        if self._context is not None:
            client.tls_set_context(self._context)
        if will := self._setup.will:
            properties = make_properties(
                PacketTypes.WILLMESSAGE, WillDelayInterval=_WILL_DELAY_S, ContentType=will.content_type
            )
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)
        return client
