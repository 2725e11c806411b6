"""`nanotox doctor`: whether this station is fit to measure, and what to do where it is not."""

import argparse
import json
import os
import queue
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from device.options import Commands, add_config_option, add_json_option

if TYPE_CHECKING:
    from device.cameras import Camera
    from device.config import Config
    from device.records import Frame, Reading

_FREE_BYTES = 1 << 30
"""A gigabyte: the journal of a month."""
_FRAME_S = 10.0
_MS_PER_CROP = 5.0
"""A usual machine takes 0.03 to 1 ms; at more than this a field of 200 cells takes over a second."""
_UNIT = "nanotox.service"
_VIDEO = {"usb", "raspberry", "jetson"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    state: str
    """`ok`, `fail`, or `skip` where it does not apply or cannot be seen now."""
    found: str
    do: str = ""
    """What to do about it."""


Checks = Iterator[Finding]


def add_parser(commands: Commands) -> None:
    """Add `nanotox doctor` to the commands."""
    parser = commands.add_parser(
        "doctor",
        help="check camera, focus, clock, disk, broker, model, calibration and journal",
        description="Check all that a station needs, a line each: ok, FAIL with what to do, or - where "
        "something does not apply. Of a station that runs, what it uses itself is not touched. Exit 0 "
        "without a FAIL, 1 with one, 2 if station.toml is wrong.",
        epilog="Example: nanotox doctor --config /etc/nanotox/station.toml",
    )
    add_config_option(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make every check and print its line; return 0 if none failed."""
    from device.cli import DONE, FAILED
    from device.cli.broker_check import check_broker
    from device.station.instruments import check_files, load_config

    config = load_config(args.config)
    check_files(config)
    is_running, n_failed = _is_running(config), 0
    for check in (_camera, _clock, _disk, check_broker, _model, _calibration, _journal, _starts, _systemd):
        for finding in _guarded(check, config, is_running):
            n_failed += finding.state == "fail"
            print(json.dumps(asdict(finding)) if args.json else _line(finding), flush=True)
    if not args.json:
        print(f"{n_failed} to mend" if n_failed else "the station is fit to measure; for research use only")
    return FAILED if n_failed else DONE


def _line(finding: Finding) -> str:
    mark = {"ok": "[ ok ]", "fail": "[FAIL]", "skip": "[ -- ]"}[finding.state]
    return f"{mark} {finding.check:<12} {finding.found}{f'; {finding.do}' if finding.do else ''}"


def _guarded(check: "Callable[[Config, bool], Checks]", config: "Config", is_running: bool) -> Checks:
    """Yield what a check finds; an error of the station is a finding too."""
    from device.errors import StationError

    try:
        yield from check(config, is_running)
    except StationError as error:
        found, _, do = error.in_one_line().partition("; ")
        yield Finding(check.__name__.removeprefix("check_").removeprefix("_"), "fail", found, do)


def _is_running(config: "Config") -> bool:
    """Return whether a station holds the journal; the lock file is not made for that."""
    from device.errors import JournalError
    from device.journal.file import lock

    if not config.journal.path.exists():
        return False
    try:
        lock(config.journal.path).close()
    except JournalError:
        return True
    return False


def _camera(config: "Config", is_running: bool) -> Checks:
    if is_running:
        yield Finding("camera", "skip", "the running station has it; see its topics state and health")
        yield Finding("focus", "skip", "the running station sees to it")
        return
    from device.calibration import station_scale
    from device.cameras import Setup, open_camera

    setup = Setup(station_scale(config), config.station.assay, config.station.modality)
    kind, began = config.camera.kind, time.monotonic()
    frame = _first_frame(lambda: open_camera(kind, config.camera.settings, setup))
    height_px, width_px = frame.size
    took_s = time.monotonic() - began
    yield Finding("camera", "ok", f"{kind} gave {width_px} x {height_px} px in {took_s:.1f} s")
    yield _focus(config, _read(config, frame))


def _first_frame(open_camera: "Callable[[], Camera]") -> "Frame":
    """Return a frame; CameraError if none comes in time."""
    from threading import Thread

    from device.cameras import LostFrame
    from device.errors import CameraError, StationError

    given: queue.SimpleQueue[Frame | LostFrame | StationError | None] = queue.SimpleQueue()

    def grab() -> None:
        try:
            camera = open_camera()
            try:
                given.put(next(camera.frames(), None))
            finally:
                camera.close()
        except StationError as error:
            given.put(error)

    Thread(target=grab, name="doctor-camera", daemon=True).start()  # a camera that hangs keeps its thread
    try:
        frame = given.get(timeout=_FRAME_S)
    except queue.Empty:
        raise CameraError(f"no frame within {_FRAME_S:g} s; check cable and power, start it anew") from None
    if isinstance(frame, StationError):
        raise frame
    if frame is None or isinstance(frame, LostFrame):
        raise CameraError(f"no frame: {'it ended' if frame is None else frame.detail}; expected one")
    return frame


def _read(config: "Config", frame: "Frame") -> "Reading":
    from device.analysis.assess import assess
    from device.station.instruments import open_instruments

    tools = open_instruments(config)
    return assess(frame, tools.classify, tools.settings)


def _focus(config: "Config", reading: "Reading") -> Finding:
    from device.baseline import qc_file, read_qc
    from device.cameras import is_live
    from device.records import Reason

    state = read_qc(qc_file(config), config.station.assay, config.station.modality)
    refused = reading.quality.refused_by
    learned = state.baseline
    whose = "the model's reference" if learned is None else f"the baseline of {learned.learned_at}"
    if Reason.BLUR in refused:
        return Finding("focus", "fail", f"out of focus against {whose}", "focus on the cells")
    if refused:
        found = f"cannot be judged: {', '.join(refused)}"
        return Finding("focus", "fail", found, "bring a field of a healthy control under the objective")
    if learned is None and is_live(config.camera.settings):
        do = "run nanotox qc run on a control well"
        return Finding("focus", "fail", "sharp, but no baseline is learned", do)
    return Finding("focus", "ok", f"sharp against {whose}")


def _clock(_config: "Config", _is_running: bool) -> Checks:
    from device.service import clock_state

    state, now = clock_state(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if state == "unsynced":
        do = "run timedatectl set-ntp true, see the network"
        yield Finding("clock", "fail", f"{now}, not set by a time server", do)
    else:
        yield Finding("clock", "ok" if state == "synced" else "skip", f"{now}, {state}")


def _disk(config: "Config", _is_running: bool) -> Checks:
    folder = config.journal.path.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.1f} GB free at {folder}"
    if not os.access(folder, os.W_OK):
        do = "run this as the user of the station, or give it rights"
        yield Finding("disk", "fail", f"{folder} cannot be written", do)
    elif free < _FREE_BYTES:
        yield Finding("disk", "fail", found, "make room: the station stops publishing on a full disk")
    else:
        yield Finding("disk", "ok", found)


def _model(config: "Config", _is_running: bool) -> Checks:
    import numpy as np

    from device.analysis.crops import CROP_PX
    from device.station.instruments import open_instruments

    tools = open_instruments(config)
    crops = np.full((64, CROP_PX, CROP_PX), 128, np.uint8)
    took_s = []
    for _ in range(5):
        began = time.perf_counter()
        tools.classify(crops)
        took_s.append(time.perf_counter() - began)
    took_ms, name = 1000 * min(took_s) / len(crops), tools.classify.id.name
    found = f"{name}: checksums and golden outputs hold, {took_ms:.2f} ms a crop"
    if took_ms > _MS_PER_CROP:
        do = "look for ProcSubset=pid in the unit, other load, or a throttled processor"
        yield Finding("model", "fail", f"{found}, over {_MS_PER_CROP:g}", do)
    elif not tools.classify.id.trusted:
        do = "vouch for it with nanotox model activate, else it never gives non_toxic"
        yield Finding("model", "fail", f"{found}; it is not trusted", do)
    else:
        yield Finding("model", "ok", found)


def _calibration(config: "Config", _is_running: bool) -> Checks:
    from device.calibration import outdated, read_calibrations, station_scale
    from device.cameras import is_live

    scale, record = station_scale(config), read_calibrations(config).newest("pixel_size")
    old = outdated(config, datetime.now(UTC))
    if old:
        yield Finding("calibration", "fail", "; ".join(old), "run nanotox calibrate again")
    elif record is None:
        found = f"{scale.um_per_px:g} um/px by station.toml ({scale.source}), no calibration is kept"
        state = "fail" if is_live(config.camera.settings) else "skip"
        yield Finding("calibration", state, found, "run nanotox calibrate pixel-size" * (state == "fail"))
    else:
        found = f"{record.value:.4g} um/px, standard uncertainty {record.uncertainty:.2g}"
        yield Finding("calibration", "ok", f"{found}, {record.id} by {record.operator}")


def _journal(config: "Config", _is_running: bool) -> Checks:
    from device.journal.read import open_read_only
    from device.journal.verify import verify_journal

    path = config.journal.path
    if not path.exists():
        yield Finding("journal", "skip", f"{path} is made at the first start")
        return
    with open_read_only(path) as database:
        found = verify_journal(database, path)
    held = f"{found.n_records} records and {found.n_events} events hold, {found.n_anchors} checkpoints agree"
    yield Finding("journal", "ok", held)


def _starts(config: "Config", _is_running: bool) -> Checks:
    from device.station.safe_mode import read_starts

    starts = read_starts(config)
    if starts.safe_mode is None:
        yield Finding("starts", "ok", f"{len(starts.crashes_s)} crashes shortly before the newest start")
    else:
        do = "read its log, mend what crashed, then stop and start it"
        yield Finding("starts", "fail", f"SAFE_MODE: {starts.safe_mode}", do)


def _systemd(config: "Config", _is_running: bool) -> Checks:
    if not Path("/run/systemd/system").is_dir():
        yield Finding("systemd", "skip", "not used here")
        return
    asked = ["systemctl", "show", "--property=LoadState,ActiveState,SupplementaryGroups", _UNIT]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded":
        yield Finding("systemd", "skip", f"{_UNIT} is not installed")
    elif config.camera.kind in _VIDEO and "video" not in told.get("SupplementaryGroups", "").split():
        do = f"add SupplementaryGroups=video to {_UNIT}"
        yield Finding("systemd", "fail", f"{_UNIT} may not open the camera", do)
    elif told.get("ActiveState") == "failed":
        yield Finding("systemd", "fail", f"{_UNIT} has failed", f"read journalctl -u {_UNIT}")
    else:
        yield Finding("systemd", "ok", f"{_UNIT} is {told.get('ActiveState')}")
