import json
import resource
import signal
import sqlite3
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device.errors import JournalError
from device.journal import FIRST_HASH, Journal, StorageFullError
from device.messages import MAX_MESSAGE_BYTES
from device.messages.sealing import seal
from device.records import Cell, CellClass, Outcome, Quality, Reading, Reason, Tally

NOW = datetime(2026, 3, 4, 5, 6, 7, 891000, tzinfo=UTC)


def reading(sequence=0, n_cells=0):
    cells = tuple(
        Cell(i + 1, 1.25, 2.5, "dead", CellClass.ROUNDED, 0.987654321, 120.5, False, True)
        for i in range(n_cells)
    )
    quality = Quality(True, (), (), 0.1, 0.1, -1.0, 0.0, 0.0, 0.5, 0.1, 0.65, "assumed")
    return Reading(
        "field.png", sequence, NOW, None, sequence, False, Outcome.INCONCLUSIVE, (Reason.SCALE_ASSUMED,),
        0, n_cells, 0, None, None, Tally(0, n_cells, 0, None, 0.0), quality, cells, 480, 640,
        "adherent", "phase", "hybrid", None, None,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


def open_journal(path, **options):
    return Journal(path, site="lab", station="bench-1", **options)


def test_records_are_numbered_and_chained_without_a_gap_over_restarts(path):
    journal = open_journal(path)
    first, second = journal.append(reading(0), reading(1))
    ledger, boot = journal.ledger_id, journal.boot_id
    journal.close()
    journal = open_journal(path)
    (third,) = journal.append(reading(2))
    assert [item.seq for item in (first, second, third)] == [1, 2, 3]
    messages = [json.loads(row.message) for row in journal.rows()]
    assert [m["prev_hash"] for m in messages] == [FIRST_HASH, first.hash, second.hash]
    assert all(seal(m) == m["hash"] for m in messages)
    assert journal.ledger_id == ledger
    assert journal.boot_id != boot
    assert messages[2]["boot_id"] == journal.boot_id
    assert journal.verify() == 3
    assert (journal.head.seq, journal.head.hash) == (3, third.hash)
    journal.close()


def test_unsent_rows_are_the_outbox_and_sent_rows_are_kept_for_replay(path):
    journal = open_journal(path)
    journal.append(*(reading(i) for i in range(5)))
    journal.mark_sent([1, 2, 4])
    assert [row.seq for row in journal.unsent(10)] == [3, 5]
    assert [row.seq for row in journal.unsent(10, after=3)] == [5]
    assert [row.seq for row in journal.unsent(1)] == [3]
    assert journal.count_unsent() == 2
    assert [row.seq for row in journal.rows(2, 4)] == [2, 3, 4]
    journal.close()


def test_it_writes_through_to_the_disk(path):
    journal = open_journal(path)
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    journal.close()


def test_a_second_station_on_the_same_journal_is_refused(path):
    journal = open_journal(path)
    with pytest.raises(JournalError, match="in use by another process; stop it or name another"):
        open_journal(path)
    journal.close()
    open_journal(path).close()


def test_the_journal_of_another_station_is_refused(path):
    open_journal(path).close()
    with pytest.raises(JournalError, match="belongs to lab/bench-1, this station is lab/bench-2"):
        Journal(path, site="lab", station="bench-2")


@pytest.mark.parametrize("content", [b"this is no database" * 100, b""])
def test_a_file_that_is_no_journal_is_refused_and_an_empty_one_taken(path, content):
    path.write_bytes(content)
    if content:
        with pytest.raises(JournalError, match="cannot be opened"):
            open_journal(path)
        assert path.read_bytes() == content
    else:
        open_journal(path).close()


def test_a_database_of_somebody_else_is_refused(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    with pytest.raises(JournalError, match="no journal; name another file"):
        open_journal(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="expected a folder that can be written"):
        open_journal(tmp_path / "file" / "journal.db")


def test_nan_is_refused_and_nothing_of_its_transaction_is_stored(path):
    journal = open_journal(path)
    bad = reading(1)
    object.__setattr__(bad, "affected", float("nan"))
    with pytest.raises(ValueError, match="affected is nan; expected a finite number"):
        journal.append(reading(0), bad)
    assert journal.head.seq == 0
    assert journal.append(reading(0))[0].seq == 1
    journal.close()


def test_a_large_record_is_kept_whole_and_sent_without_its_list(path):
    journal = open_journal(path)
    (sealed,) = journal.append(reading(n_cells=400))
    assert len(sealed.message) <= MAX_MESSAGE_BYTES
    message = json.loads(sealed.message)
    assert (message["left_out"], message["cells"], message["n_dead"]) == (["cells"], [], 400)
    assert len(journal.full(1)["cells"]) == 400
    assert journal.verify() == 1
    journal.close()


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE record SET message = replace(message, '\"n_live\":0', '\"n_live\":7') WHERE seq = 2",
        "DELETE FROM record WHERE seq = 2",
        "UPDATE record SET hash = 'f' WHERE seq = 2",
        "UPDATE record SET seq = 9 WHERE seq = 2",
    ],
)
def test_an_altered_record_is_found_and_named(path, tamper):
    journal = open_journal(path)
    journal.append(*(reading(i) for i in range(3)))
    journal._db.execute(tamper)
    with pytest.raises(JournalError, match=r"record 2 of .* is missing or altered"):
        journal.verify()
    journal.close()


