"""A command that comes again while it is being done is not begun a second time."""

from __future__ import annotations

from pgnode.bus.duplicates import ANSWER_BYTES, ANSWERS_KEPT, Duplicates


def test_what_is_being_done_waits_for_its_end() -> None:
    found = Duplicates()
    assert found.hold("a", "1-0")
    assert found.hold("b", "1-0")
    assert not found.hold("a", "2-0")
    assert not found.hold("a", "3-0")
    assert found.entries("a") == ["2-0", "3-0"]
    assert found.entries("b") == []
    assert repr(found) == "Duplicates(2 being done, 0 answered)"
    assert found.release("a") == ["2-0", "3-0"]
    assert found.release("a") == []
    assert found.entries("a") == []
    assert found.hold("a", "4-0"), "it was answered, or shall be taken again"


def test_how_it_was_answered_is_known_for_a_while() -> None:
    found = Duplicates()
    assert found.answer("a") is None
    found.remember("a", b" done")
    found.remember("large", bytes(ANSWER_BYTES + 1))
    assert (found.answer("a"), found.answer("large")) == (b" done", None)
    for number in range(ANSWERS_KEPT):
        found.remember(str(number), b" ")
    assert found.answer("a") is None
    assert found.answer("0") == b" "
