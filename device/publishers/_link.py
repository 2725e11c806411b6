"""One connection of kind `mqtt` to a broker, and what became of it.

paho is used for one connection only and thrown away with it. Its own reconnect sends again all that it holds,
past its own limit (paho issue 492), and keeps a message that the broker will never take at the head for ever;
here the send loop decides from the journal what goes out after a reconnect.

One thread hears the broker; another one may send, and writes to the socket at once, since waking the first
for it took as long as all else. One lock orders them. It is taken before any of paho's and never in a
callback, which paho calls with a lock of its own held: whoever takes another one there can stop both threads
for good (paho 226, 346, 603). Callbacks only hand on events.
"""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device.publishers import Connected, Message, Received, Settled, Setup
from device.tls import explain, explain_alert, is_tls_fault

WINDOW = 16
"""Most messages under way, below the 20 that Mosquitto receives at once."""
ANSWER_S = 10.0
"""Limit for the connection and for the broker's first word."""
_LARGEST_BYTES = 128 * 1024
"""The broker keeps larger messages to itself; nothing that a station hears or says comes near."""
_UNKEPT = 200
"""Most messages that a durable listener has not acknowledged: they stay in its memory, and in one commit."""
_NEEDS_A_PERSON = {133, 134, 135, 138, 140}
"""Reason codes: bad user name or password, not authorized, banned, bad authentication, client id not
valid."""


