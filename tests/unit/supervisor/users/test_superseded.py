"""Users who are changed while a bulk change is read: known to it, and to the store."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.supervisor.users.superseded import Superseded


def test_changes_are_kept_while_a_bulk_change_is_read() -> None:
    journal = Journal()
    superseded = Superseded(journal)
    superseded.add({"before"})
    reading = [superseded.reading]
    superseded.begin("1-0")
    keys = superseded.keys
    superseded.add({"alice"})
    superseded.add({"alice", "bob"})
    reading.append(superseded.reading)
    assert keys == {"alice", "bob"}
    assert journal.take().superseded == {"alice": "1-0", "bob": "1-0"}
    superseded.end()
    assert [*reading, superseded.reading] == [False, True, False]
    assert superseded.keys == set()
    assert journal.superseded == {"alice": None, "bob": None}


def test_a_command_that_comes_again_finds_who_was_changed_since() -> None:
    journal = Journal()
    superseded = Superseded(journal)
    superseded.restore({"alice": "1-0"})
    assert not superseded.reading
    superseded.begin("1-0")
    assert superseded.keys == {"alice"}
    assert not journal


def test_another_command_finds_nobody() -> None:
    journal = Journal()
    superseded = Superseded(journal)
    superseded.restore({"alice": "1-0"})
    superseded.begin("2-0")
    assert superseded.keys == set()
    assert journal.superseded == {"alice": None}
    superseded.add({"bob"})
    assert journal.superseded == {"alice": None, "bob": "2-0"}
