"""A command that comes again while it is being done is not begun a second time."""

from __future__ import annotations

from pgnode.bus.duplicates import Duplicates


def test_what_is_being_done_waits_for_its_end() -> None:
    found = Duplicates()
    assert found.hold("a", "1-0")
    assert found.hold("b", "1-0")
    assert not found.hold("a", "2-0")
    assert not found.hold("a", "3-0")
    assert found.entries("a") == ["2-0", "3-0"]
    assert found.entries("b") == []
    assert repr(found) == "Duplicates(2 being done)"
    assert found.release("a") == ["2-0", "3-0"]
    assert found.release("a") == []
    assert found.entries("a") == []
    assert found.hold("a", "4-0"), "it was answered, or shall be taken again"
