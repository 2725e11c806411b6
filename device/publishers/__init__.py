"""Publishers: one module a kind, found by its name, as cameras are.

To add a kind, write `device/publishers/<kind>.py` with `Settings` (a frozen dataclass, by the rules that
stand in `device.cameras`) and `open_publisher(settings: Settings, setup: Setup) -> Publisher`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from device.config import import_kind, list_kinds


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way out."""

    topic: str
    payload: bytes
    retain: bool = False
    expiry_s: int | None = None
    """The broker forgets it after this many seconds; None keeps it."""
    content_type: str = "application/json"
    response_topic: str | None = None
    """Where the answer to a request is waited for."""
    correlation: bytes | None = None
    """Mark of a request that its answer bears too."""
    qos: int = 1
    """0 for what may be lost, such as a picture."""
    user: tuple[tuple[str, str], ...] = ()
    """User properties, which only repeat what a payload cannot tell by itself."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The other side takes messages now; nothing sent before is under way any more."""

    window: int
    """Most messages that may be under way."""
    refused: str | None = None
    """Why the other side takes no subscription, where it does not."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The other side is gone or refuses; the publisher tries again by itself."""

    detail: str
    """What was found, for the log; the same fault gives the same words."""
    fault: Literal["BROKER_REFUSED", "TLS_ERROR"] | None = None
    """Code of what only a person can mend, such as a wrong password or certificate."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The other side answered for one message."""

    token: object
    """What `send` returned."""
    failure: str | None
    """None when it took the message, else why it never will as things stand."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message on a topic that `Setup.subscribe` asks for."""

    topic: str
    payload: bytes
    response_topic: str | None = None
    """Where whoever sent it waits for an answer."""
    correlation: bytes | None = None
    retained: bool = False
    """True for one that was sent to be kept, as a command never is."""
    acknowledge: Callable[[], object] | None = None
    """For a durable listener: tells the other side that it is kept, else it comes again. From any thread."""
    expiry_s: int | None = None
    """It says nothing any more after this many seconds from now; None where nobody said so."""
    user: tuple[tuple[str, str], ...] = ()
    """User properties."""


Event: TypeAlias = Connected | Lost | Settled | Received


@dataclass(frozen=True, slots=True)
class Setup:
    """What every publisher is told, whatever its kind."""

    client_id: str
    will: Message | None
    """What the broker says when the station is gone without a word; None for a visitor."""
    notify: Callable[[Event], None]
    """Takes events, from any thread, and must only put them in a queue: paho calls back with its own lock
    held."""
    subscribe: tuple[str, ...] = ()
    """Topics to listen to, `#` allowed; what was retained there before is not sent. Kinds without a way back
    pass over it."""
    is_durable: bool = False
    """Hear also what was retained before, and hear again whatever was not acknowledged."""
    glance: tuple[str, ...] = ()
    """Topics to listen to while there is a connection; nobody keeps for later what they say meanwhile."""


class Publisher(Protocol):
    """A way out, called by the send loop from its one thread; answers come as events through `notify`."""

    def start(self) -> None:
        """Begin to connect, without waiting for it."""
        ...

    def send(self, message: Message) -> object | None:
        """Hand over a message and return its token at once, or None if there is no connection."""
        ...

    def close(self) -> None:
        """Part in order, so that the will is not sent; returns within 2 s. May be called more than once."""
        ...


def publisher_kinds() -> tuple[str, ...]:
    """Return the names of all kinds, sorted, without importing one."""
    return list_kinds(__name__)


def publisher_settings(kind: str) -> type[Any]:
    """Return the settings record of `kind`; ConfigError lists the kinds if there is no such one."""
    settings: type[Any] = import_kind(__name__, kind).Settings
    return settings


def open_publisher(kind: str, settings: object, setup: Setup) -> Publisher:
    """Return the publisher `kind`, not yet started; PublishError if its settings cannot be used."""
    publisher: Publisher = import_kind(__name__, kind).open_publisher(settings, setup)
    return publisher
