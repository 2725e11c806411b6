"""The part of `nanotox doctor` that looks at the broker: whether it answers, until when certificates hold."""

import os
import queue
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.cli.doctor import Checks, Finding
from device.errors import StationError
from device.tls import client_context

if TYPE_CHECKING:
    from device.config import Config

_BROKER_S = 5.0
_CERTIFICATE_DAYS = 30
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_VALIDITY = re.compile(rb"\x30.([\x17\x18].)(\d{12,14})Z([\x17\x18].)(\d{12,14})Z", re.DOTALL)
"""`Validity` of X.509 in DER: a sequence of two times. The standard library decodes no certificate of one's
own, and two dates are no reason for another library."""


def check_broker(config: "Config", _is_running: bool) -> Checks:
    """Yield whether the broker answers, and until when the certificates towards it are valid."""
    from device.publishers import Connected, Event, Lost, Setup, open_publisher

    settings, kind = config.publisher.settings, config.publisher.kind
    if kind != "mqtt":
        yield Finding("broker", "skip", f"publisher {kind} needs none")
        return
    if settings.ca_file is not None:
        yield from _certificates(settings)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    client_id = f"nanotox-doctor-{os.getpid()}"
    publisher = open_publisher(
        kind, replace(settings, session_expiry_s=0), Setup(client_id, None, events.put)
    )
    where, began = f"{settings.host}:{settings.port}", time.monotonic()
    tls = "with TLS" if settings.ca_file else "without TLS"
    try:
        publisher.start()
        event = events.get(timeout=_BROKER_S)
    except queue.Empty:
        event = Lost(f"no answer within {_BROKER_S:g} s")
    finally:
        publisher.close()
    if isinstance(event, Connected):
        yield Finding("broker", "ok", f"{where} {tls} answers in {1000 * (time.monotonic() - began):.0f} ms")
    else:
        why = event.detail if isinstance(event, Lost) else "it says nothing"
        why = f"{event.fault}: {why}" if isinstance(event, Lost) and event.fault else why
        do = "start the broker, check [publisher] and the network"
        yield Finding("broker", "fail", f"{where} {tls}: {why}", do)


def _certificates(settings: Any) -> Checks:  # noqa: ANN401 - the settings of a kind
    files = {f"publisher.{name}": getattr(settings, name) for name in ("ca_file", "cert_file")}
    readers: dict[str, Callable[[], tuple[datetime, datetime]]] = {
        name: partial(validity_of_file, path) for name, path in files.items() if path is not None
    }
    readers["the broker's certificate"] = partial(validity_of_broker, settings, _BROKER_S)
    for name, read in readers.items():
        try:
            first, last = read()
        except (OSError, ValueError, StationError) as error:
            yield Finding("certificate", "fail", f"{name}: {error}", "check files and times of [publisher]")
            continue
        now, until = datetime.now(UTC), f"{name} is valid until {last:%Y-%m-%d}"
        if now < first:
            found = f"{name} is valid from {first:%Y-%m-%d} on"
            yield Finding("certificate", "fail", found, "check the clock")
        elif (last - now).days < _CERTIFICATE_DAYS:
            yield Finding("certificate", "fail", until, "get a new one in time")
        else:
            yield Finding("certificate", "ok", until)


def validity_of_file(path: Path) -> tuple[datetime, datetime]:
    """Return from when to when the first certificate of a PEM file is valid.

    OSError or ValueError if there is none.
    """
    text = path.read_text("ascii")
    return validity(ssl.PEM_cert_to_DER_cert(text[text.index(_BEGIN) : text.index(_END) + len(_END)]))


def validity_of_broker(settings: Any, timeout_s: float) -> tuple[datetime, datetime]:  # noqa: ANN401 - a kind's own
    """Return from when to when the certificate is valid that the broker of `[publisher]` shows.

    OSError if it shows none, or one that is not trusted.
    """
    context = client_context(settings.ca_file, settings.cert_file, settings.key_file)
    with (
        socket.create_connection((settings.host, settings.port), timeout=timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=settings.host) as secured,
    ):
        return validity(secured.getpeercert(binary_form=True) or b"")


def validity(der: bytes) -> tuple[datetime, datetime]:
    """Return from when to when a certificate in DER is valid, UTC; ValueError if it is none."""
    found = _VALIDITY.search(der)
    if found is None:
        raise ValueError("it holds no certificate")
    first, last = (text.decode() for text in (found[2], found[4]))
    return _time(first), _time(last)


def _time(text: str) -> datetime:
    form = "%Y%m%d%H%M%S" if len(text) == 14 else "%y%m%d%H%M%S"
    return datetime.strptime(text, form).replace(tzinfo=UTC)
