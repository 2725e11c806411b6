"""What lab IT asks a station over HTTP: `/metrics` for Prometheus, `/healthz` for a probe.

Both tell what the station publishes on `health` and `state`, from the same records. Nothing of the station
waits for this: whoever asks too much, too slowly or too often is cut off, and the loops do not notice.
"""

import json
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO

from device.config import HttpSection
from device.errors import StationError
from device.records import Health
from device.station.health import CONDITIONS

log = logging.getLogger(__name__)

_THREADS = 4
"""Most requests at a time; one more is hung up on."""
_LIMIT_S = 2.0
"""A request must have come within this, and its answer be taken within as long again."""
_MAX_REQUEST_BYTES = 4096
_FRESH_S = 1.0
"""Health is read at most this often: each time it asks the journal."""
_AGAIN_S = 5.0
"""An address that cannot be had (no network yet, port taken) is tried again after this."""

_METRICS = {
    "records_unsent": ("n_unsent", "gauge", "Records that the broker has not acknowledged."),
    "record_unsent_oldest_seconds": ("oldest_unsent_s", "gauge", "Age of the oldest of them."),
    "frames_captured_total": ("n_captured", "counter", "Frames that the camera gave, lost ones included."),
    "frames_analyzed_total": ("n_analyzed", "counter", "Frames that were analyzed."),
    "frames_dropped_total": ("n_dropped", "counter", "Frames that were passed over."),
    "frames_waiting": ("n_waiting", "gauge", "Frames that are analyzed now or wait for it."),
    "camera_reopens_total": ("n_camera_reopens", "counter", "Times that the camera was opened again."),
    "broker_reconnects_total": ("n_reconnects", "counter", "Times that the broker was reached again."),
    "disk_free_bytes": ("disk_free_bytes", "gauge", "Room on the disk of the journal."),
    "cpu_celsius": ("cpu_celsius", "gauge", "Temperature of the processor."),
    "resident_memory_bytes": ("rss_bytes", "gauge", "Resident memory of the station."),
}
"""Name without `nanotox_`, the field of `Health` behind it, type and help; a null is left out."""


def to_prometheus(health: Health, *, site: str, station: str) -> str:
    """Return `health` in the text format of Prometheus (0.0.4), labeled with `site` and `station`.

    Every condition stands in `nanotox_alert` as 0 or 1, so that a rule on it sees when it is over.
    """
    whose = f'site="{site}",station="{station}"'
    lines: list[str] = []

    def add(name: str, kind: str, told: str, values: Iterable[tuple[str, float | None]]) -> None:
        there = [
            f"nanotox_{name}{{{whose}{labels}}} {value}" for labels, value in values if value is not None
        ]
        if there:
            lines.extend((f"# HELP nanotox_{name} {told}", f"# TYPE nanotox_{name} {kind}", *there))

    add("station_info", "gauge", "1; a new boot_id is a new start.", [(f',boot_id="{health.boot_id}"', 1)])
    for name, (field, kind, told) in _METRICS.items():
        add(name, kind, told, [("", getattr(health, field))])
    synced = {"synced": 1, "unsynced": 0}.get(health.clock_state)
    add("clock_synced", "gauge", "Whether a time server has set the clock.", [("", synced)])
    codes = dict.fromkeys((*CONDITIONS, *health.alerts))
    alerts = [(f',code="{code}"', int(code in health.alerts)) for code in codes]
    add("alert", "gauge", "Whether the condition is raised now.", alerts)
    strains = () if health.throttled is None else ("UNDER_VOLTAGE", "THROTTLED")
    throttled = [(f',cause="{cause}"', int(cause in (health.throttled or ()))) for cause in strains]
    add("throttled", "gauge", "Whether this slows the processor now.", throttled)
    return "\n".join(lines) + "\n"


