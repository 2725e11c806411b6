"""`nanotox audit verify` finds whatever is done to a journal, and names where.

NANOTOX_LONG=1 in the environment makes 1,008 tampers instead of 72.
"""

import json
import os
import shutil
import sqlite3

import numpy as np
import pytest

from device import cli
from device.journal import Journal
from device.journal.read import read_heads
from device.journal.verify import CHECKPOINT, CHECKPOINT_ROWS, verify_journal
from device.messages import payload
from device.messages.sealing import canonical, seal
from device.records import Cell, CellClass

IS_LONG = bool(os.environ.get("NANOTOX_LONG"))
N_RECORDS, N_EVENTS, CHECKED = 40, 6, 20


CELL = Cell(1, 1.25, 2.5, "dead", CellClass.ROUNDED, 0.987654321, 120.5, False, True)


def open_journal(path):
    return Journal(path, site="lab", station="bench-1")


@pytest.fixture(scope="module")
def kept(tmp_path_factory, make_reading):
    """A journal of a station, with a checkpoint after half its records, and lists that messages leave out."""
    path = tmp_path_factory.mktemp("kept") / "journal.db"
    journal = open_journal(path)
    journal.note("start", config_sha256="0" * 64)
    for i in range(N_RECORDS):
        journal.append(make_reading(i, field=i, cells=(CELL,) * (300 if i % 7 == 3 else i % 3)))
        if i + 1 == CHECKED:
            journal.note(CHECKPOINT, seq=journal.head.seq, hash=journal.head.hash, count=CHECKED)
        if i % 10 == 5:
            journal.note("command", name="ping", number=i)
    head = journal.head
    journal.close()
    (path.parent / "head.json").write_text(json.dumps(payload(head)))
    return path


def one_of(rng, last=N_RECORDS):
    return int(rng.integers(1, last + 1))


def edited(database, seq, *, rehash, prev_hash=None):
    """Change a number of a record; with `rehash` seal it anew. Return its hash."""
    (message,) = database.execute("SELECT message FROM record WHERE seq = ?", (seq,)).fetchone()
    values = json.loads(message)
    values["n_live"] += 1
    values["prev_hash"] = prev_hash or values["prev_hash"]
    values["hash"] = seal(values) if rehash else values["hash"]
    database.execute(
        "UPDATE record SET message = ?, hash = ? WHERE seq = ?", (canonical(values), values["hash"], seq)
    )
    return values["hash"]


def edit(database, rng):
    seq = one_of(rng)
    edited(database, seq, rehash=False)
    return f"record {seq} "


def delete(database, rng):
    seq = one_of(rng, N_RECORDS - 1)
    database.execute("DELETE FROM record WHERE seq = ?", (seq,))
    if rng.random() < 0.5:  # and close the gap
        shift(database, seq + 1, -1)
    return f"record {seq} "


def insert(database, rng):
    seq, like = one_of(rng), one_of(rng)
    (row,) = database.execute("SELECT schema, hash, message, full FROM record WHERE seq = ?", (like,))
    shift(database, seq, 1)
    database.execute(
        "INSERT INTO record (seq, schema, hash, message, full) VALUES (?, ?, ?, ?, ?)", (seq, *row)
    )
    return f"record {seq + (like == seq)} "  # a doubled record is whole; its double is not


def shift(database, first, by):
    database.execute("UPDATE record SET seq = -seq WHERE seq >= ?", (first,))
    database.execute("UPDATE record SET seq = -seq + ? WHERE seq < 0", (by,))


def swap(database, rng):
    one, other = rng.choice(np.arange(1, N_RECORDS + 1), 2, replace=False).tolist()
    for before, after in ((one, -1), (other, one), (-1, other)):
        database.execute("UPDATE record SET seq = ? WHERE seq = ?", (after, before))
    return f"record {min(one, other)} "


def rehash(database, rng):
    seq = one_of(rng)
    edited(database, seq, rehash=True)
    return f"record {seq} "


def cut_tail(database, rng):
    seq = 1 + one_of(rng, N_RECORDS - 1)
    database.execute("DELETE FROM record WHERE seq >= ?", (seq,))
    return f"record {seq} "


def rewrite_chain(database, rng):
    seq, prev_hash = one_of(rng), None
    for number in range(seq, N_RECORDS + 1):
        prev_hash = edited(database, number, rehash=True, prev_hash=prev_hash)
    return f"record {CHECKED if seq <= CHECKED else N_RECORDS} "


def edit_event(database, rng):
    number, column = one_of(rng, N_EVENTS), rng.choice(["ts", "boot_id", "kind", "body", "hash"])
    database.execute(f"UPDATE event SET {column} = {column} || 'x' WHERE id = ?", (number,))  # noqa: S608 - a literal above
    return f"event {number} "


def cut_events(database, rng):
    number = one_of(rng, N_EVENTS)
    database.execute("DELETE FROM event WHERE id >= ?", (number,))
    return f"event {number} "


KINDS = (edit, delete, insert, swap, rehash, cut_tail, rewrite_chain, edit_event, cut_events)


