#!/usr/bin/env python3
"""Say whether a chain that nanotox exported is as the station wrote it. Needs Python 3.9, and nothing else.

    python3 verify_chain.py CHAIN.jsonl [HEADS.jsonl]

CHAIN is what `nanotox collect export --what chain` wrote, a JSON object a line. Each record holds the SHA-256
of its own canonical JSON and that of the record before. Exit 0 if all holds, else 1 and the first record that
is missing or altered. A tail that was cut off, or a chain that was written anew as a whole, shows only
against HEADS: messages that somebody else kept, each with ledger_id, seq and hash.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Values = dict[str, Any]
IDENTITY = (
    *("schema", "site", "station", "ledger_id", "seq", "boot_id", "ts", "clock_state", "prev_hash", "hash"),
    *("research_use_only", "left_out", "full_sha256"),
)


def sha256(values: Values) -> str:
    """Return the hash of the canonical JSON of `values`; ValueError for what it cannot tell."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def is_sealed(values: Values) -> bool:
    """Return whether a record says what was sealed, lists that its message left out by their own hash."""
    body = {key: value for key, value in values.items() if key not in IDENTITY}
    full, is_complete = sha256(body) if values["left_out"] else None, False
    message = json.loads(json.dumps(values)) if values["left_out"] else dict(values)
    for path in values["left_out"]:
        *parents, last = path.split(".")
        part = message
        for name in parents:
            part = part[name]
        is_complete, part[last] = is_complete or bool(part[last]), []
    del message["hash"]
    return sha256(message) == values["hash"] and (not is_complete or full == values["full_sha256"])


def verify(lines: Iterable[Values], heads: Iterable[Values]) -> list[str]:
    """Return a line for each ledger that holds; ValueError naming the first record that does not."""
    last: dict[str, Values] = {}
    counts: dict[str, dict[str, int]] = {}
    known = {(head["ledger_id"], head["seq"]): head["hash"] for head in heads}
    for values in lines:
        ledger, seq = values["ledger_id"], values["seq"]
        before = last.get(ledger, {"seq": 0, "hash": "0" * 64})
        count = counts.setdefault(ledger, {"held": 0, "withheld": 0, "gone": 0})
        if "schema" not in values:  # a note: those before are gone, the last of them was this one
            count["gone"] += seq - before["seq"]
        else:
            fault = f"record {before['seq'] + 1} of ledger {ledger} is missing or altered"
            is_stub = values["left_out"] == ["*"]  # the broker refused it: what it said is not here
            if seq != before["seq"] + 1 or not (is_stub or is_sealed(values)):
                raise ValueError(fault)
            if values["prev_hash"] != before["hash"]:
                raise ValueError(f"record {max(seq - 1, 1)} of ledger {ledger} is missing or altered")
            if known.pop((ledger, seq), values["hash"]) != values["hash"]:
                raise ValueError(f"{fault}: a head names another one")
            count["held"] += 1
            count["withheld"] += is_stub
        last[ledger] = values
    for ledger, seq in sorted(known):
        if ledger in last and seq > (newest := last[ledger]["seq"]):
            raise ValueError(f"record {newest + 1} of ledger {ledger} is missing: a head names record {seq}")
    return [
        f"ledger {ledger}: {n['held']} records hold, {n['withheld']} of them withheld; {n['gone']} others "
        f"are gone by its notes; the last is {last[ledger]['seq']} with hash {last[ledger]['hash']}\n"
        for ledger, n in counts.items()
    ]


def read(file: str) -> Iterator[Values]:
    """Yield the objects of JSON lines; refuse a key that is there twice: readers take one or the other."""

    def once(pairs: list[tuple[str, Any]]) -> Values:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    with Path(file).open(encoding="utf-8", newline="\n") as stream:
        for line in filter(str.strip, stream):
            yield json.loads(line, object_pairs_hook=once)


def main(chain: str, *heads: str) -> int:
    """Print what holds and return the exit code."""
    try:
        sys.stdout.writelines(verify(read(chain), [head for file in heads for head in read(file)]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        sys.stderr.write(f"{chain} does not hold: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 1 else __doc__)
