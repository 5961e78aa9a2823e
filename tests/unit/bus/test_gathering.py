"""When commands are sent: few at once, many together, and anything else than single changes without delay."""

from __future__ import annotations

import pytest

from pgnode.bus.commands import Kind
from pgnode.bus.gathering import GROUP_ENOUGH, TOGETHER_SECONDS_EACH, TOGETHER_SECONDS_MAX, Gathering


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
    assert gathering.ended(5) == 0, "it was alone, so nobody else will ask again at once"
    assert gathering.may_send(5)
    assert not gathering.may_send(0)


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
    assert [gathering.ended(0) for _ in range(7)] == [0.0] * 7
    assert gathering.ended(0) == 8 * TOGETHER_SECONDS_EACH
    assert repr(gathering) == "Gathering(0 under way, 6 awaited)"
    assert not gathering.may_send(5)
    assert gathering.may_send(6)
    gathering.patience_over()
    assert gathering.may_send(1)


def test_patience_has_an_end_and_a_group_that_begins_ends_it() -> None:
    gathering = Gathering()
    gathering.sent(200)
    assert [gathering.ended(0) for _ in range(200)][-1] == TOGETHER_SECONDS_MAX
    assert not gathering.may_send(GROUP_ENOUGH - 1)
    gathering.begin_group()
    assert gathering.may_send(1)


def test_what_could_not_be_sent_is_under_way_no_more() -> None:
    gathering = Gathering()
    gathering.sent(8)
    for _ in range(8):
        gathering.unsent()
    assert gathering.may_send(1), "and nobody is waited for"
