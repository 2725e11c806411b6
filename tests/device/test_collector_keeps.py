"""What a collector hands on and lets go: tables, a chain that a stranger verifies, retention."""

import csv
import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device.cli import main
from device.collector import History, verify_chain
from device.collector.check import Kept, check
from device.collector.gaps import Gaps
from device.collector.retention import Keep
from device.collector.store import Store
from device.errors import JournalError
from device.journal import Journal
from device.messages import stub
from device.messages.sealing import canonical, seal
from device.publishers import Received
from device.records import Alert, Cell, CellClass

N = 24
CELL = Cell(1, 1.25, 2.5, "dead", CellClass.ROUNDED, 0.987654321, 120.5, False, True)
FOREVER = Keep()


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path, lines):
    path.write_text("".join(json.dumps(values) + "\n" for values in lines), "utf-8")
    return path


def verify(*paths):
    """Run the script as a stranger would: another interpreter, no packages, no environment."""
    command = [sys.executable, "-I", "-S", verify_chain.__file__, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, make_reading):
    """A collector's file of a station's journal: readings, some without their lists, alerts and a stub."""
    folder = tmp_path_factory.mktemp("lab")
    journal = Journal(folder / "journal.db", site="lab", station="b")
    for number in range(N):
        cells = (CELL,) * (300 if number % 9 == 4 else number % 3)
        record = make_reading(number, 1, field=number, cells=cells, plate="p", well="A1")
        is_alert = number % 11 == 7
        journal.append(Alert("BLUR", True, "µ \x01 text", record.taken_at) if is_alert else record)
    store = Store(folder / "lab.db")
    for row in journal.rows():
        message = stub(row.message) if row.seq == 20 else row.message
        leaf = json.loads(message)["schema"].split("/")[0]
        assert store.keep([check(Received(f"nanotox/v1/lab/b/{leaf}", message), "nanotox/v1")]) == []
    store.close()
    head = {"ledger_id": journal.ledger_id, "seq": journal.head.seq, "hash": journal.head.hash}
    write(folder / "head.jsonl", [head])
    journal.close()
    return folder


@pytest.fixture(scope="module")
def chain(lab):
    assert (
        main(
            [
                "collect",
                "export",
                "--db",
                str(lab / "lab.db"),
                "--what",
                "chain",
                "--out",
                str(lab / "c.jsonl"),
            ]
        )
        == 0
    )
    return read(lab / "c.jsonl")


# The chain


def test_a_stranger_verifies_a_chain_with_nothing_but_python(lab, chain):
    done = verify(lab / "c.jsonl", lab / "head.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    ledger = chain[0]["ledger_id"]
    assert (
        f"ledger {ledger}: 24 records hold, 1 of them withheld; 0 others are gone by its notes" in done.stdout
    )
    assert (lab / "verify_chain.py").read_bytes() == Path(verify_chain.__file__).read_bytes()


def test_a_journal_with_its_complete_lists_verifies_too(lab, tmp_path):
    journal = Journal(lab / "journal.db", site="lab", station="b")
    full = [json.loads(row.message) for row in journal.rows()]
    full = [values | (journal.full(values["seq"]) if values["left_out"] else {}) for values in full]
    journal.close()
    assert [v["left_out"] for v in full].count(["cells"]) == 3
    assert verify(write(tmp_path / "c.jsonl", full)).returncode == 0
    long = next(values for values in full if values["left_out"])
    long["cells"][7]["row"] += 1
    assert f"record {long['seq']} of" in verify(write(tmp_path / "c.jsonl", full)).stderr


def rehashed(values, **change):
    values = values | change
    return values | {"hash": seal(values)}


def edit(chain, at):
    chain[at] |= {"site": "other"}
    return at + 1


def delete(chain, at):
    del chain[at]
    return at + 1


def insert(chain, at):
    chain.insert(at, rehashed(chain[at], source="forged"))
    return at + 2


def swap(chain, at):
    chain[at], chain[at + 1] = chain[at + 1], chain[at]
    return at + 1


def rehash(chain, at):
    chain[at] = rehashed(chain[at], site="other")
    return at + 1


def cut_tail(chain, at):
    del chain[at + 1 :]
    return at + 2


def rewrite_chain(chain, at):
    prev_hash = chain[at]["prev_hash"]
    for number in range(at, len(chain)):
        chain[number] = rehashed(chain[number], station="other", prev_hash=prev_hash)
        prev_hash = chain[number]["hash"]
    return len(chain)


def edit_link(chain, at):
    chain[at] |= {random.Random(at).choice(["hash", "prev_hash"]): "0" * 63 + "1"}  # noqa: S311 - no secret
    return at + 1


KINDS = (edit, delete, insert, swap, rehash, cut_tail, rewrite_chain, edit_link)


@pytest.mark.parametrize("kind", KINDS)
def test_every_tamper_is_found_and_named(chain, lab, kind):
    heads = read(lab / "head.jsonl")
    for at in range(17):  # before the stub, whose own words nobody can check
        changed = [dict(values) for values in chain]
        number = kind(changed, at)
        with pytest.raises(ValueError, match=r"^record \d+ of ledger ") as error:
            verify_chain.verify(changed, heads)
        assert int(str(error.value).split()[1]) == number, at


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"seq": 1, "seq": 2}', "a key is there twice"),
        ("[1]", "does not hold"),
        ("nonsense", "does not hold"),
        ('{"ledger_id": "l", "seq": 1, "schema": "a/1"}', "does not hold"),
        (
            '{"ledger_id": "l", "seq": 1, "schema": "a/1", "left_out": [], "hash": "x", "n": NaN}',
            "does not hold",
        ),
        ("[" * 100_000, "does not hold"),
    ],
)
def test_what_is_no_chain_is_told_and_not_a_traceback(tmp_path, line, told):
    (tmp_path / "c.jsonl").write_text(line)
    done = verify(tmp_path / "c.jsonl")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


