"""Ids of stream entries are compared as numbers."""

from __future__ import annotations

from pgnode.bus.stream_ids import BEGINNING, added_at_ms, entry_order


def test_entries_are_ordered_by_time_and_number() -> None:
    ids = ["9-0", "10-2", "10-10", "1764000000000-0"]
    assert sorted(ids, key=entry_order) == ids != sorted(ids)
    assert all(entry_order(BEGINNING) < entry_order(entry_id) for entry_id in ids)


def test_an_id_tells_when_its_entry_was_added() -> None:
    assert added_at_ms("1764000000000-7") == 1764000000000
