from datetime import UTC, datetime

import pytest

from device.journal import Journal
from device.messages.commands import REPLAY_ROWS
from device.records import Outcome, PlateReport, Quality, Reading, Tally
from device.station import outbox as outbox_module
from device.station.outbox import Outbox

NOW = datetime(2026, 3, 4, tzinfo=UTC)
REPORT = PlateReport("p", None, "r/1", "d" * 64, None, False, (), (), (), None, 0, False)
QUALITY = Quality(True, (), (), 0.1, 0.1, -1.0, 0.0, 0.0, 0.5, 0.1, 0.65, "measured")
READING = Reading(
    "f", 0, NOW, None, 0, False, Outcome.INCONCLUSIVE, (), 0, 0, 0, None, None, Tally(0, 0, 0, None, 0.0),
    QUALITY, (), 480, 640, "adherent", "phase", "hybrid", None, None,
)  # fmt: skip


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "journal.db", site="lab", station="b")
    yield made
    made.close()


def numbers(rows):
    return [row.seq for row in rows]


def drain(outbox, room=4):
    """Return batches until nothing is due."""
    found = []
    while rows := outbox.due(room):
        found.append(numbers(rows))
    return found


def test_what_waits_goes_out_in_order_and_from_the_start_with_each_connection(journal):
    journal.append(*[REPORT] * 6)
    outbox = Outbox(journal)
    outbox.begin()
    assert drain(outbox) == [[1, 2, 3, 4], [5, 6]]
    journal.mark_sent([1, 3])
    journal.append(REPORT)
    assert drain(outbox) == [[7]]
    outbox.start_over()
    assert drain(outbox) == [[2, 4, 5, 6], [7]]


def test_the_present_does_not_wait_for_a_long_past(journal, monkeypatch):
    monkeypatch.setattr(outbox_module, "_BACKLOG", 10)
    monkeypatch.setattr(outbox_module, "_NEWEST", 2)
    journal.append(*[REPORT] * 13)
    outbox = Outbox(journal)
    outbox.begin()
    assert numbers(outbox.due(6)) == [12, 13, 1, 2, 3, 4]
    journal.append(REPORT, REPORT)
    assert numbers(outbox.due(4)) == [14, 15, 5, 6]
    assert drain(outbox) == [[7, 8, 9, 10], [11]]
    outbox.start_over()
    again = {seq for batch in drain(outbox) for seq in batch}
    assert again == set(range(1, 16)), "whatever the order"


def test_a_replay_does_not_wait_for_a_long_past(journal, monkeypatch):
    monkeypatch.setattr(outbox_module, "_BACKLOG", 10)
    monkeypatch.setattr(outbox_module, "_NEWEST", 0)
    journal.append(*[REPORT] * 12)
    outbox = Outbox(journal)
    outbox.begin()
    journal.append(REPORT)
    assert numbers(outbox.due(1)) == [13]
    journal.mark_sent([13])
    assert outbox.replay(13, 13) is None
    assert 13 in numbers(outbox.due(1)) + numbers(outbox.due(1))


def test_a_turn_without_news_does_not_ask_the_database(journal, monkeypatch):
    journal.append(*[REPORT] * 3)
    outbox, asked = Outbox(journal), []
    unsent = journal.unsent
    monkeypatch.setattr(journal, "unsent", lambda *a, **k: asked.append(a) or unsent(*a, **k))
    outbox.begin()
    assert numbers(outbox.due(16)) == [1, 2, 3]
    assert outbox.due(16) == outbox.due(16) == []
    assert len(asked) == 1
    journal.append(*[REPORT] * 1)
    assert numbers(outbox.due(16)) == [4]


def test_what_the_broker_took_is_not_sent_again_before_it_is_marked(journal):
    journal.append(*[REPORT] * 3)
    outbox = Outbox(journal)
    outbox.begin()
    outbox.due(16)
    outbox.note_taken(2)
    outbox.start_over()
    assert numbers(outbox.due(16)) == [1, 3]
    assert journal.count_unsent() == 3
    outbox.mark()
    assert journal.count_unsent() == 2


def test_a_replay_gives_acknowledged_records_behind_all_others_and_a_stub_for_one_set_aside(journal):
    journal.append(*[REPORT] * 8)
    journal.mark_sent([1, 2, 3, 4, 6])
    journal.set_aside(2)
    outbox = Outbox(journal)
    outbox.begin()
    assert outbox.replay(2, 8) is None
    rows = outbox.due(5)
    assert numbers(rows) == [5, 7, 8, 2, 3]
    assert b'"left_out":["*"]' in rows[3].message
    assert rows[4].message == journal.rows(3, 3)[0].message
    assert drain(outbox) == [[4, 6]]


def test_a_refused_topic_is_tried_again_later_and_no_other_waits_for_it(journal):
    journal.append(*[REPORT, READING] * 20)
    now = 100.0
    outbox = Outbox(journal, clock=lambda: now)
    outbox.begin()
    assert numbers(outbox.due(4)) == [1, 2, 3, 4]
    outbox.hold_back(1)
    now = 110.0
    outbox.hold_back(3)
    assert numbers(outbox.due(17)) == list(range(6, 39, 2))
    assert drain(outbox) == [[40]]
    journal.mark_sent(range(2, 41, 2))
    now = 129.9
    assert drain(outbox) == []
    now = 130.0
    assert drain(outbox, 20) == [list(range(1, 41, 2))]


def test_a_topic_counts_as_refused_until_the_broker_takes_a_row_of_it(journal):
    journal.append(*[REPORT, READING] * 2)
    outbox = Outbox(journal)
    outbox.begin()
    assert not outbox.note_taken(2)
    outbox.hold_back(1)
    assert outbox.note_taken(4)  # of another topic
    outbox.begin()
    assert outbox.note_taken(2)
    assert not outbox.note_taken(3)


def test_one_replay_a_second_and_one_at_a_time(journal):
    journal.append(*[REPORT] * 3)
    journal.mark_sent([1, 2, 3])
    now = 100.0
    outbox = Outbox(journal, clock=lambda: now)
    outbox.begin()
    assert outbox.replay(1, 3) is None
    now = 105.0
    assert outbox.replay(1, 3).code == "BUSY", "the first is under way"
    assert drain(outbox) == [[1, 2, 3]]
    assert outbox.replay(1, REPLAY_ROWS) is None
    assert drain(outbox) == [[1, 2, 3]]
    now = 105.9
    assert outbox.replay(1, 3).code == "BUSY", "a second is not over"
    now = 106.0
    assert outbox.replay(1, 3) is None
    assert numbers(outbox.due(2)) == [1, 2]
    outbox.begin()
    assert drain(outbox) == [[1, 2, 3]], "what was under way may be lost"
    outbox.begin()
    assert drain(outbox) == []


def test_a_replay_of_what_is_not_there_is_refused_with_its_reason(journal):
    journal.append(*[REPORT] * 3)
    journal._db.execute("DELETE FROM record WHERE seq < 3")
    outbox = Outbox(journal)
    assert (refused := outbox.replay(1, 2)).code == "NOT_KEPT"
    assert "none of the records 1 to 2 any more" in refused.message
    assert (refused := outbox.replay(4, 9)).code == "NOT_WRITTEN"
    assert "from_seq is 4; expected at most 3" in refused.message
    assert outbox.replay(1, 3) is None