def find(path):
    database = sqlite3.connect(path)
    try:
        return verify_journal(database, path, read_heads(path.parent / "head.json"))
    finally:
        database.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_tamper_is_found_and_named(kept, tmp_path, kind):
    shutil.copy(kept.parent / "head.json", tmp_path)
    for seed in range(112 if IS_LONG else 8):
        path = shutil.copy(kept, tmp_path / "journal.db")
        database = sqlite3.connect(path, isolation_level=None)
        expected = kind(database, np.random.default_rng([KINDS.index(kind), seed]))
        database.close()
        with pytest.raises(cli.StationError) as error:
            find(path)
        assert str(error.value).startswith(expected), (kind.__name__, seed)


def test_a_journal_as_it_was_written_holds(kept, capsys):
    assert cli.main(["audit", "verify", str(kept), "--head", str(kept.parent / "head.json")]) == 0
    out = capsys.readouterr().out
    assert "40 records, seq 1 to 40, and 6 events hold; 2 checkpoints and heads agree" in out
    assert "no --head" not in out


def test_the_command_names_the_record_and_exits_with_1(kept, tmp_path, capsys):
    path = shutil.copy(kept, tmp_path / "journal.db")
    database = sqlite3.connect(path, isolation_level=None)
    edited(database, 7, rehash=True)
    database.close()
    assert cli.main(["audit", "verify", str(path)]) == 1
    assert f"record 7 of {path} is missing or altered; keep the file as evidence" in capsys.readouterr().err


def test_without_a_head_a_short_tail_is_not_missed_and_that_is_said(kept, tmp_path, capsys):
    path = shutil.copy(kept, tmp_path / "journal.db")
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("DELETE FROM record WHERE seq > 30")
    database.close()
    assert cli.main(["audit", "verify", str(path)]) == 0
    assert "no --head was given: records and events cut off" in capsys.readouterr().out


def test_a_tail_of_events_that_was_written_anew_shows_against_two_heads(kept, tmp_path):
    path = shutil.copy(kept, tmp_path / "journal.db")
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("DELETE FROM event WHERE id = ?", (N_EVENTS,))
    database.close()
    journal = open_journal(path)
    journal.note("command", name="ping", number=0)
    (tmp_path / "head.json").write_text(
        (kept.parent / "head.json").read_text() + "\n" + json.dumps(payload(journal.head))
    )
    journal.close()
    with pytest.raises(cli.StationError, match=f"event {N_EVENTS} of .* is not the one that a head names"):
        find(path)


def test_events_cut_off_with_a_checkpoint_show_without_a_head(tmp_path, make_reading):
    journal = open_journal(tmp_path / "journal.db")
    journal.note("start")
    journal.append(*(make_reading(1, field=i) for i in range(CHECKPOINT_ROWS - 1)))
    assert journal.head.n_events == 1
    assert journal.verify() == CHECKPOINT_ROWS - 1
    journal.append(make_reading(1))
    assert journal.head.n_events == 2
    assert journal.verify() == CHECKPOINT_ROWS
    journal._db.execute("DELETE FROM event WHERE id > 1")
    with pytest.raises(
        cli.StationError, match=r"event 2 of .* is missing: there is no checkpoint of the last"
    ):
        journal.verify()
    journal.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("online", "cannot be read"),
        ("{}", "names no record; expected ledger_id, seq and hash"),
        ('{"seq": 1, "hash": "00"}', "names no record"),
        ('{"seq": 1, "hash": "00", "ledger_id": "other"}', "no head is of ledger"),
    ],
)
def test_a_head_that_says_nothing_is_a_mistake_of_usage(kept, tmp_path, capsys, text, expected):
    (tmp_path / "head.json").write_text(text)
    assert cli.main(["audit", "verify", str(kept), "--head", str(tmp_path / "head.json")]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"no database at all"])
def test_what_is_no_journal_is_said(tmp_path, capsys, content):
    path = tmp_path / "journal.db"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["audit", "verify", str(path)]) in (1, 2)
    assert str(path) in capsys.readouterr().err


def test_a_journal_from_before_events_had_a_chain_goes_on(kept, tmp_path):
    path = shutil.copy(kept, tmp_path / "journal.db")
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("ALTER TABLE event DROP COLUMN hash")
    database.close()
    journal = open_journal(path)
    journal.note("start")
    assert journal.verify() == N_RECORDS
    journal._db.execute("UPDATE event SET body = '{}' WHERE id = ?", (N_EVENTS + 1,))
    journal._db.execute("UPDATE event SET kind = 'stop' WHERE id = ?", (N_EVENTS + 1,))
    with pytest.raises(cli.StationError, match="event 7 of"):
        journal.verify()
    journal.close()


def test_records_that_were_let_go_end_at_a_checkpoint(kept, tmp_path):
    path = shutil.copy(kept, tmp_path / "journal.db")
    shutil.copy(kept.parent / "head.json", tmp_path)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("DELETE FROM record WHERE seq <= ?", (CHECKED,))
    assert (find(path).first, find(path).n_records) == (CHECKED + 1, N_RECORDS - CHECKED)
    database.execute("DELETE FROM record WHERE seq <= ?", (CHECKED + 1,))
    with pytest.raises(cli.StationError, match="record 1 of"):
        find(path)
    database.close()