class Monitor:
    """Answers `GET /metrics` and `GET /healthz` from `start` until `close`, in threads of its own.

    `health` gives the record as it is published; `late` the loops that do not turn; `fault` the condition
    that keeps the station from its work. `late` and `fault` must not wait for anything, so that a probe is
    answered even while the journal's disk hangs.
    """

    def __init__(
        self,
        section: HttpSection,
        *,
        site: str,
        station: str,
        health: Callable[[], Health],
        late: Callable[[], tuple[str, ...]],
        fault: Callable[[], str | None],
    ) -> None:
        self._section, self._site, self._station = section, site, station
        self._health, self._late, self._fault = health, late, fault
        self._mutex, self._closing = threading.Lock(), threading.Event()
        self._read_at, self._text = float("-inf"), b""
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Begin to listen; without a port in station.toml nothing happens."""
        if self._section.port is not None:
            self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_LIMIT_S)

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, content type and body of what is asked."""
        if path == "/healthz":
            return self._healthz()
        if path == "/metrics":
            return self._metrics()
        return HTTPStatus.NOT_FOUND, "text/plain", b"expected /metrics or /healthz\n"

    def _healthz(self) -> tuple[HTTPStatus, str, bytes]:
        late, fault = self._late(), self._fault()
        told = {
            "status": "stalled" if late else "fault" if fault else "ok",
            "loops": late,
            "fault": fault,
            "text": CONDITIONS.get(fault) if fault else None,
        }
        status = HTTPStatus.OK if told["status"] == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        return status, "application/json", json.dumps(told).encode() + b"\n"

    def _metrics(self) -> tuple[HTTPStatus, str, bytes]:
        busy = HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"the journal does not answer; see /healthz\n"
        if not self._mutex.acquire(timeout=_LIMIT_S):
            return busy
        try:
            if time.monotonic() - self._read_at >= _FRESH_S:
                told = to_prometheus(self._health(), site=self._site, station=self._station)
                self._text, self._read_at = told.encode(), time.monotonic()
        except StationError:
            return busy
        else:
            return HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", self._text
        finally:
            self._mutex.release()

    def _run(self) -> None:
        where = f"{self._section.host}:{self._section.port}"
        told = ""
        while not self._closing.is_set():
            try:
                server = _Server(self._section.host, self._section.port or 0, self)
            except OSError as error:
                if str(error) != told:
                    log.warning("no /metrics on %s: %s; tried again every %g s", where, error, _AGAIN_S)
                told = str(error)
                self._closing.wait(_AGAIN_S)
                continue
            log.info("/metrics and /healthz on http://%s", where)
            with server:
                while not self._closing.is_set():
                    server.handle_request()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens for a monitor; http.server's own would ask the name service who it is, and wait."""

    allow_reuse_address = True
    daemon_threads, block_on_close = True, False
    timeout, request_queue_size = 0.2, 32

    def __init__(self, host: str, port: int, monitor: Monitor) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.monitor, self._room = monitor, threading.BoundedSemaphore(_THREADS)
        super().__init__((host, port), _Request)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client: object) -> None:
        """Answer in a thread of its own if there is one left; else hang up."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client)
        except RuntimeError:  # no more threads
            self._room.release()
            raise

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client: object
    ) -> None:
        """Answer, and make room for the next."""
        try:
            super().process_request_thread(request, client)
        finally:
            self._room.release()

    def handle_error(self, _request: object, _client: object) -> None:
        """Pass over who hangs up or is too slow."""
        log.debug("a request was not answered: %s", sys.exception())


class _Request(BaseHTTPRequestHandler):
    """One request, one answer, then the connection ends."""

    server: _Server
    server_version, sys_version = "nanotox", ""

    def handle(self) -> None:
        """Answer what was asked in time and in few words."""
        deadline, head = time.monotonic() + _LIMIT_S, b""
        # One limit for all of it: a byte now and then would keep a limit for each read from ever passing.
        while b"\r\n\r\n" not in head:
            self.connection.settimeout(max(0.001, deadline - time.monotonic()))
            piece = self.connection.recv(1024)
            head += piece
            if not piece or len(head) > _MAX_REQUEST_BYTES:
                return
        self.connection.settimeout(_LIMIT_S)
        self.rfile = BytesIO(head)
        self.handle_one_request()

    def do_GET(self) -> None:
        """Answer a GET; http.server refuses every other method."""
        status, content_type, body = self.server.monitor.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, message: str, *values: object) -> None:
        """Keep requests out of the log unless it is asked for all."""
        log.debug(message, *values)
