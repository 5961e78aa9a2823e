"""When commands are sent: few at once, many together, and anything else than single changes without delay."""

from __future__ import annotations

import pytest

from pgnode.bus.commands import Kind
from pgnode.bus.gathering import (
    GROUP_ENOUGH,
    TOGETHER_SECONDS_EACH,
    TOGETHER_SECONDS_MAX,
    TURN_SHARE,
    VAIN_MAX,
    VAIN_PAUSE,
    Gathering,
)


def test_one_goes_at_once_and_the_next_ones_wait_for_its_answer() -> None:
    gathering = Gathering()
    assert gathering.queued(Kind.SYNC_USER, 1)
    assert gathering.may_send(1)
    gathering.begin_group()
    gathering.sent(1)
    assert not gathering.queued(Kind.SYNC_USER, 1)
    assert gathering.queued(Kind.SYNC_USER, GROUP_ENOUGH)
    assert not gathering.may_send(GROUP_ENOUGH - 1)
    assert gathering.may_send(GROUP_ENOUGH)
    assert gathering.ended(0, 1.0) == 0, "it was alone, so nobody else will ask again at once"
    assert gathering.may_send(1)
    assert not gathering.may_send(0)


def _turn(gathering: Gathering, waiting: int = 1, turn_seconds: float = 0.004) -> float:
    """One is sent, and answered while others wait."""
    gathering.begin_group()
    gathering.sent(1)
    return gathering.ended(waiting, turn_seconds)


def test_two_who_take_turns_come_to_go_together() -> None:
    gathering = Gathering()
    assert _turn(gathering) == 0.004 * TURN_SHARE
    assert not gathering.may_send(1)
    assert gathering.queued(Kind.SYNC_USER, 2)
    assert gathering.may_send(2)
    gathering.begin_group()
    gathering.sent(2)
    assert gathering.ended(0, 0.0) == 0
    assert gathering.ended(0, 0.0) == 3 * TOGETHER_SECONDS_EACH
    assert not gathering.queued(Kind.SYNC_USER, 1), "the other one asks again as well"
    assert gathering.queued(Kind.SYNC_USER, 2)


def test_where_nobody_comes_nobody_is_waited_for_for_a_while() -> None:
    gathering = Gathering()
    for _ in range(VAIN_MAX - 1):
        assert _turn(gathering)
        gathering.patience_over()
    assert _turn(gathering, waiting=3)
    assert not gathering.queued(Kind.SYNC_USER, 3), "somebody came in between"
    gathering.patience_over()
    for _ in range(VAIN_MAX):
        assert _turn(gathering)
        gathering.patience_over()
    assert [_turn(gathering) for _ in range(VAIN_PAUSE)] == [0.0] * VAIN_PAUSE
    assert _turn(gathering)


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.SYNC_USER}))
def test_everything_else_waits_for_nobody(kind: Kind) -> None:
    gathering = Gathering()
    gathering.sent(1)
    assert gathering.queued(kind, 1)
    assert gathering.may_send(1)
    gathering.begin_group()
    gathering.sent(0)
    assert not gathering.may_send(1)
    assert gathering.under_way == 1


def test_callers_that_were_answered_together_are_waited_for_together() -> None:
    gathering = Gathering()
    gathering.sent(8)
    assert [gathering.ended(0, 0.0) for _ in range(7)] == [0.0] * 7
    assert gathering.ended(0, 0.0) == 9 * TOGETHER_SECONDS_EACH
    assert repr(gathering) == "Gathering(0 under way, 6 awaited)"
    assert not gathering.may_send(5)
    assert gathering.may_send(6)
    gathering.patience_over()
    assert gathering.may_send(1)


def test_patience_has_an_end_and_a_group_that_begins_ends_it() -> None:
    gathering = Gathering()
    gathering.sent(200)
    assert [gathering.ended(0, 0.0) for _ in range(200)][-1] == TOGETHER_SECONDS_MAX
    assert not gathering.may_send(GROUP_ENOUGH - 1)
    gathering.begin_group()
    assert gathering.may_send(1)


def test_what_could_not_be_sent_is_under_way_no_more() -> None:
    gathering = Gathering()
    gathering.sent(8)
    for _ in range(8):
        gathering.unsent()
    assert gathering.may_send(1), "and nobody is waited for"
