"""Claims about what a station keeps: checkpoints anchor the chain, and only what may go ever goes."""

import errno
import json
import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

import device.journal as journal_module
from device.errors import JournalError
from device.journal import Journal, StorageFullError
from device.station.upkeep import hold_quota, keep_up

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


class Kept:
    """A journal whose clock a test turns, with a checkpoint after every ten records."""

    def __init__(self, folder, make_reading):
        self.now, self.make_reading, self.path = NOW, make_reading, folder / "journal.db"
        self.open()

    def open(self):
        self.journal = Journal(self.path, site="lab", station="bench-1", clock=lambda: self.now)

    def store(self, count, *, sent=True, **other):
        for i in range(count):
            (sealed,) = self.journal.append(self.make_reading(field=i, **other))
            if sent:
                self.journal.mark_sent([sealed.seq])

    def seqs(self):
        return [row.seq for row in self.journal.rows()]

    def events(self, kind):
        return [body for _, body in reversed(self.journal.notes(kind, limit=100))]


@pytest.fixture
def kept(tmp_path, make_reading, monkeypatch):
    monkeypatch.setattr(journal_module, "CHECKPOINT_ROWS", 10)
    made = Kept(tmp_path, make_reading)
    yield made
    made.journal.close()


def test_a_checkpoint_names_every_tenth_record_over_restarts(kept):
    kept.store(15)
    kept.journal.close()
    kept.open()
    kept.store(15)
    hashes = {row.seq: row.hash for row in kept.journal.rows()}
    assert kept.events("checkpoint") == [{"seq": n, "hash": hashes[n], "count": 10} for n in (10, 20, 30)]
    assert kept.journal.verify() == 30
    kept.journal._db.execute("DELETE FROM record WHERE seq > 25")
    with pytest.raises(JournalError, match=r"record 26 of .* is missing"):
        kept.journal.verify()


def test_an_hour_is_anchored_however_few_its_records(kept, monkeypatch):
    kept.store(3)
    assert kept.events("checkpoint") == []
    monkeypatch.setattr(journal_module, "_CHECKPOINT_S", 0.0)
    kept.store(1)
    assert [(body["seq"], body["count"]) for body in kept.events("checkpoint")] == [(4, 4)]


def test_a_transaction_that_fails_leaves_no_checkpoint(kept):
    kept.store(9)
    bad = kept.make_reading()
    object.__setattr__(bad, "affected", float("nan"))
    with pytest.raises(ValueError, match="affected is nan"):
        kept.journal.append(kept.make_reading(), bad)
    assert kept.events("checkpoint") == []
    kept.store(1)
    kept.journal.note("start")
    assert len(kept.events("checkpoint")) == 1
    assert kept.journal.verify() == 10


def test_old_records_go_up_to_a_checkpoint_and_the_chain_holds(kept):
    kept.store(25)
    kept.now += 100 * DAY
    kept.store(10)
    before = kept.now - 90 * DAY
    went = [kept.journal.let_go(before=before, max_bytes=1e12) for _ in range(3)]
    assert went == [10, 10, 0], "the third checkpoint is of today, because record 30 is"
    assert kept.seqs() == list(range(21, 36))
    assert kept.journal.verify() == 15
    told = [(body["first"], body["last"]) for body in kept.events("records_let_go")]
    assert told == [(1, 10), (11, 20)]
    kept.journal.close()
    kept.open()
    kept.store(1)
    assert kept.seqs()[-1] == 36
    assert kept.journal.verify() == 16
    kept.journal._db.execute("DELETE FROM record WHERE seq = 21")
    with pytest.raises(JournalError, match=r"record 1 of .* is missing or altered"):
        kept.journal.verify()


def test_unsent_records_never_go_nor_the_newest_nor_those_of_a_plate(kept):
    kept.store(10)
    kept.store(1, sent=False)
    kept.store(9)
    everything = {"before": kept.now + DAY, "max_bytes": 0}
    assert kept.journal.let_go(**everything, keep_from=10) == 0
    assert kept.journal.let_go(**everything, keep_from=11) == 10
    assert kept.journal.let_go(**everything) == 0, "record 11 is unsent"
    kept.journal.mark_sent([11])
    assert kept.journal.let_go(**everything) == 0, "record 20 is the newest"
    kept.store(1)
    assert kept.journal.let_go(**everything) == 10
    assert kept.seqs() == [21]
    assert kept.journal.verify() == 1


