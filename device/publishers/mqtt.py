"""Publisher kind `mqtt`: MQTT 5, QoS 1 both ways (pictures QoS 0), one client a connection.

paho is used for one connection only and thrown away with it. Its own reconnect sends again all that it holds,
past its own limit (paho issue 492), and keeps a message that the broker will never take at the head for ever;
here the send loop decides from the journal what goes out after a reconnect. Callbacks only hand on events:
paho holds its lock while it calls `on_publish`, so whoever takes another lock there can stop both threads for
good (paho 226, 346, 603).
"""

import itertools
import random
import selectors
import ssl
import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device.errors import PublishError
from device.publishers import Connected, Lost, Message, Received, Settled, Setup
from device.tls import client_context, explain, explain_alert, is_tls_fault, read_secret

WINDOW = 16
"""Most messages under way, below the 20 that Mosquitto receives at once."""
_RETRY_S = (0.1, 0.5)
"""First and longest wait before the next try; a broker restart must not cost more than 2 s."""
_REFUSED_S = 30.0
"""Wait after a refusal that only a person can mend, such as a wrong password."""
_JITTER = 0.2
"""Share by which waits differ, so that all stations of a lab do not return in the same instant."""
_ANSWER_S = 10.0
"""Limit for the connection and for the broker's first word."""
_SHORT_S = 2.0
"""A connection that ends sooner was none; that again and again means two stations under one name."""
_FLAPS = 3
_LARGEST_BYTES = 128 * 1024
"""The broker keeps larger messages to itself; nothing that a station hears or says comes near."""
_UNKEPT = 200
"""Most messages that a durable listener has not acknowledged: they stay in its memory, and in one commit."""
_WILL_DELAY_S = 10
"""The will hides a Wi-Fi dropout that is shorter."""
_NEEDS_A_PERSON = {133, 134, 135, 138, 140}
"""Reason codes: bad user name or password, not authorized, banned, bad authentication, client id not
valid."""


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
        self._password, self._context, self._sockets = password, context, sockets
        self._link: _Link | None = None  # once it stands
        self._begun: _Link | None = None  # without a thread: from the first try on
        self._numbers, self._n_short = itertools.count(), 0
        self._wait_s, self._connect_at = _RETRY_S[0], 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect, and go on trying until `close`."""
        if self._sockets is None:
            self._thread.start()

    def tend(self) -> None:
        """Connect, keep the connection alive, or give up what has ended; for who gave `sockets`."""
        link, now = self._begun, time.monotonic()
        if link is None:
            if now >= self._connect_at and not self._closing.is_set():
                self._begun = self._connect()
        elif link.is_over(now):
            self._begun = None
            self._connect_at = now + self._part(link)
        else:
            link.client.loop_misc()
            link.client.loop_write()

    def read(self) -> None:
        """Hear what has come from the broker; for who gave `sockets`."""
        if (link := self._begun) is None:
            return
        client, is_pending = link.client, True
        while is_pending:
            client.loop_read()
            is_pending = bool(getattr(client.socket(), "pending", int)())  # in TLS, where no selector sees it
        client.loop_write()  # what was asked for meanwhile
        if link.over.is_set():
            self.tend()

    def send(self, message: Message) -> object | None:
        """Hand the message to paho; it answers as `Settled`, or never if the connection breaks first."""
        link = self._link
        if link is None:
            return None
        properties = _properties(
            PacketTypes.PUBLISH,
            ContentType=message.content_type,
            MessageExpiryInterval=message.expiry_s,
            ResponseTopic=message.response_topic,
            CorrelationData=message.correlation,
            UserProperty=message.user or None,
        )
        sent = link.client.publish(
            message.topic, message.payload, qos=message.qos, retain=message.retain, properties=properties
        )
        return (link.number, sent.mid) if sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def close(self) -> None:
        """Say goodbye to the broker and end the thread."""
        self._closing.set()
        if link := self._link:
            link.client.disconnect()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._closing.is_set():
            link = self._connect()
            if not link.over.is_set():
                link.client.loop_start()
            while not link.over.wait(None if link.is_up else 0.2):
                if link.is_over(time.monotonic()) or (self._closing.is_set() and not link.is_up):
                    break
            self._closing.wait(self._part(link))

    def _connect(self) -> "_Link":
        """Return a connection that is begun; it is over at once if there is no broker."""
        client, settings = self._new_client(), self._settings
        link = _Link(next(self._numbers), client)
        client.on_connect = partial(self._on_connect, link)
        client.on_disconnect = link.on_disconnect
        client.on_publish = partial(self._on_publish, link)
        client.on_subscribe = partial(self._on_subscribe, link)
        client.on_message = self._on_message
        client.on_log = link.on_log
        if self._sockets is not None:
            client.on_socket_open, client.on_socket_close = self._watch, self._unwatch
        session = _properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=settings.session_expiry_s,
            MaximumPacketSize=_LARGEST_BYTES,
            ReceiveMaximum=_UNKEPT if self._setup.is_durable else None,
        )
        # paho looks about once a second, and needs it twice before it gives a silent broker up
        keepalive_s = max(1, settings.keepalive_s - 1)
        try:
            client.connect(settings.host, settings.port, keepalive_s, clean_start=False, properties=session)
        except (OSError, ValueError) as error:
            # ValueError comes for a host name that no name server would take.
            link.detail = explain(error, settings.host, settings.port)
            link.fault = "TLS_ERROR" if is_tls_fault(error) else None
            link.over.set()
        return link

    def _watch(self, _client: Client, _data: object, sock: Any) -> None:  # noqa: ANN401 - a socket, TLS or not
        if self._sockets is not None:
            self._sockets.register(sock, selectors.EVENT_READ, self)

    def _unwatch(self, _client: Client, _data: object, sock: Any) -> None:  # noqa: ANN401 - the same
        if self._sockets is not None:
            self._sockets.unregister(sock)

    def _part(self, link: "_Link") -> float:
        """Give up a connection and tell why; return how long to wait before the next try, s."""
        client, self._link = link.client, None
        client.disconnect()
        client.loop_stop()
        # Else it and the link hold each other, and its sockets stay open until the next collection.
        client.on_connect = client.on_disconnect = client.on_publish = client.on_subscribe = None
        client.on_log = None
        if self._closing.is_set():
            return 0.0
        lived_s = time.monotonic() - link.began if link.is_up else 0.0
        self._n_short = self._n_short + 1 if link.is_up and lived_s < _SHORT_S else 0
        hint = "; is another station running under this name?" if self._n_short >= _FLAPS else ""
        self._setup.notify(Lost(link.detail + hint, link.fault))
        low, high = _RETRY_S
        self._wait_s = low if lived_s >= _SHORT_S else min(2 * self._wait_s, high)
        pause = _REFUSED_S if link.fault == "BROKER_REFUSED" else self._wait_s
        return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - jitter, no secret

    def _new_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._setup.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=self._setup.is_durable,
        )
        client.max_inflight_messages_set(WINDOW)
        client.connect_timeout = _ANSWER_S
        if self._settings.user is not None:
            client.username_pw_set(self._settings.user, self._password)
        if self._context is not None:
            client.tls_set_context(self._context)
        if will := self._setup.will:
            properties = _properties(
                PacketTypes.WILLMESSAGE, WillDelayInterval=_WILL_DELAY_S, ContentType=will.content_type
            )
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)
        return client

    def _on_connect(
        self,
        link: "_Link",
        client: Client,
        _data: object,
        _flags: object,
        reason: ReasonCode,
        answer: Properties,
    ) -> None:
        if reason.is_failure:
            link.detail = f"the broker refuses: {reason} (code {reason.value})"
            link.fault = "BROKER_REFUSED" if reason.value in _NEEDS_A_PERSON else None
            return
        link.is_up = True
        client.on_log = None  # paho writes a line for each packet, if anybody hears it
        link.window = min(WINDOW, getattr(answer, "ReceiveMaximum", WINDOW))
        # Retain handling 2: an old message is no command; as published: so that one sent to be kept shows.
        handling = 0 if self._setup.is_durable else 2
        options = [SubscribeOptions(q, retainAsPublished=True, retainHandling=handling) for q in (0, 1)]
        asked = [(topic, options[1]) for topic in self._setup.subscribe]
        if asked := asked + [(topic, options[0]) for topic in self._setup.glance]:
            client.subscribe(asked)
        else:
            self._on_subscribe(link)

    def _on_subscribe(
        self,
        link: "_Link",
        _client: Client | None = None,
        _data: object = None,
        _mid: int = 0,
        reasons: Sequence[ReasonCode] = (),
        _answer: Properties | None = None,
    ) -> None:
        """Say that the connection stands, once answers to what is sent from now on can be heard."""
        self._link = link
        refused = next((f"{reason} (code {reason.value})" for reason in reasons if reason.is_failure), None)
        self._setup.notify(Connected(link.window, refused))

    def _on_message(self, client: Client, _data: object, message: MQTTMessage) -> None:
        keep = partial(client.ack, message.mid, message.qos) if self._setup.is_durable else None
        names = ("ResponseTopic", "CorrelationData", "MessageExpiryInterval", "UserProperty")
        answer_to, mark, expiry_s, user = (getattr(message.properties, name, None) for name in names)
        told = (message.topic, bytes(message.payload), answer_to, mark, message.retain, keep)
        self._setup.notify(Received(*told, expiry_s, tuple(user or ())))

    def _on_publish(
        self, link: "_Link", _client: Client, _data: object, mid: int, reason: ReasonCode, _answer: Properties
    ) -> None:
        failure = f"{reason} (code {reason.value})" if reason.is_failure else None
        self._setup.notify(Settled((link.number, mid), failure))


@dataclass(slots=True)
class _Link:
    """One connection and what became of it."""

    number: int
    client: Client
    over: threading.Event = field(default_factory=threading.Event)
    is_up: bool = False
    window: int = 0
    detail: str = "connection lost"
    fault: Literal["BROKER_REFUSED", "TLS_ERROR"] | None = None
    began: float = field(default_factory=time.monotonic)

    def is_over(self, now: float) -> bool:
        """Return whether it has ended, or the broker says nothing."""
        if not self.is_up and now - self.began > _ANSWER_S and not self.over.is_set():
            self.detail = f"the broker took the connection and said nothing for {_ANSWER_S:g} s"
            self.over.set()
        return self.over.is_set()

    def on_disconnect(
        self, _client: Client, _data: object, _flags: object, reason: ReasonCode, _answer: Properties | None
    ) -> None:
        if self.is_up:
            self.detail = f"connection lost: {reason}"
        self.over.set()

    def on_log(self, _client: Client, _data: object, _level: int, line: str) -> None:
        """Keep why the broker ended the handshake, which paho tells to its log alone."""
        if told := explain_alert(line):
            self.detail, self.fault = told, "TLS_ERROR"


@lru_cache(maxsize=64)
def _properties(packet: int, **values: Hashable) -> Properties:
    """Return what paho only reads: making it takes as long as sending the message."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, list(value) if isinstance(value, tuple) else value)
    return properties