class Link:
    """The connection of `client`, number `number`, to be begun once; its socket is watched by `sockets`.

    The key of the socket there has `key` as data. `note_over` is called, from any thread, when it has ended.
    """

    def __init__(
        self,
        number: int,
        client: Client,
        setup: Setup,
        sockets: selectors.BaseSelector,
        key: object,
        note_over: Callable[[], object],
    ) -> None:
        self.client, self._number, self._setup = client, number, setup
        self._sockets, self._key, self._note_over = sockets, key, note_over
        self._lock = threading.RLock()  # a listener may acknowledge a message from its callback
        self._is_full, self._window = False, 0
        self._began = time.monotonic()
        self.is_up = False
        """Whether the broker has taken it."""
        self.stands = False
        """Whether it can be sent on, and answers are heard."""
        self.over = threading.Event()
        self.detail = "connection lost"
        """Why it has ended."""
        self.fault: Literal["BROKER_REFUSED", "TLS_ERROR"] | None = None

    def begin(self, host: str, port: int, *, keepalive_s: int, session_expiry_s: int) -> None:
        """Connect, within `ANSWER_S`; it is over at once if there is no broker."""
        client = self.client
        client.max_inflight_messages_set(WINDOW)
        client.connect_timeout = ANSWER_S
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_publish, client.on_message = self._on_publish, self._on_message
        client.on_disconnect, client.on_log = self._on_disconnect, self._on_log
        client.on_socket_open, client.on_socket_close = self._watch, self._unwatch
        session = make_properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=session_expiry_s,
            MaximumPacketSize=_LARGEST_BYTES,
            ReceiveMaximum=_UNKEPT if self._setup.is_durable else None,
        )
        # paho looks about once a second, and needs it twice before it gives a silent broker up
        keepalive_s = max(1, keepalive_s - 1)
        try:
            client.connect(host, port, keepalive_s, clean_start=False, properties=session)
        except (OSError, ValueError) as error:
            # ValueError comes for a host name that no name server would take.
            self.detail = explain(error, host, port)
            self.fault = "TLS_ERROR" if is_tls_fault(error) else None
            self.over.set()

    @property
    def lived_s(self) -> float:
        """How long the broker has held it, s; 0 if it never took it."""
        return time.monotonic() - self._began if self.is_up else 0.0

    def is_over(self) -> bool:
        """Return whether it has ended, or the broker says nothing."""
        is_late = not self.is_up and time.monotonic() - self._began > ANSWER_S
        if is_late and not self.over.is_set():
            self.detail = f"the broker took the connection and said nothing for {ANSWER_S:g} s"
            self.over.set()
        return self.over.is_set()

    def tend(self) -> None:
        """Keep it alive."""
        with self._lock:
            self.client.loop_misc()
            self._write()

    def read(self) -> None:
        """Hear what has come, and write what could not be written before."""
        with self._lock:
            client, is_pending = self.client, True
            while is_pending:
                client.loop_read()
                is_pending = bool(
                    getattr(client.socket(), "pending", int)()
                )  # in TLS, where no selector sees it
            self._write()

    def send(self, message: Message) -> object | None:
        """Send a message, and return the token of the `Settled` that answers it; None if that cannot be."""
        properties = make_properties(
            PacketTypes.PUBLISH,
            ContentType=message.content_type,
            MessageExpiryInterval=message.expiry_s,
            ResponseTopic=message.response_topic,
            CorrelationData=message.correlation,
            UserProperty=message.user or None,
        )
        with self._lock:
            sent = self.client.publish(
                message.topic, message.payload, qos=message.qos, retain=message.retain, properties=properties
            )
            self._watch_for_room()
        return (self._number, sent.mid) if sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def leave(self) -> None:
        """Say goodbye to the broker."""
        with self._lock:
            self.client.disconnect()

    def part(self) -> None:
        """Leave, and let go of all that it holds."""
        self.stands = False
        with self._lock:
            self.leave()
            client, sock = self.client, self.client.socket()
            if sock is not None:  # the goodbye could not be written
                self._unwatch(client, None, sock)
                sock.close()
            # Else client and link hold each other, and sockets stay open until the next collection.
            client.on_connect = client.on_subscribe = client.on_publish = client.on_message = None
            client.on_disconnect = client.on_log = client.on_socket_open = client.on_socket_close = None

    def _write(self) -> None:
        self.client.loop_write()
        self._watch_for_room()

    def _watch_for_room(self) -> None:
        """Have the socket watched for room, too, as long as something waits for it."""
        sock, waits = self.client.socket(), self.client.want_write()
        if sock is not None and waits != self._is_full:
            self._is_full = waits
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waits else 0)
            self._sockets.modify(sock, events, self._key)

    def _acknowledge(self, mid: int, qos: int) -> None:
        with self._lock:
            self.client.ack(mid, qos)
            self._watch_for_room()

    def _watch(self, _client: Client, _data: object, sock: Any) -> None:  # noqa: ANN401 - a socket, TLS or not
        # Else a verdict right behind its reading waits until the network has brought an answer for that.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.register(sock, selectors.EVENT_READ, self._key)

    def _unwatch(self, _client: Client, _data: object, sock: Any) -> None:  # noqa: ANN401 - the same
        self._sockets.unregister(sock)

    def _on_connect(
        self, client: Client, _data: object, _flags: object, reason: ReasonCode, answer: Properties | None
    ) -> None:
        if reason.is_failure:
            self.detail = f"the broker refuses: {reason} (code {reason.value})"
            self.fault = "BROKER_REFUSED" if reason.value in _NEEDS_A_PERSON else None
            return
        self.is_up = True
        client.on_log = None  # paho writes a line for each packet, if anybody hears it
        self._window = min(WINDOW, getattr(answer, "ReceiveMaximum", WINDOW))
        # Retain handling 2: an old message is no command; as published: so that one sent to be kept shows.
        handling = 0 if self._setup.is_durable else 2
        options = [SubscribeOptions(q, retainAsPublished=True, retainHandling=handling) for q in (0, 1)]
        asked = [(topic, options[1]) for topic in self._setup.subscribe]
        if asked := asked + [(topic, options[0]) for topic in self._setup.glance]:
            client.subscribe(asked)
        else:
            self._on_subscribe()

    def _on_subscribe(
        self,
        _client: Client | None = None,
        _data: object = None,
        _mid: int = 0,
        reasons: Sequence[ReasonCode] = (),
        _answer: Properties | None = None,
    ) -> None:
        """Say that the connection stands, once answers to what is sent from now on can be heard."""
        self.stands = True
        refused = next((f"{reason} (code {reason.value})" for reason in reasons if reason.is_failure), None)
        self._setup.notify(Connected(self._window, refused))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        keep = partial(self._acknowledge, message.mid, message.qos) if self._setup.is_durable else None
        names = ("ResponseTopic", "CorrelationData", "MessageExpiryInterval", "UserProperty")
        answer_to, mark, expiry_s, user = (getattr(message.properties, name, None) for name in names)
        told = (message.topic, bytes(message.payload), answer_to, mark, message.retain, keep)
        self._setup.notify(Received(*told, expiry_s, tuple(user or ())))

    def _on_publish(
        self, _client: Client, _data: object, mid: int, reason: ReasonCode, _answer: Properties
    ) -> None:
        failure = f"{reason} (code {reason.value})" if reason.is_failure else None
        self._setup.notify(Settled((self._number, mid), failure))

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: object, reason: ReasonCode, _answer: Properties | None
    ) -> None:
        if self.is_up:
            self.detail = f"connection lost: {reason}"
        self.over.set()
        self._note_over()

    def _on_log(self, _client: Client, _data: object, _level: int, line: str) -> None:
        """Keep why the broker ended the handshake, which paho tells to its log alone."""
        if told := explain_alert(line):
            self.detail, self.fault = told, "TLS_ERROR"


@lru_cache(maxsize=64)
def make_properties(packet: int, **values: Hashable) -> Properties:
    """Return what paho only reads: making it takes as long as sending the message."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves it untyped
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, list(value) if isinstance(value, tuple) else value)
    return properties
