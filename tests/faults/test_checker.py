"""The checker itself: which states are allowed after which calls."""

from __future__ import annotations

from typing import Any, cast

from tests.faults.checker import Call, Record, _FullSet


def record(*calls: Call) -> Record:
    return Record(cast(Any, None), {"a": b"first"}, list(calls))


def test_without_calls_it_stays() -> None:
    assert record().allowed() == {"a": {b"first"}}


def test_an_answered_change_holds() -> None:
    assert record(Call({"a": b"new"}, 1, 2, True)).allowed() == {"a": {b"new"}}
    assert record(Call({"a": None}, 1, 2, True)).allowed() == {"a": {None}}


def test_of_an_unanswered_one_nobody_knows() -> None:
    assert record(Call({"a": b"new"}, 1, 2, False)).allowed() == {"a": {b"first", b"new"}}


def test_the_later_one_wins_and_of_two_at_once_either() -> None:
    first, second = Call({"a": b"one"}, 1, 2, True), Call({"a": b"two"}, 3, 4, True)
    assert record(second, first).allowed() == {"a": {b"two"}}
    overlapping = Call({"a": b"three"}, 1.5, 3.5, True)
    assert record(first, overlapping).allowed() == {"a": {b"one", b"three"}}
    unanswered_before = Call({"a": b"lost"}, 1, 2, False)
    assert record(unanswered_before, second).allowed() == {"a": {b"two"}}


def test_a_full_set_wants_everybody_else_away() -> None:
    everybody = Call(_FullSet({"b": b"b"}), 1, 2, True)
    assert record(everybody).allowed() == {"a": {None}, "b": {b"b"}}
    later = Call({"a": b"back"}, 3, 4, True)
    assert record(everybody, later).allowed() == {"a": {b"back"}, "b": {b"b"}}
