"""What stands between a browser and the dashboard: headers, whom it listens to, and the operator's token.

Browsers get no credentials and read only. A command needs the one token, which is asked for in a form, goes
over the page's own connection, never into a URL or a cookie, and is compared here in constant time.
"""

import hmac
import ipaddress
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from device.errors import ConfigError
from device.tls import read_secret

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Scope]]
Send: TypeAlias = Callable[[Scope], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, and no script of the page but those that bear this answer's own nonce. The library
compiles its own components in the browser, which is what `unsafe-eval` allows; no text of ours gets there."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
_LEAST_TOKEN = 16
_TRIES, _WINDOW_S, _PEERS = 5, 60.0, 1000
"""So many wrong tokens of one address in so many seconds, then none is looked at; addresses remembered."""


class Guard:
    """An ASGI application around `app`, which sets the headers and turns foreign pages away.

    `is_local` says that only names of this machine are answered to, so that no page elsewhere can get in by
    a name that it points here.
    """

    def __init__(self, app: App, *, is_local: bool) -> None:
        self.app, self._is_local = app, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if (why := self._refusal(dict(scope["headers"]))) is not None:
            await _refuse(scope, receive, send, why)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        policy = (b"content-security-policy", _POLICY.format(nonce=nonce).encode())

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], policy, *_HEADERS]}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _refusal(self, headers: dict[bytes, bytes]) -> str | None:
        host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin")
        if self._is_local and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return f"this page answers to localhost only, not to {host[:100]}; see --host"
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            return "a page of another origin may not talk to this one"
        return None


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode("utf-8", "replace")})


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(slots=True)
class Operator:
    """Who may send commands: whoever knows the token; nobody where there is none."""

    token: str | None
    clock: Callable[[], float] = time.monotonic
    _wrong: dict[str, deque[float]] = field(default_factory=dict)

    def refusal(self, told: str, peer: str) -> str | None:
        """Return why a token that came from the address `peer` is refused; None for the right one."""
        if self.token is None:
            return "commands are off: the dashboard was started without --operator-token-file"
        now, wrong = self.clock(), self._wrong.get(peer, deque(maxlen=_TRIES))
        if len(wrong) == _TRIES and now - wrong[0] < _WINDOW_S:
            return f"too many wrong tokens; wait {_WINDOW_S - (now - wrong[0]):.0f} s"
        if hmac.compare_digest(told.encode("utf-8", "replace"), self.token.encode()):
            return None
        wrong.append(now)
        self._wrong[peer] = wrong
        if len(self._wrong) > _PEERS:
            del self._wrong[next(iter(self._wrong))]
        return "this is not the operator's token"


def read_token(path: Path | None) -> str | None:
    """Return the token in the first line of a file that its owner alone can read; None without a file."""
    if path is None:
        return None
    token = read_secret(path).partition("\n")[0].strip()
    if len(token) < _LEAST_TOKEN:
        raise ConfigError(
            f"{path} holds a token of {len(token)} characters; expected {_LEAST_TOKEN} or more in its first "
            "line, such as: head -c 24 /dev/urandom | base64"
        )
    return token
