"""Claims about reading published records back: from journals, which stay as they are, and from JSON lines."""

import json

import pytest

from device.errors import ConfigError, JournalError
from device.journal import Journal
from device.journal.read import find_plate, is_complete, plate_runs, read_records
from device.messages import body_of, payload
from device.messages.recompute import parse
from device.records import Cell, CellClass, Reading


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def reading(make_reading):
    cells = tuple(
        Cell(i + 1, 1.25, 2.5, "dead", CellClass.ROUNDED, 0.987654321, 120.5, False, True) for i in range(200)
    )
    return make_reading(0, 200, well="A1", plate="p1", cells=cells)


def open_journal(path):
    return Journal(path, site="lab", station="bench-1")


def write_lines(path, *records):
    path.write_text("".join(json.dumps(values) + "\n" for values in records), "utf-8")
    return path


def test_a_journal_gives_complete_records_beside_its_station(path, reading):
    journal = open_journal(path)
    (sealed,) = journal.append(reading)
    assert sealed.full is not None  # its message leaves the cells out
    (found,) = read_records(path)
    assert body_of(found) == payload(reading)
    assert (found["seq"], found["left_out"]) == (1, ["cells"])
    assert is_complete(found)
    journal.append(reading)  # and the station goes on
    journal.close()


def test_a_closed_journal_is_left_as_it_was(path, reading, tmp_path):
    journal = open_journal(path)
    journal.append(reading)
    journal.close()
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    assert len(list(read_records(path))) == 1
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before


def test_a_station_that_opens_the_journal_meanwhile_is_noticed(path, reading):
    journal = open_journal(path)
    journal.append(reading, reading)
    journal.close()
    records = read_records(path)
    next(records)
    journal = open_journal(path)
    with pytest.raises(JournalError, match=r"a station opened .* while it was read"):
        list(records)
    journal.close()


def test_a_database_that_is_no_journal_is_said(path):
    open_journal(path).close()
    damaged = path.read_bytes()[:100]
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match="cannot be read"):
        list(read_records(path))


def test_a_message_that_leaves_lists_out_is_not_complete(path):
    values = {
        "schema": "verdict/1",
        "reference": {"fields": []},
        "fields": [1],
        "left_out": ["reference.fields"],
    }
    assert not is_complete(values)
    assert is_complete({**values, "reference": {"fields": [1]}})
    assert is_complete({**values, "left_out": []})


def test_lines_of_every_writer_are_read(tmp_path, judged_plate):
    plate, verdicts, _ = judged_plate()
    lines = [
        {"topic": "nanotox/v1/lab/b/availability", "retain": True, "payload": "online"},
        {"topic": "nanotox/v1/lab/b/state", "retain": True, "payload": {"schema": "state/1"}},
        {
            "topic": "nanotox/v1/lab/b/verdict",
            "retain": False,
            "payload": {"schema": "verdict/1", **verdicts[0]},
        },
        {"schema": "verdict/1", "seq": 7, "left_out": ["*"]},
        {"schema": "plate/1", **plate},
    ]
    found = list(read_records(write_lines(tmp_path / "lines.jsonl", *lines)))
    assert [values["schema"] for values in found] == ["verdict/1", "plate/1"]
    assert body_of(found[0])["well"] == "A1"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no json\n", "line 1 of .* is no JSON"),
        (b'{"schema": "plate/1", "plate": "p"}\n[1]\n', "line 2 of .* is no record with a schema"),
        (b'{"well": "A1"}\n', "line 1 of .* is no record with a schema"),
        (b'{"schema": "verdict/9"}\n', "line 1 of .* has the form verdict/9; expected reading/1, verdict/1"),
        (b"\xff\xfe\x00", "expected JSON lines"),
    ],
)
def test_what_is_no_record_is_named_with_its_line(tmp_path, content, said):
    (tmp_path / "lines.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        list(read_records(tmp_path / "lines.jsonl"))


def test_a_source_that_is_missing_is_said(path):
    with pytest.raises(ConfigError, match=r"cannot be read .*expected a journal or JSON lines"):
        list(read_records(path))


def store(journal, plate, verdicts, readings):
    """Yield records as a journal gives them, of a plate that was judged without one."""
    for schema, values in [("reading/1", r) for r in readings] + [("verdict/1", v) for v in verdicts]:
        yield {"schema": schema, **values, "boot_id": journal}
    if plate is not None:
        yield {"schema": "plate/1", **plate}


def test_the_newest_plate_is_found_or_the_one_that_was_named(tmp_path, judged_plate):
    first, second = judged_plate(name="p1"), judged_plate(name="p2")
    path = write_lines(tmp_path / "l.jsonl", *store("a", *first), *store("a", *second))
    assert find_plate(path, None).plate["plate"] == "p2"
    found = find_plate(path, "p1")
    assert [v["well"] for v in found.verdicts] == [v["well"] for v in first[1]]
    assert len(found.readings) == 110
    with pytest.raises(ConfigError, match=r"finished plates are p1, p2 in .*; expected one called p3"):
        find_plate(path, "p3")


def test_a_plate_that_was_broken_off_and_started_again_has_the_fields_of_its_own_run(judged_plate):
    plate, verdicts, readings = judged_plate()
    broken = store("broken", None, [], readings[:25])
    (run,) = plate_runs([*broken, *store("whole", plate, verdicts, readings)])
    assert len(run.readings) == 110
    assert {values["boot_id"] for values in run.readings} == {"whole"}


def test_a_plate_that_is_not_finished_is_none(tmp_path, judged_plate):
    _, verdicts, readings = judged_plate()
    path = write_lines(tmp_path / "l.jsonl", *store("a", None, verdicts, readings))
    with pytest.raises(ConfigError, match=r"no plate is finished in .*; expected a finished plate"):
        find_plate(path, None)


def test_a_reading_comes_back_from_its_payload(reading):
    assert payload(parse(Reading, payload(reading))) == payload(reading)