def test_the_oldest_go_while_there_are_too_many(kept):
    kept.store(200)
    size = kept.path.with_name("journal.db-wal").stat().st_size
    assert size > 0
    pages = kept.journal._db.execute("PRAGMA page_count").fetchone()[0] * 4096
    while kept.journal.let_go(before=None, max_bytes=pages // 2):
        pass
    assert 50 < len(kept.seqs()) < 130
    assert kept.seqs()[-1] == 200
    assert kept.journal.verify() == len(kept.seqs())


def config(tmp_path, *, days=90.0, gb=1.0, frames_gb=1.0):
    return SimpleNamespace(
        journal=SimpleNamespace(keep_days=days, keep_gb=gb),
        frames=SimpleNamespace(path=tmp_path / "frames", keep_gb=frames_gb),
    )


@pytest.mark.parametrize(("state", "n_left"), [("synced", 1), ("unsynced", 31), ("unknown", 31)])
def test_a_clock_that_nobody_set_deletes_nothing(kept, tmp_path, state, n_left):
    kept.now = NOW - 100 * DAY
    kept.store(31)
    keep_up(config(tmp_path), kept.journal, state)
    assert len(kept.seqs()) == n_left


def test_a_plate_that_runs_keeps_its_records(kept, tmp_path):
    kept.now = NOW - 100 * DAY
    kept.store(15)
    kept.journal.note("plate_start", plate="p", after_seq=15)
    kept.store(20)
    keep_up(config(tmp_path), kept.journal, "synced")
    assert kept.seqs()[0] == 11
    kept.journal.note("plate_end", plate="p")
    keep_up(config(tmp_path), kept.journal, "synced")
    assert kept.seqs()[0] == 31


# Ballast


def test_room_is_held_beside_the_journal_and_given_up(kept):
    ballast = kept.path.with_name("journal.db.ballast")
    kept.journal.give_room()
    kept.journal.hold_room()
    assert ballast.stat().st_blocks * 512 >= 4096, "held, not only named"
    kept.journal.hold_room()
    kept.journal.give_room()
    assert not ballast.exists()


@pytest.mark.parametrize(
    ("number", "is_full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EPERM, False)]
)
def test_room_that_cannot_be_held_is_a_full_disk_only_if_it_is_one(kept, monkeypatch, number, is_full):
    def refuse(*_):
        raise OSError(number, "no")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    if is_full:
        with pytest.raises(StorageFullError, match="the disk is full; make room"):
            kept.journal.hold_room()
    else:
        kept.journal.hold_room()
    assert not kept.path.with_name("journal.db.ballast").exists()


# Frames


def draw(folder, day, names, *, size=1000):
    (folder / day).mkdir(parents=True, exist_ok=True)
    for age, name in enumerate(names):
        file = folder / day / f"{name}.png"
        file.write_bytes(bytes(size))
        os.utime(file, (1e9 + age, 1e9 + age))


def there(folder):
    return sorted(f"{file.parent.name}/{file.stem}" for file in folder.rglob("*.png"))


def test_the_oldest_frames_go_above_the_quota_and_are_told(kept, tmp_path, monkeypatch):
    monkeypatch.setattr("device.station.upkeep._BATCH", 2)
    folder = tmp_path / "frames"
    draw(folder, "2026-01-02", "cab")
    draw(folder, "2026-01-01", "xyz")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.png").write_bytes(bytes(5000))
    hold_quota(folder, 6000, kept.journal, None)
    assert len(there(folder)) == 7
    hold_quota(folder, 2500, kept.journal, None)
    assert there(folder) == ["2026-01-02/a", "2026-01-02/b", "notes/mine"]
    assert not (folder / "2026-01-01").exists()
    told = [(body["day"], body["sha256"]) for body in kept.events("frames_let_go")]
    assert told == [("2026-01-01", ["x", "y"]), ("2026-01-01", ["z"]), ("2026-01-02", ["c"])]
    hold_quota(tmp_path / "nowhere", 0, kept.journal, None)


def test_frames_of_the_plate_that_runs_never_go(kept, tmp_path):
    folder = tmp_path / "frames"
    draw(folder, "2026-01-01", ["before", "of_it"])
    draw(folder, "2026-01-02", ["of_it_too"])
    kept.store(1, frame_sha256="before")
    kept.journal.note("plate_start", plate="p", after_seq=1)
    kept.store(1, frame_sha256="of_it")
    kept.store(1, frame_sha256="of_it_too", sent=False)
    keep_up(config(tmp_path, frames_gb=1e-9), kept.journal, "synced")
    assert there(folder) == ["2026-01-01/of_it", "2026-01-02/of_it_too"]
    assert json.loads(kept.journal.rows(2, 2)[0].message)["frame_sha256"] == "of_it"
