"""The whole chain on one machine: a rendered plate, the real station, a real Mosquitto, a subscriber.

What is shown comes back through the broker; nothing is taken from the station by another way. At the end each
well's verdict is compared with the truth that the plate was rendered from.
"""

import contextlib
import queue
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device.demo.processes import Messages, run_broker, run_dashboard, run_station, subscribe
from device.demo.table import Row, Table
from device.errors import StationError
from device.messages import Topics
from device.plates import Plate, write_plate
from device.records import PlateWell, Role

TOPICS = Topics("demo", "bench")
_SILENCE_S = 90.0
"""Longest time without a message before the demo gives up; a field takes about a second on a slow machine."""
_END_S = 15.0
"""Time that the station gets to end by itself once its plate is finished."""
_CONTROLS: tuple[tuple[str, Role, float], ...] = (
    ("blank", "blank", 0.02),
    ("negative control", "negative", 0.03),
    ("positive control", "positive", 0.95),
)
"""Sample, role and true share of dead cells."""
_DOSES = (("B", 10.0, 0.05), ("C", 30.0, 0.30), ("D", 100.0, 0.85))
"""Row of the plate, dose and true share of dead cells."""

_STATION = """\
[station]
site = "{site}"
name = "{name}"
assay = "adherent"
modality = "phase"
overlay = {overlay}

[scale]
um_per_px = 0.65

[camera]
kind = "phantom"
seed = 1

[publisher]
kind = "mqtt"
host = "127.0.0.1"
port = {port}

[plate]
file = "plate.csv"
"""


def make_plate(fields: int, replicates: int) -> Plate:
    """Return the demo's plate: blank, negative and positive control, and an item at three doses.

    Each well has `fields` fields, each dose `replicates` wells.
    """
    wells = [
        PlateWell(f"A{i:02d}", sample, role, None, None, 1, (), (), share, fields)
        for i, (sample, role, share) in enumerate(_CONTROLS, 1)
    ]
    wells += [
        PlateWell(f"{row}{i:02d}", "item", "test", dose, "ug/mL", i, (), (), share, fields)
        for row, dose, share in _DOSES
        for i in range(1, replicates + 1)
    ]
    return Plate("demo", tuple(wells))


def station_toml(*, port: int, overlay: bool = False) -> str:
    """Return the station.toml of the demo's station, whose broker listens on `port` of loopback."""
    return _STATION.format(
        site=TOPICS.site, name=TOPICS.station, port=port, overlay="true" if overlay else "false"
    )


def run_demo(*, fields: int, replicates: int, keep: bool, dashboard: bool = False) -> list[str]:
    """Run the chain, show it on stdout, and return what did not come out right; an empty list is success.

    `keep` leaves the folder with plate.csv, station.toml, journal and logs, and says where it is. `dashboard`
    shows the plate in a browser too, and goes on after the verdicts until Ctrl-C.

    Raises
    ------
    StationError
        If broker or station cannot be started, or fall silent.
    """
    plate = make_plate(fields, replicates)
    folder = Path(tempfile.mkdtemp(prefix="nanotox-demo-"))
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(run_broker(folder))
            messages = stack.enter_context(subscribe(port, TOPICS))
            write_plate(folder / "plate.csv", plate)
            settings = station_toml(port=port, overlay=dashboard)
            (folder / "station.toml").write_text(settings, encoding="utf-8")
            shown = stack.enter_context(run_dashboard(folder, port)) if dashboard else None
            if shown is not None:
                print(f"dashboard: {shown[0]}", flush=True)
            print(f"{len(plate.wells)} wells of {fields} fields; broker on 127.0.0.1:{port}; station starts")
            station = stack.enter_context(run_station(folder))
            rows = {well.well: Row(well) for well in plate.wells}
            report = _follow(messages, rows, station, folder)
            _await_end(station, folder)
            faults = _conclude(list(rows.values()), report, time.monotonic() - started)
            if shown is not None:
                _stay(*shown)
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return faults


def _stay(address: str, dashboard: subprocess.Popen[bytes]) -> None:
    print(f"the dashboard stays at {address} until Ctrl-C", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        code = dashboard.wait()
        raise StationError(
            f"the dashboard ended with {code}; expected it to stay; see dashboard.log with --keep"
        )


def _conclude(rows: Sequence[Row], report: dict[str, Any] | None, elapsed_s: float) -> list[str]:
    faults = [row.fault for row in rows if row.fault is not None]
    if report is None:
        faults.append("no plate report came back through the broker")
    for sample in report["samples"] if report else ():
        dose = "" if sample["dose"] is None else f" {sample['dose']:g} {sample['dose_unit']}"
        why = ", ".join(sample["reasons"])
        print(f"sample {sample['sample']}{dose}: {sample['outcome']}{': ' if why else ''}{why}")
    n_readings = sum(row.n_readings for row in rows)
    right = sum(row.fault is None for row in rows)
    print(f"{right} of {len(rows)} wells as true; {n_readings} fields in {elapsed_s:.0f} s")
    print("Rendered images, and a model from the same renderer: the chain works. Research use only.")
    return faults


def _follow(
    messages: Messages, rows: dict[str, Row], station: subprocess.Popen[bytes], folder: Path
) -> dict[str, Any] | None:
    """Show what comes back until the plate's report is there, or nothing more comes."""
    table = Table(list(rows.values()))
    heard = time.monotonic()
    while True:
        try:
            leaf, message = messages.get(timeout=0.5)
        except queue.Empty:
            silent_s = time.monotonic() - heard
            if station.poll() is not None and silent_s > 2:
                return None
            if silent_s > _SILENCE_S:
                raise StationError(
                    f"nothing came from the station for {silent_s:.0f} s: {_last_line(folder)}"
                ) from None
            continue
        heard = time.monotonic()
        if leaf == "plate":
            table.end()
            return message
        row = rows.get(str(message.get("well")))
        if row is not None and leaf == "reading":
            row.n_readings += 1
        elif row is not None and leaf == "verdict":
            row.verdict = message
            table.show(row)


def _await_end(station: subprocess.Popen[bytes], folder: Path) -> None:
    try:
        code = station.wait(_END_S)
    except subprocess.TimeoutExpired:
        raise StationError(f"the station did not end by itself in {_END_S:.0f} s; expected it to") from None
    if code != 0:
        raise StationError(f"the station ended with {code}: {_last_line(folder)}")


def _last_line(folder: Path) -> str:
    lines = (folder / "station.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"
