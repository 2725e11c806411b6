"""Claims about a plug that is pulled: crashes are made of the recorded writes and syncs of a journal.

A crash leaves of each file what was synced, and of the writes since then none, the first few, some, or a part
of one in sectors of 512 bytes. `NANOTOX_CRASH_STATES=5000` looks at more of them than a test has time for.
"""

import os
from dataclasses import dataclass, field

import numpy as np
import pytest

import device.journal as journal_module
from device.journal import Journal

apsw = pytest.importorskip("apsw", reason="apsw records the writes; it is in the dependency group test")

N_STATES = int(os.environ.get("NANOTOX_CRASH_STATES", "250"))
SECTOR = 512


@dataclass
class Disk:
    """What was done to the files of a folder, in order; `told` are records that the journal had promised."""

    done: list = field(default_factory=list)

    def note(self, *what):
        self.done.append(what)


def recording(disk):
    class File(apsw.VFSFile):
        def __init__(self, name, flags):
            self.name = name if isinstance(name, str) else name.filename()
            super().__init__("", name, flags)

        def xWrite(self, data, offset):  # noqa: N802 - SQLite's own name
            disk.note("write", self.name, offset, bytes(data))
            super().xWrite(data, offset)

        def xTruncate(self, size):  # noqa: N802
            disk.note("truncate", self.name, size)
            super().xTruncate(size)

        def xSync(self, flags):  # noqa: N802
            disk.note("sync", self.name)
            super().xSync(flags)

    class System(apsw.VFS):
        def __init__(self):
            super().__init__("recording", "")

        def xOpen(self, name, flags):  # noqa: N802
            return File(name, flags)

        def xDelete(self, name, sync):  # noqa: N802
            disk.note("delete", name)
            super().xDelete(name, sync)

    return System()


def connect(path, **_):
    """Stand in for that of sqlite3; without shared memory the log needs an exclusive lock."""
    opened = apsw.Connection(str(path), vfs="recording")
    opened.execute("PRAGMA locking_mode=EXCLUSIVE")
    return opened


def record(folder, make_reading, monkeypatch, *, synchronous):
    """Return what a journal did to its disk while records were stored, marked and let go."""
    disk = Disk()
    system = recording(disk)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.sqlite3, "connect", connect)
        patch.setattr(journal_module, "CHECKPOINT_ROWS", 20)
        journal = Journal(folder / "journal.db", site="lab", station="bench-1")
        journal._db.execute(f"PRAGMA synchronous={synchronous}")
        journal._db.execute("PRAGMA wal_autocheckpoint=40")
        disk.note("told", 0)
        for number in range(1, 61):
            journal.append(make_reading(field=number))
            disk.note("told", number)
            if number % 5 == 0:
                journal.mark_sent(range(number - 4, number - 1))
            if number == 45:
                journal.mark_sent(range(1, 46))
                assert journal.let_go(before=None, max_bytes=0) == 20
        journal.note("end")
        journal.close()
    system.unregister()
    return disk.done


def states(done, rng):
    """Yield crashes without end: what the files then hold, and the newest record that was promised before."""
    start = next(i for i, what in enumerate(done) if what[0] == "told")
    while True:
        at = int(rng.integers(start + 1, len(done) + 1))
        durable, pending, told = {}, {}, 0
        for kind, *what in done[:at]:
            if kind == "told":
                told = what[0]
            elif kind == "sync":
                durable[what[0]] = apply(durable.get(what[0], b""), pending.pop(what[0], []))
            elif kind == "delete":
                durable.pop(what[0], None)
                pending.pop(what[0], None)
            else:
                pending.setdefault(what[0], []).append(what[1:])
        files = {
            name: apply(durable.get(name, b""), survivors(pending.get(name, []), rng))
            for name in {*durable, *pending}
        }
        yield files, told


def survivors(writes, rng):
    how = rng.integers(4)
    n = int(rng.integers(len(writes) + 1))
    if how == 0:
        return []
    if how == 1:
        return writes[:n]
    if how == 2:
        return [write for write in writes if rng.random() < 0.5]
    torn = []
    if n < len(writes) and len(writes[n]) == 2:
        offset, data = writes[n]
        sectors = [
            (offset + i, data[i : i + SECTOR]) for i in range(0, len(data), SECTOR) if rng.random() < 0.5
        ]
        torn = sectors
    return writes[:n] + torn


def apply(content, writes):
    content = bytearray(content)
    for write in writes:
        if len(write) == 1:
            del content[write[0] :]
            continue
        offset, data = write
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
    return bytes(content)


def look(folder, files):
    """Return the newest record of the journal that these files make, if its chain and its pages hold."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / os.path.basename(name)).write_bytes(content)  # noqa: PTH119 - a name, no path
    journal = Journal(folder / "journal.db", site="lab", station="bench-1")
    try:
        assert journal._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        journal.verify()
        return journal.head.seq
    finally:
        journal.close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "crashed").mkdir()
    return tmp_path / "crashed"


def test_no_promised_record_is_lost_however_the_power_fails(tmp_path, folder, make_reading, monkeypatch):
    done = record(tmp_path, make_reading, monkeypatch, synchronous="FULL")
    written = {os.path.basename(what[1]) for what in done if what[0] == "write"}  # noqa: PTH119
    assert written >= {"journal.db", "journal.db-wal"}
    every = states(done, np.random.default_rng(6))
    tolds = set()
    for _ in range(N_STATES):
        files, told = next(every)
        assert look(folder, files) >= told
        tolds.add(told)
    assert len(tolds) > min(N_STATES, 60) / 2


def test_a_journal_that_does_not_sync_each_record_is_found_out(tmp_path, folder, make_reading, monkeypatch):
    done = record(tmp_path, make_reading, monkeypatch, synchronous="NORMAL")
    every = states(done, np.random.default_rng(6))
    lost = [look(folder, files) < told for files, told in (next(every) for _ in range(40))]
    assert sum(lost) > 10
