"""`nanotox plate`: a plate on the running station, by commands over its broker."""

import argparse
import contextlib
import getpass
import json
import queue
import sys
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.errors import StationError
from device.options import Commands, add_config_option, add_json_option

if TYPE_CHECKING:
    from device.publishers import Event, Received

_ANSWER_S = 5.0
"""Limit for the broker, and for the station's answer."""


def add_parser(commands: Commands) -> None:
    """Add `nanotox plate` to the commands."""
    parser = commands.add_parser(
        "plate",
        help="start, follow and finish a plate on the running station",
        description="Tell the running station of a plate and ask how far it is, over its broker. The same as "
        "the MQTT commands of docs/mqtt.md. For research use only.",
        epilog="Example: nanotox plate start --plate plate.csv --operator 'A. Curie'",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, function, text, example in (
        ("start", run_start, "start a plate", "--plate plate.csv --operator 'A. Curie'"),
        ("well", run_well, "say which well is under a live camera from now on", "B03"),
        ("status", run_status, "show how far each well is", "--watch"),
        ("finish", run_finish, "finish the plate: final verdicts and report", "--force"),
    ):
        action = actions.add_parser(name, help=text, epilog=f"Example: nanotox plate {name} {example}")
        add_config_option(action)
        action.add_argument(
            "--operator", metavar="NAME", required=name == "start", help="who asks; default: the login name"
        )
        action.set_defaults(run=function)
        if name == "start":
            action.add_argument(
                "--plate", type=Path, required=True, metavar="plate.csv", help="wells, samples and controls"
            )
            action.add_argument("--name", help="name of the plate; default: that of the file")
        elif name == "well":
            action.add_argument("well", metavar="WELL", help="such as B03; `none` while the stage moves")
        elif name == "status":
            action.add_argument("--watch", action="store_true", help="go on until the plate ends")
            add_json_option(action)
        else:
            action.add_argument("--force", action="store_true", help="though fields are missing")


def run_start(args: argparse.Namespace) -> int:
    """Start the plate of a plate.csv, whose faults are told before the station hears of it."""
    from device.plates import read_plate, read_text

    plate = read_plate(args.plate, name=args.name)
    with RunningStation(args) as station:
        station.ask("plate_start", {"plate": plate.name, "csv": read_text(args.plate)})
    print(f"plate {plate.name} runs: {len(plate.wells)} wells; follow it with nanotox plate status --watch")
    return 0


def run_well(args: argparse.Namespace) -> int:
    """Say which well the live camera shows."""
    well = None if args.well == "none" else args.well
    with RunningStation(args) as station:
        station.ask("plate_well", {"well": well})
    print("frames belong to no well" if well is None else f"frames belong to well {well}")
    return 0


def run_finish(args: argparse.Namespace) -> int:
    """Finish the plate that runs."""
    with RunningStation(args) as station:
        plate = station.ask("plate_finish", {"force": args.force})["plate"]
    print(f"plate {plate} is finished")
    return 0


def run_status(args: argparse.Namespace) -> int:
    """Show the wells of the plate, with `--watch` until it ends."""
    with RunningStation(args, *(("verdict", "plate", "state") if args.watch else ())) as station:
        status = station.ask("plate_status", {})
        if args.json and not args.watch:
            print(json.dumps(status))
        elif status["plate"] is None:
            print("no plate runs; start one with nanotox plate start", file=sys.stderr if args.json else None)
        else:
            where = f", {status['well']} under the camera" if status["well"] else ""
            view = _View(status["wells"], as_json=args.json, is_live=args.watch and sys.stdout.isatty())
            view.say(f"plate {status['plate']} by {status['operator'] or 'nobody named'}{where}")
            view.show()
            if args.watch:
                _watch(station, status["plate"], view)
            if status["n_left_out"]:
                view.say(f"{status['n_left_out']} wells more did not fit into the answer")
    return 0


def _watch(station: "RunningStation", plate: str, view: "_View") -> None:
    """Show what changes until the report of the plate is there; StationError if it is broken off."""
    is_over = False
    while True:
        heard = station.hear()
        if heard is None and is_over:
            raise StationError(f"plate {plate} runs no more and gave no report; see the log of the station")
        leaf, message = heard or ("", {})
        if leaf == "state":
            is_over = message["plate"] != plate
        elif leaf == "verdict" and message["plate"] == plate:
            view.show(message)
        elif leaf == "plate" and message["plate"] == plate:
            state = "valid" if message["controls_valid"] else f"not valid: {', '.join(message['reasons'])}"
            view.say(f"plate {plate} is finished; controls {state}")
            return


class _View:
    """Lines of wells: redrawn in place on a terminal, elsewhere a line when it changes."""

    def __init__(self, wells: list[dict[str, Any]], *, as_json: bool, is_live: bool) -> None:
        self._wells = {well["well"]: well for well in wells}
        self._as_json, self._is_live = as_json, is_live
        self._lines: list[str] = []

    def say(self, text: str) -> None:
        """Print what is no well."""
        print(text, file=sys.stderr if self._as_json else sys.stdout, flush=True)

    def show(self, verdict: dict[str, Any] | None = None) -> None:
        """Show all wells, or what the verdict of one makes new."""
        keys = next(iter(self._wells.values())).keys()
        if verdict is not None:
            self._wells[verdict["well"]] = {key: verdict[key] for key in keys}
        told = [json.dumps(w) if self._as_json else _line(w) for w in self._wells.values()]
        if self._is_live and not self._as_json:
            up = f"\x1b[{len(self._lines)}A" if self._lines else ""
            print(up + "\n".join(f"\x1b[2K{line}" for line in told), flush=True)
        else:
            for line in told:
                if line not in self._lines:
                    print(line, flush=True)
        self._lines = told


def _line(well: dict[str, Any]) -> str:
    """Return a well in one line, from its status or its verdict."""
    dose = "" if well["dose"] is None else f" {well['dose']:g} {well['dose_unit']}"
    planned = "" if well["n_fields_planned"] is None else f"/{well['n_fields_planned']}"
    share, range_ = well["affected_corrected"], well["ci95"]
    affected = "-" if share is None else f"affected {100 * share:.0f} %"
    affected += "" if range_ is None else f" ({100 * range_['low']:.0f}-{100 * range_['high']:.0f} %)"
    more = f", {well['fields_more']} more fields" if well["fields_more"] else ""
    fields = f"field {well['n_fields']}{planned}"
    item = f"{well['sample']}{dose}"
    return f"{well['well']:<4} {item:<22} {fields:<12} {affected:<26} {well['outcome'] or 'waiting'}{more}"


class RefusedError(StationError):
    """The station refuses a command, for the reason of `code`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RunningStation:
    """The running station of a station.toml, heard on its leaves besides; the block ends the connection."""

    def __init__(self, args: argparse.Namespace, *leaves: str) -> None:
        from device.config import read_config
        from device.errors import ConfigError
        from device.messages import Topics
        from device.publishers import Setup, open_publisher, publisher_settings

        config = read_config(args.config, publisher_settings=publisher_settings)
        kind, settings, section = config.publisher.kind, config.publisher.settings, config.station
        if kind != "mqtt" or not config.commands.accept:
            found = f"publisher.kind is {kind!r}" if kind != "mqtt" else "commands.accept is false"
            raise ConfigError(
                f"{found}; expected a station that hears commands over MQTT ({args.config.name})"
            )
        client_id = f"nanotox-plate-{uuid.uuid4().hex[:12]}"
        self._name, self._where = f"{section.site}/{section.name}", f"{settings.host}:{settings.port}"
        self._operator = args.operator or getpass.getuser()
        self._topics = Topics(section.site, section.name, settings.prefix)
        self._answers = self._topics.of(f"reply/{client_id}")
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._heard: list[Received] = []
        asked = (self._answers, *map(self._topics.of, leaves))
        settings = replace(settings, session_expiry_s=0)
        self._publisher = open_publisher(kind, settings, Setup(client_id, None, self._events.put, asked))

    def __enter__(self) -> "RunningStation":
        """Connect; PublishError where there is no broker."""
        from device.errors import PublishError
        from device.publishers import Connected, Lost

        self._publisher.start()
        event = self._next(Connected, Lost)
        if not isinstance(event, Connected):
            self._publisher.close()
            why = event.detail if isinstance(event, Lost) else "it says nothing"
            raise PublishError(f"no broker at {self._where} ({why}); expected that of [publisher] to run")
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.close()

    def ask(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        """Return what a command gives; PublishError without an answer, StationError if it is refused."""
        from device.errors import PublishError
        from device.messages import MAX_MESSAGE_BYTES
        from device.messages.commands import MAX_AGE_S
        from device.messages.sealing import canonical, rfc3339
        from device.publishers import Message, Received

        transaction, now = uuid.uuid4().hex, rfc3339(datetime.now(UTC))
        command = {"transaction": transaction, "issued_at": now, "operator": self._operator, "args": args}
        body = canonical(command)
        if len(body) > MAX_MESSAGE_BYTES:
            found = f"the command has {len(body)} bytes; expected at most {MAX_MESSAGE_BYTES}"
            raise StationError(f"{found}; name files by patterns such as B03/*.png in plate.csv")
        topic = self._topics.of(f"cmd/{name}")
        self._publisher.send(Message(topic, body, expiry_s=MAX_AGE_S, response_topic=self._answers))
        while isinstance(event := self._next(Received), Received):
            if event.topic != self._answers:
                self._heard.append(event)
                continue
            reply = json.loads(event.payload)
            if reply["error"] is not None:
                raise RefusedError(reply["error"]["code"], reply["error"]["message"])
            result: dict[str, Any] = reply["result"]
            return result
        raise PublishError(
            f"station {self._name} does not answer within {_ANSWER_S:g} s; expected it to run and to hear "
            "commands; start it with nanotox run, and check the broker's access list for cmd/ and reply/"
        )

    def hear(self) -> tuple[str, dict[str, Any]] | None:
        """Return the leaf and the message of what came next, None if nothing came for some seconds."""
        from device.publishers import Received

        event = self._heard.pop(0) if self._heard else self._next(Received)
        if not isinstance(event, Received):
            return None
        return event.topic.rpartition("/")[2], json.loads(event.payload)

    def _next(self, *kinds: type) -> "Event | None":
        """Return the next event of some kinds, None if there is none in time."""
        deadline = time.monotonic() + _ANSWER_S
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
                if isinstance(event, kinds):
                    return event
        return None
