"""A command that comes again while it is being done is not begun a second time."""

from __future__ import annotations

from pgnode.bus.commands import Command, Kind
from pgnode.bus.duplicates import ANSWER_BYTES, ANSWERS_KEPT, Duplicates


def command(name: str, entry_id: str = "1-0") -> Command:
    return Command(entry_id, name, Kind.STOP, "w", 1, b"")


def test_what_is_being_done_waits_for_its_end() -> None:
    found, a, b = Duplicates(), command("a"), command("b")
    assert found.hold([a, b]) == [a, b]
    assert found.further([a, b]) == []
    assert found.hold([command("a", "2-0"), command("a", "3-0")]) == []
    assert found.further([b, a]) == ["2-0", "3-0"]
    assert found.further([b]) == []
    assert repr(found) == "Duplicates(2 being done, 0 answered)"
    assert found.release([a, b]) == ["2-0", "3-0"]
    assert found.release([a]) == []
    assert found.further([a]) == []
    again = command("a", "4-0")
    assert found.hold([again]) == [again], "it was answered, or shall be taken again"


def test_a_command_that_comes_twice_at_once_is_begun_once() -> None:
    found, first, second = Duplicates(), command("a", "1-0"), command("a", "2-0")
    assert found.hold([first, second]) == [first]
    assert found.release([first]) == ["2-0"]


def test_how_it_was_answered_is_known_for_a_while() -> None:
    found = Duplicates()
    asked = [command("a"), command("large"), command("0")]
    assert found.answered(asked) == {}
    found.remember([("a", b" done"), ("large", bytes(ANSWER_BYTES + 1))])
    assert found.answered(asked) == {"a": b" done"}
    found.remember([(str(number), b" ") for number in range(ANSWERS_KEPT)])
    assert found.answered(asked) == {"0": b" "}
    assert repr(found) == f"Duplicates(0 being done, {ANSWERS_KEPT} answered)"
