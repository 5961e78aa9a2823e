"""What outbounds moved beyond the users who were read is somebody else's; and what is none is not taken for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.traffic.attribution import TOLERATED_BYTES, TOLERATED_SHARE, ByteDelta, TrafficAttribution

SIZES = st.integers(0, 10_000_000)


def compared(made: TrafficAttribution, outbounds: ByteDelta, users: ByteDelta) -> TrafficAttribution:
    made.outbounds_moved(outbounds)
    made.users_moved(users)
    made.compare()
    return made


@given(st.lists(st.tuples(SIZES, SIZES), max_size=20))
def test_what_users_moved_is_explained(moves: list[tuple[int, int]]) -> None:
    made = TrafficAttribution()
    for up, down in moves:
        compared(made, ByteDelta(up, down), ByteDelta(up, down))
    assert (made.unexplained, made.lacking) == (0, False)


@given(st.integers(0, 5), SIZES, st.integers(TOLERATED_BYTES + 1, 10_000_000))
def test_whoever_was_not_read_is_missed(before: int, others: int, hidden: int) -> None:
    """Also after others moved what no outbound counted."""
    made = TrafficAttribution()
    for _ in range(before):
        compared(made, ByteDelta(), ByteDelta(up=others, down=others))
    tolerated = int((others + hidden) * TOLERATED_SHARE)
    compared(made, ByteDelta(down=others + hidden), ByteDelta(down=others))
    assert made.unexplained == max(0, hidden - tolerated)
    assert made.lacking == (hidden - tolerated > TOLERATED_BYTES)


def test_little_by_little_it_becomes_much() -> None:
    made = TrafficAttribution()
    for _ in range(20):
        compared(made, ByteDelta(up=TOLERATED_BYTES // 10), ByteDelta())
    assert made.lacking
    made.begin()
    assert not made.lacking


def test_users_who_were_left_out_are_missed_whatever_moved() -> None:
    made = TrafficAttribution()
    made.users_left_out()
    assert made.lacking
