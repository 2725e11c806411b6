"""`nanotox audit`: whether a journal is as it was written, and follows from what it stands on."""

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device.cli.kept import KeptFrames, add_frames_options
from device.cli.report import SOURCE
from device.options import Commands

if TYPE_CHECKING:
    from device.journal.read import PlateRun
    from device.records import PlateReport, Reading, Verdict

_SHOWN = 5  # differences of one record that are printed one by one
_LONGEST = 80  # characters of a value that are printed
_ROUNDING = 1e-6
"""Real numbers of a reading are equal if they differ by no more, relative or absolute: how last digits are
rounded depends on where an image lies in memory, and positions between pixels have differed by 2e-6."""
_INCOMPLETE = "cannot be recomputed from the message alone, which leaves lists out; take the journal"


def add_parser(commands: Commands) -> None:
    """Add `nanotox audit` to the commands."""
    audit = commands.add_parser(
        "audit",
        help="find what was altered in a journal; judge again what was published",
        epilog="Example: nanotox audit verify journal.db",
    )
    kinds = audit.add_subparsers(metavar="WHAT", required=True)
    chain = kinds.add_parser(
        "verify",
        help="find records that were altered, removed, added or moved",
        description="Check both chains of hashes of a journal, of its records and of its events, against "
        "each other, its checkpoints and heads that were kept elsewhere. Names the first record that is "
        "missing or altered and exits with 1. May run beside the station. A tail that was cut off, or a "
        "chain that was written anew as a whole, shows only against a checkpoint or a head from outside.",
        epilog="Example: nanotox audit verify journal.db --head head.json",
    )
    chain.add_argument("journal", type=Path, metavar="JOURNAL", help="journal.db of a station")
    chain.add_argument(
        "--head",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="messages that somebody else kept, a JSON object a line: heads, readings, verdicts or plates",
    )
    chain.set_defaults(run=run_verify)
    parser = kinds.add_parser(
        "reproduce",
        help="recompute verdicts, and readings from kept frames",
        description="Judge each verdict again from its own numbers and each plate from its wells. With "
        "--frames also read every kept frame again with the model and configuration of the station. Prints "
        "a line for each difference; exits with 0 only if everything is equal, real numbers of a reading "
        "to 1e-6.",
        epilog="Example: nanotox audit reproduce journal.db --frames frames/ --config station.toml",
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help=SOURCE)
    add_frames_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reproduce, print differences and how many records are equal; return 0 only if all of them are."""
    from device.cli import DONE, FAILED
    from device.journal.read import plate_runs, read_records

    audit = _Audit(None if args.frames is None else KeptFrames(args))
    for plate in plate_runs(audit.check(read_records(args.source))):
        audit.judge_plate(plate)
    kinds = [kind for kind in ("reading", "verdict", "plate") if audit.n_seen[kind]]
    said = ", ".join(f"{audit.n_equal[kind]} of {audit.n_seen[kind]} {kind}s" for kind in kinds)
    print(f"{said or 'no records'} equal")
    if audit.n_untouched:
        print(f"{audit.n_untouched} readings were not read again; give --frames to do so")
    return DONE if kinds and audit.n_equal == audit.n_seen else FAILED


def run_verify(args: argparse.Namespace) -> int:
    """Check the chains of a journal; JournalError names the first record that does not hold."""
    from device.cli import DONE
    from device.errors import ConfigError
    from device.journal.read import open_read_only, read_heads
    from device.journal.verify import verify_journal

    if not args.journal.is_file():
        raise ConfigError(f"{args.journal} is no file; expected the journal of a station")
    heads = [head for path in args.head for head in read_heads(path)]
    with open_read_only(args.journal) as database:
        found = verify_journal(database, args.journal, heads)
    span = f", seq {found.first} to {found.last}" if found.n_records else ""
    print(
        f"{found.n_records} records{span}, and {found.n_events} events hold; {found.n_anchors} checkpoints "
        f"and heads agree\nledger {found.ledger_id}, newest record {found.last} {found.last_hash}"
    )
    if not heads:
        print("no --head was given: records and events cut off behind the last checkpoint would not show")
    elif all(head["ledger_id"] != found.ledger_id for head in heads):
        raise ConfigError(f"no head is of ledger {found.ledger_id}; expected one of this journal's own")
    return DONE


class _Audit:
    """Counts of what was judged again, and the last accepted field, to know a repeated one."""

    def __init__(self, kept: KeptFrames | None) -> None:
        self._kept = kept
        self._before: Reading | None = None
        self._started: tuple[str | None, str | None] | None = None
        self._models: set[str] = set()
        self.n_seen: Counter[str] = Counter()
        self.n_equal: Counter[str] = Counter()
        self.n_untouched = 0
        """Readings that nobody asked to read again."""

    def check(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the records, readings replaced by what their kept frames give now."""
        for values in records:
            if values["schema"].startswith("verdict/"):
                self._judge_well(values)
            if values["schema"].startswith("reading/"):
                if self._kept is not None:
                    yield self._read(values, self._kept)
                    continue
                self.n_untouched += 1
            if values["schema"].startswith("plate/"):
                self._started = None
            yield values

    def judge_plate(self, run: "PlateRun") -> None:
        """Judge a plate again from the evidence in its verdicts, and from its readings where they are."""
        from device.journal.read import is_complete
        from device.messages import payload
        from device.messages.recompute import with_decision

        found: list[str] = []
        if not run.verdicts or not all(map(is_complete, (*run.verdicts, run.plate))):
            found.append(_INCOMPLETE)
        else:
            try:
                for verdicts, report in _conclusions(run):
                    found += _differences(run.plate, payload(with_decision(verdicts, report)))
                    for values, verdict in zip(run.verdicts, verdicts, strict=True):
                        lines = _differences(values, payload(verdict))
                        found += [f"well {verdict.well}: {line}" for line in lines]
            except (ValueError, KeyError) as error:
                found.append(f"cannot be judged again: {error}")
        self._note("plate", run.plate, f"plate {run.plate['plate']}", list(dict.fromkeys(found)))

    def _judge_well(self, values: dict[str, Any]) -> None:
        from device.journal.read import is_complete
        from device.messages import payload
        from device.messages.recompute import recompute

        try:
            found = _differences(values, payload(recompute(values))) if is_complete(values) else [_INCOMPLETE]
        except (ValueError, KeyError) as error:
            found = [f"cannot be recomputed: {error}"]
        self._note("verdict", values, f"{values['stage']} verdict of well {values['well']}", found)

    def _read(self, values: dict[str, Any], kept: KeptFrames) -> dict[str, Any]:
        """Return what the kept frame of a reading gives now; the reading itself where there is none."""
        from device.analysis.repeats import refuse_repeat
        from device.errors import ImageError
        from device.messages import payload

        self._compare_models(values["cell_model"], kept)
        started = values.get("boot_id"), values["plate"]
        is_reopened = not kept.live and values["sequence"] == 0
        if started != self._started or is_reopened:  # as the station, which begins anew then
            self._before, self._started = None, started
        name = f"reading of {values['source']}"
        try:
            reading = kept.read(values)[1]
        except ImageError as error:
            # an image that never came cannot make anything look better than it is
            is_lost = values["frame_sha256"] is None and values["outcome"] == "invalid"
            self._note("reading", values, name, [] if is_lost else [str(error)])
            return values
        reading = refuse_repeat(reading, self._before, live=kept.live)
        self._before = reading if reading.quality.passed else self._before
        again = payload(reading)
        self._note("reading", values, name, _differences(values, again, rounding=_ROUNDING))
        return values | again

    def _compare_models(self, said: dict[str, Any] | None, kept: KeptFrames) -> None:
        here = kept.cell_model
        if said is not None and said["sha256"] != here.sha256 and said["sha256"] not in self._models:
            self._models.add(said["sha256"])
            print(
                f"readings were made with {said['name']}, SHA-256 {said['sha256']}; here is {here.name}, "
                f"SHA-256 {here.sha256}: expected the same model file"
            )

    def _note(self, kind: str, values: dict[str, Any], name: str, found: list[str]) -> None:
        self.n_seen[kind] += 1
        self.n_equal[kind] += not found
        place = "" if values.get("seq") is None else f", seq {values['seq']}"
        if len(found) > _SHOWN:
            found = [*found[:_SHOWN], f"and {len(found) - _SHOWN} more differences"]
        for line in found:
            print(f"{name}{place}: {line}")


