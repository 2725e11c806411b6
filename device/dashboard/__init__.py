"""The dashboard: pages on top of the collector, for people who are not at the microscope.

NiceGUI makes the pages and carries its front end in its wheel. What payloads say gets into a page only
through `report.markup`, which escapes by construction, and is cleaned once more in the browser. Browsers hold
no credentials of the broker; they ask this process, and it asks the collector.
"""

import logging
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import nicegui.client
import uvicorn
from fastapi import FastAPI, Response
from jinja2 import FunctionLoader
from nicegui import app as pages
from nicegui import ui

from device.dashboard.frame import Lab
from device.dashboard.guard import Guard, Operator, is_loopback, read_token
from device.dashboard.plate import plate_page, plates_page, report_response
from device.dashboard.review import review_page
from device.dashboard.station import station_page
from device.dashboard.wall import wall_page
from device.errors import ConfigError, StationError
from device.publishers import mqtt

__all__ = ["serve"]

log = logging.getLogger(__name__)

_HERE = Path(__file__).parent
_END_S = 3
"""Browsers that stay connected hold up the end no longer than this, s."""
_HOLD_S = 15.0
"""A browser that loses the connection for less keeps its page, and what is typed there, s."""
_PATIENCE_S = 30.0
"""A page that takes longer to make, such as on a machine that does much else, is an error."""


def serve(
    settings: mqtt.Settings,
    path: Path,
    *,
    host: str,
    port: int,
    token_file: Path | None,
    version: str,
    tell: Callable[[str], None],
) -> None:
    """Collect into `path` and serve the pages until SIGINT or SIGTERM; `tell` gets where they are.

    Raises
    ------
    StationError
        If the file, the broker's settings, the token or the port cannot be used, or collecting ends.
    """
    operator = Operator(read_token(token_file))
    if not is_loopback(host):
        log.warning("whoever reaches %s may read all pages, without TLS; see docs/dashboard.md", host)
    listener = _listen(host, port)
    stop, faults = threading.Event(), list[StationError]()
    lab = Lab(path, settings, operator, version)
    server = uvicorn.Server(_config(lab, is_local=is_loopback(host)))

    def collect() -> None:
        try:
            lab.collector.run(stop)
        except StationError as error:
            faults.append(error)
            server.should_exit = True

    thread = threading.Thread(target=collect, name="collector")
    thread.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        pages.on_startup(lambda: tell(f"http://{shown}:{listener.getsockname()[1]}/"))
        _run(server, listener)
    finally:
        stop.set()
        thread.join()
        listener.close()
    if faults:
        raise faults[0]


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until a signal, which the server raises once more when it is done: then it must not kill us."""

    def end(_number: int, _frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _config(lab: Lab, *, is_local: bool) -> uvicorn.Config:
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages.add_static_files("/static", _HERE / "static")
    pages.config.quasar_config["brand"]["primary"] = "#0b4f8a"
    _add_pages(lab)
    ui.run_with(
        outer,
        title="nanotox",
        language="en-US",
        tailwind=False,
        reconnect_timeout=_HOLD_S,
        show_welcome_message=False,
    )
    _mark_scripts()
    guarded = Guard(outer, is_local=is_local)
    return uvicorn.Config(
        guarded,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_END_S,
    )


def _add_pages(lab: Lab) -> None:
    @ui.page("/", response_timeout=_PATIENCE_S)
    def wall() -> None:
        wall_page(lab)

    @ui.page("/station/{site}/{station}", response_timeout=_PATIENCE_S)
    def one_station(site: str, station: str) -> None:
        station_page(lab, site, station)

    @ui.page("/station/{site}/{station}/review", response_timeout=_PATIENCE_S)
    async def review(site: str, station: str, seq: int = 0) -> None:
        await review_page(lab, site, station, seq)

    @ui.page("/plates", response_timeout=_PATIENCE_S)
    async def plates() -> None:
        await plates_page(lab)

    @ui.page("/plate", response_timeout=_PATIENCE_S)
    async def one_plate(name: str = "", site: str = "", station: str = "") -> None:
        await plate_page(lab, name, site, station)

    @pages.get("/report")
    def report(name: str = "", site: str = "", station: str = "") -> Response:
        return report_response(lab, name, site, station)

    @pages.get("/overlay/{site}/{station}/{ledger_id}/{seq}")
    def overlay(site: str, station: str, ledger_id: str, seq: int) -> Response:
        jpeg = lab.overlay(site, station, ledger_id, seq)
        return Response(status_code=404) if jpeg is None else Response(jpeg, media_type="image/jpeg")


def _mark_scripts() -> None:
    """Let the library's page give each script of its own the nonce of the answer, as the policy asks."""
    environment = nicegui.client.templates.env
    load = environment.loader
    assert load is not None  # noqa: S101 - the library's own templates

    def source(name: str) -> str:
        text = load.get_source(environment, name)[0]
        return text.replace("<script", '<script nonce="{{ request.state.nonce }}"')

    environment.loader = FunctionLoader(source)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error}); expected a free port: see --host and --port"
        ) from error
    return listener
