"""Which model a station uses: tried in a child process, then switched to as a whole or not at all.

Beside the journal lie `journal.models/<SHA-256>/`, a copy of every bundle that was activated, and
`journal.models.json`, which names those in use. That one file is the switch and the station's own trust list;
it is replaced at once, after all that it names is on the disk: whenever power fails the station has a model.
"""

import functools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from device.config import Config
from device.errors import ConfigError, ModelError
from device.model_card import BUNDLE_FILES, SUMS_FILE, Bundle, fit_faults
from device.model_card.strict import read_record, sync_to_disk, write_record
from device.models import find_bundle

_MEMORY_BYTES, _CPU_S, _WALL_S = 2 << 30, 30, 120
"""Limits of a trial; one of `phase-cell` takes 0.5 GB of addresses and 0.6 s of an x86 core."""
_COPIES = 3
"""Copies that are kept besides those that `model rollback` may need next."""
_TRIAL = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY_BYTES}, {_MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, ({_CPU_S}, {_CPU_S + 1}))
from device.cli import main
sys.exit(main(["model", "verify", sys.argv[1], "--json"]))
"""


@dataclass(frozen=True, slots=True)
class Activation:
    """A bundle that somebody put into use, and so vouches for."""

    kind: Literal["cell", "field"]
    name: str
    sha256: str
    """Of its SHA256SUMS."""
    operator: str
    at: str
    """RFC 3339, UTC."""


@dataclass(frozen=True, slots=True)
class Switch:
    """All that was activated and not rolled back, the newest last."""

    schema: Literal["models/1"]
    activations: tuple[Activation, ...] = ()


def switch_file(config: Config) -> Path:
    """Return where a station keeps which models are in use: `journal.models.json` beside `journal.db`."""
    return config.journal.path.with_suffix(".models.json")


def read_switch(config: Config) -> Switch:
    """Return what was activated, an empty switch where nothing was; ConfigError if the file is damaged."""
    advice = "expected what nanotox model activate wrote; remove it to use the shipped models again"
    return read_record(Switch, switch_file(config), advice) or Switch("models/1")


def active_bundle(
    config: Config, kind: Literal["cell", "field"], activations: Sequence[Activation] | None = None
) -> Bundle | None:
    """Return the model of a kind that was activated last, None where station.toml or the default decides.

    `activations` stand in place of those that are kept. ModelError if it is not what was activated, or gone.
    """
    known = read_switch(config).activations if activations is None else activations
    of_kind = [item for item in known if item.kind == kind]
    return _copy(config, of_kind[-1]) if of_kind else None


def activate(
    config: Config, bundle: str | Path, *, operator: str, at: str, note: Callable[..., None]
) -> Activation:
    """Put a bundle into use from the next start on, and return what is noted of it.

    Its bytes are compared with their checksums, copied, and must give their golden outputs in a child process
    that may not take more than its limits. `note` writes an event into the journal before the switch; `at` is
    RFC 3339, UTC. A crash at any step leaves the model in use that was.

    Raises
    ------
    ModelError
        If the bundle is damaged, does not fit the station or fails its trial.
    ConfigError
        If station.toml names a model itself, or the copy cannot be written.
    """
    found, switch = find_bundle(bundle), read_switch(config)
    named = config.model.cell_model if found.card.kind == "cell" else config.model.field_model
    if named is not None:
        raise ConfigError(
            f"model.{found.card.kind}_model is {named!r} and goes before any other; expected none, so that a "
            f"model can be activated; remove it ({config.path.name})"
        )
    if found.card.kind == "cell":
        check_fit(config, found)
    item = Activation(found.card.kind, found.name, found.id.sha256, operator, at)
    try:
        try_bundle(_keep_copy(config, found), item.sha256)
        note("model_activate", activation=asdict(item))
        now = replace(switch, activations=(*switch.activations, item))
        write_record(switch_file(config), now)
        _prune(config, now)
    except OSError as error:
        raise ConfigError(
            f"{bundle} cannot be kept ({error}); expected room and rights beside the journal"
        ) from error
    return item


def roll_back(config: Config, *, operator: str, note: Callable[..., None]) -> Activation | None:
    """Put the model of before into use, from the next start on; return it, None for the shipped one.

    Arguments and errors as `activate`; also ModelError if nothing was activated.
    """
    switch = read_switch(config)
    if not switch.activations:
        raise ModelError("no model was activated; expected one to go back from; station.toml decides")
    *kept, last = switch.activations
    before = next((item for item in reversed(kept) if item.kind == last.kind), None)
    if before is not None:
        try_bundle(_copy(config, before).folder, before.sha256)
    note("model_rollback", activation=asdict(last), operator=operator)
    write_record(switch_file(config), replace(switch, activations=tuple(kept)))
    return before


@functools.lru_cache(maxsize=16)
def try_bundle(folder: Path, sha256: str) -> None:
    """Load a bundle and run its golden inputs in a child process with limits, which may die of it.

    ModelError saying what happened to the child, or that it met other bytes than `sha256` stands for.
    """
    command = [sys.executable, "-P", "-c", _TRIAL, str(folder.resolve())]
    try:
        done = subprocess.run(  # noqa: S603 - this very interpreter
            command, capture_output=True, text=True, timeout=_WALL_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{folder} fails its trial: no end within {_WALL_S} s; {_EXPECTED}") from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ModelError(f"{folder} fails its trial: its process ended with {name}; {_EXPECTED}")
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ModelError(f"{folder} fails its trial: {said[-1].removeprefix('nanotox: error: ')}")
    if json.loads(done.stdout)["sha256"] != sha256:
        raise ModelError(f"{folder} was altered while it was tried; expected it to stay as it was")


_EXPECTED = "expected a model that this machine can run; export it again"


def check_fit(config: Config, bundle: Bundle) -> Bundle:
    """Return a cell model that fits the station; ModelError says why one does not."""
    faults = fit_faults(bundle.card, assay=config.station.assay, modality=config.station.modality)
    if faults:
        raise ModelError("\n".join(f"{fault} ({config.path.name})" for fault in faults))
    return bundle


def is_kept(config: Config, item: Activation) -> bool:
    """Return whether there is still a copy of what was activated."""
    return (_folder(config) / item.sha256).is_dir()


def _folder(config: Config) -> Path:
    return config.journal.path.with_suffix(".models")


def _copy(config: Config, item: Activation) -> Bundle:
    """Return the kept copy of a bundle, trusted because somebody activated it."""
    bundle = find_bundle(_folder(config) / item.sha256, trusted=[item.sha256])
    if bundle.id.sha256 != item.sha256:
        raise ModelError(
            f"{bundle.folder} holds another model; expected {item.name}; run nanotox model rollback"
        )
    return bundle


def _prune(config: Config, switch: Switch) -> None:
    """Delete copies but those in use, those before them, and the newest `_COPIES`."""
    needed: set[str] = set()
    for kind in ("cell", "field"):
        of_kind = [item.sha256 for item in switch.activations if item.kind == kind]
        needed |= {*of_kind[-1:], *[sha256 for sha256 in of_kind if sha256 != of_kind[-1]][-1:]}
    copies = sorted(_folder(config).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in copies[:-_COPIES]:
        if path.name not in needed:
            shutil.rmtree(path, ignore_errors=True)


def _keep_copy(config: Config, bundle: Bundle) -> Path:
    """Return the folder of a copy that is whole and on the disk."""
    kept = _folder(config) / bundle.id.sha256
    if kept.is_dir():
        try:
            if find_bundle(kept).id == bundle.id:
                kept.touch()
                return kept
        except ModelError:
            pass  # damaged since: copied again
    partial = kept.with_suffix(".partial")
    for old in (partial, kept):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in (*BUNDLE_FILES, SUMS_FILE):
        shutil.copyfile(bundle.folder / name, partial / name)
        sync_to_disk(partial / name)
    sync_to_disk(partial)
    partial.rename(kept)
    sync_to_disk(kept.parent)
    return kept