def _conclusions(run: "PlateRun") -> "Iterator[tuple[tuple[Verdict, ...], PlateReport]]":
    """Yield what a plate comes to from the evidence in its verdicts, and from its readings if all are there.

    ValueError or KeyError if a record does not hold what it must.
    """
    from device.analysis import plate_state
    from device.messages.recompute import evidence_of, parse, rule_of
    from device.records import Reading

    first, wells = run.verdicts[0], [evidence_of(verdict) for verdict in run.verdicts]
    state = plate_state.start(
        [well.plan for well in wells],
        rule_of(run.plate),
        plate=run.plate["plate"],
        assay=first["assay"],
        modality=first["modality"],
        method=first["method"],
        operator=run.plate["operator"],
        live=not first["scale_may_be_assumed"],
    )
    yield plate_state.conclude(state, wells)
    if len(run.readings) == sum(v["n_fields"] + v["n_fields_refused"] for v in run.verdicts):
        for values in run.readings:
            state, _ = plate_state.add(state, parse(Reading, {**values, "cells": []}))
        yield plate_state.finish(state)


def _differences(
    stands: Mapping[str, Any], came: Mapping[str, Any], path: str = "", *, rounding: float = 0.0
) -> list[str]:
    """Return a line for each value of the record `came` that stands otherwise in a payload."""
    lines = []
    for key, value in came.items():
        here, there = f"{path}{key}", stands.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            lines += _differences(there, value, f"{here}.", rounding=rounding)
        elif isinstance(value, list) and isinstance(there, list) and len(value) == len(there):
            old, new = ({str(i): item for i, item in enumerate(items)} for items in (there, value))
            lines += _differences(old, new, f"{here}.", rounding=rounding)
        elif not _are_equal(there, value, rounding):
            lines.append(f"{here} is {_short(there)} and comes out as {_short(value)}")
    return lines


def _are_equal(stands: object, came: object, rounding: float) -> bool:
    if isinstance(stands, float) and isinstance(came, float):
        return math.isclose(stands, came, rel_tol=rounding, abs_tol=rounding)
    return stands == came and isinstance(stands, bool) == isinstance(came, bool)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