def test_an_altered_list_that_was_not_sent_is_found(path):
    journal = open_journal(path)
    journal.append(reading(n_cells=400))
    journal._db.execute("UPDATE record SET full = ?", (zlib.compress(b'{"n_dead":1}'),))
    with pytest.raises(JournalError, match=r"lists of record 1 .* are altered"):
        journal.verify()
    journal.close()


def test_a_start_on_an_altered_tail_is_refused(path):
    journal = open_journal(path)
    journal.append(reading())
    journal._db.execute("UPDATE record SET hash = 'f'")
    journal.close()
    with pytest.raises(JournalError, match=r"record 1, the newest of .* is altered"):
        open_journal(path)


def test_a_full_disk_stores_nothing_and_goes_on_when_there_is_room(path):
    journal = open_journal(path)
    journal.append(reading(0))
    journal._db.execute(f"PRAGMA max_page_count = {journal._db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StorageFullError, match=r"the disk is full .*; make room"):
        journal.append(*(reading(i, n_cells=400) for i in range(20)))
    assert journal.head.seq == 1
    journal._db.execute("PRAGMA max_page_count = 100000")
    assert journal.append(reading(1))[0].seq == 2
    assert journal.verify() == 2
    journal.close()


def test_events_are_kept_without_a_number_of_the_chain(path):
    journal = open_journal(path, clock=lambda: NOW)
    journal.note("start", version="0.1.0")
    assert journal._db.execute("SELECT ts, kind, body FROM event").fetchall() == [
        ("2026-03-04T05:06:07.891Z", "start", '{"version":"0.1.0"}')
    ]
    assert journal.head.seq == 0
    journal.close()


WRITER = """
import sys
import zlib
sys.path.insert(0, {tests!r})
from test_journal import open_journal, reading
from pathlib import Path
journal = open_journal(Path({path!r}))
for i in range(10_000):
    print(journal.append(reading(i), reading(i))[-1].seq, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_nothing_that_was_acknowledged_is_lost_by_a_kill(path, lines):
    code = WRITER.format(tests=str(Path(__file__).parent), path=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        told = [int(writer.stdout.readline()) for _ in range(lines)][-1]
        writer.kill()
        told = max([told, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    journal = open_journal(path)
    assert journal.verify() >= told
    assert journal.head.seq % 2 == 0, "half a transaction is stored"
    journal.close()


def test_a_file_limit_counts_as_a_full_disk(path):
    journal = open_journal(path)
    journal.append(reading(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = path.with_name("journal.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(StorageFullError):
            journal.append(*(reading(i, n_cells=300) for i in range(30)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert journal.append(reading(1))[0].seq == 2
    assert journal.verify() == 2
    journal.close()