# Tables


def export(lab, *words):
    return main(["collect", "export", "--db", str(lab / "lab.db"), *words])


def test_tables_are_those_of_nanotox_export(lab, tmp_path, capsys):
    journal = ("--what", "readings", "--form", "csv/1", "--out", str(tmp_path / "a.csv"))
    assert main(["export", str(lab / "journal.db"), *journal]) == 0
    assert export(lab, "--what", "readings", "--schema", "csv/1", "--out", str(tmp_path / "b.csv")) == 0
    rows = [list(csv.reader((tmp_path / file).read_text().splitlines())) for file in ("a.csv", "b.csv")]
    assert [row for row in rows[0] if row[4] != "20"] == rows[1]
    assert list(tmp_path.glob("*.partial")) == []
    assert capsys.readouterr().out == ""


def test_an_export_is_narrowed_and_goes_to_stdout(lab, capsys):
    words = ("--what", "readings", "--form", "jsonl/1")
    for narrowed, n in (
        (("--station", "lab/b", "--plate", "p", "--since", "2000-01-01"), N - 3),
        (("--station", "b"), N - 3),
        (("--station", "c"), 0),
        (("--plate", "q"), 0),
        (("--since", "2999-01-01T00:00:00Z"), 0),
    ):
        assert export(lab, *words, *narrowed) == 0
        assert len(capsys.readouterr().out.splitlines()) == n, narrowed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["export", "--what", "chain", "--plate", "p"],
            "expected --form jsonl/1, and neither --plate nor --since",
        ),
        (["export", "--what", "chain", "--form", "csv/1"], "a chain has every record as it was published"),
        (["--keep-days", "3"], "--broker is missing; expected mqtt://HOST, or `export` or `history`"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(lab, words, told, capsys):
    assert main(["collect", "--db", str(lab / "lab.db"), *words]) == 2
    assert told in capsys.readouterr().err


def test_a_history_without_a_file_is_told(tmp_path, capsys):
    assert main(["collect", "history", "--db", str(tmp_path / "none.db")]) == 1
    assert "none.db" in capsys.readouterr().err


def test_the_terminal_shows_stations_plates_and_verdicts(tmp_path, capsys):
    store = Store(tmp_path / "lab.db")
    for seq, (kind, well) in enumerate([("verdict", "D1"), ("verdict", "D2"), ("plate", None)], start=1):
        said = {"site": "lab", "station": "b", "plate": "p7", "well": well, "stage": "final"}
        said |= {"outcome": "toxic", "ts": f"2026-03-04T00:00:{seq:02}.000Z"}
        told = (f"{kind}/1", said["ts"], "h", canonical(said), kind, "p7", well)
        store.keep([Kept("l", seq, "lab", "b", *told)])
    store.close()
    db = ("--db", str(tmp_path / "lab.db"))
    assert main(["collect", "history", *db]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "lab/b  newest record  2026-03-04T00:00:03.000Z",
        "lab/b  plate p7       2026-03-04T00:00:03.000Z",
    ]
    assert main(["collect", *db, "history", "--station", "lab/b", "--plate", "p7", "--last", "1"]) == 0
    assert capsys.readouterr().out == "lab/b  p7 D2 final toxic  2026-03-04T00:00:02.000Z\n"
    assert main(["collect", "history", *db, "--plate", "none"]) == 0
    assert "nothing of that is in" in capsys.readouterr().err


# Retention


@pytest.fixture
def store(lab, tmp_path):
    """A copy of the file that can be cut."""
    (tmp_path / "lab.db").write_bytes((lab / "lab.db").read_bytes())
    made = Store(tmp_path / "lab.db")
    yield made
    made.close()


def age(store, seqs, days):
    at = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    store._db.executemany("UPDATE record SET received_at = ? WHERE seq = ?", [(at, seq) for seq in seqs])


def left(store):
    return [row[0] for row in store._db.execute("SELECT seq FROM record ORDER BY seq")]


def test_old_records_go_and_the_chain_holds_from_the_oldest_kept(store, tmp_path, lab):
    gaps = store.gaps()
    assert store.let_go(gaps, FOREVER) == store.let_go(gaps, Keep(days=30)) == 0
    age(store, [*range(1, 11), 12], 40)
    assert store.let_go(gaps, Keep(days=30)) == 10, "12 is old too, but 11 is not"
    assert store.let_go(gaps, Keep(days=30)) == 0
    assert left(store) == list(range(11, N + 1))
    assert store.gaps()["" or next(iter(gaps))].missing == [], "nobody asks for them"
    chain = list(History(tmp_path / "lab.db").export(None))
    assert (chain[0]["seq"], chain[0]["n_gone"]) == (10, 10)
    assert verify(write(tmp_path / "c.jsonl", chain), lab / "head.jsonl").returncode == 0
    del chain[1]
    done = verify(write(tmp_path / "c.jsonl", chain))
    assert "record 11 of" in done.stderr


def test_records_that_come_again_after_they_went_are_dropped(store, chain, tmp_path):
    age(store, range(1, 6), 40)
    assert store.let_go(store.gaps(), Keep(days=30)) == 5
    again = check(
        Received(f"nanotox/v1/lab/b/{chain[2]['schema'].split('/')[0]}", canonical(chain[2])), "nanotox/v1"
    )
    assert store.keep([again]) == []
    assert (left(store)[0], store.n_doubled) == (6, 1)
    store.close()
    reopened = Store(tmp_path / "lab.db")
    reopened.keep([again])
    assert (left(reopened)[0], reopened.n_doubled) == (6, 2)
    reopened.close()


def test_what_is_still_asked_for_holds_all_that_follows_it(store):
    store._db.execute("DELETE FROM record WHERE seq = 8")
    age(store, range(1, N + 1), 40)
    gaps = store.gaps()
    assert store.let_go(gaps, Keep(days=30)) == 7
    assert store.let_go(gaps, Keep(days=30)) == 0
    assert left(store) == list(range(9, N + 1))
    (gap,) = store.gaps().values()
    assert gap.missing == [range(8, 9)]
    gap.fill(8, 8)  # given up
    assert store.let_go({next(iter(gaps)): gap}, Keep(days=30)) == N - 9
    assert left(store) == [N], "the newest stays, for the chain goes on from it"


def test_a_chain_tells_what_no_station_has_and_not_what_is_still_missing(store, tmp_path):
    store._db.execute("DELETE FROM record WHERE seq BETWEEN 3 AND 5 OR seq = 9")
    ledger = next(iter(store.gaps()))
    store.give_up(ledger, range(3, 6), "retention")
    chain = list(History(tmp_path / "lab.db").export(None))
    assert [v["n_gone"] for v in chain if "schema" not in v] == [3]
    assert "record 9 of" in verify(write(tmp_path / "c.jsonl", chain)).stderr
    store.give_up(ledger, range(9, 10), "retention")
    done = verify(write(tmp_path / "c.jsonl", History(tmp_path / "lab.db").export(None)))
    assert "20 records hold, 1 of them withheld; 4 others are gone by its notes" in done.stdout


def test_a_full_file_lets_the_oldest_ledger_go_first(store):
    row = store._db.execute("SELECT * FROM record WHERE seq = 1").fetchone()
    marks = ", ".join("?" * len(row))
    for seq in (1, 2, 3):
        store._db.execute(f"INSERT INTO record VALUES ({marks})", ("other", seq, *row[2:]))  # noqa: S608 - marks
    store._db.execute("UPDATE record SET received_at = '2020' WHERE ledger_id = 'other'")
    assert store.let_go(store.gaps(), Keep(max_bytes=1e9)) == 0
    assert store.let_go(store.gaps(), Keep(max_bytes=1.0)) == 2
    assert store._db.execute("SELECT seq FROM record WHERE ledger_id = 'other'").fetchall() == [(3,)]
    assert store.let_go(store.gaps(), Keep(max_bytes=1.0)) == N - 1
    assert store.let_go(store.gaps(), Keep(max_bytes=1.0)) == 0


def test_a_ledger_of_which_nothing_is_here_is_passed_over(store):
    assert store.let_go({"unheard": Gaps()}, Keep(days=1, max_bytes=1.0)) == 0


def test_a_file_that_is_none_is_told(tmp_path):
    (tmp_path / "x.db").write_text("no")
    with pytest.raises(JournalError):
        History(tmp_path / "x.db")
