"""How much a reading looks at: everything where that is cheap or due, little else, and never nothing while something moved."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.traffic.poll_policy import (
    FEW_COUNTERS,
    QUIET_WHOLE_SECONDS,
    WHOLE_SHARE,
    PollPolicy,
    Reading,
    Watermarks,
)

MANY = FEW_COUNTERS + 1


def read(
    policy: PollPolicy,
    now: float,
    marks: Watermarks,
    counters: int,
    *,
    run: str = "run",
    took_seconds: float = 0.3,
    lacking: bool = False,
) -> Reading:
    """A scheduled reading, chosen and made."""
    reading = policy.choose(now, run, marks, counters, scheduled=True, lacking=lacking)
    policy.done(now, run, marks, reading, took_seconds, lacking=lacking and reading is not Reading.WHOLE)
    return reading


def test_a_new_core_run_is_read_as_a_whole() -> None:
    policy = PollPolicy()
    assert read(policy, 0, (1,), MANY) is Reading.WHOLE
    assert read(policy, 1, (1,), MANY, run="another") is Reading.WHOLE


def test_the_end_of_a_movement_is_read_once_more_and_then_nothing() -> None:
    policy = PollPolicy()
    assert [read(policy, at, (1,), 10) for at in range(4)] == [
        *(Reading.WHOLE, Reading.WHOLE),
        *(Reading.SKIP, Reading.SKIP),
    ]
    assert read(policy, 4, (2,), 10) is Reading.WHOLE


def test_who_is_to_be_given_all_reads_what_no_mark_tells_of() -> None:
    policy = PollPolicy()
    read(policy, 0, (1,), MANY)
    assert policy.choose(1, "run", (1,), MANY, scheduled=False, lacking=False) is Reading.SKIP
    assert policy.choose(1, "run", (1,), MANY, scheduled=False, lacking=False, exact=True) is Reading.ONLINE
    read(policy, 1, (1,), MANY)
    choose = partial(policy.choose, 2, "run", (1,), MANY, scheduled=False, lacking=False)
    assert choose(exact=True) is Reading.SKIP, "nothing moved since"
    assert choose(exact=True, all_marked=False) is Reading.ONLINE
    assert choose(all_marked=False) is Reading.SKIP


def test_marks_that_stand_still_are_not_believed_for_ever() -> None:
    policy = PollPolicy()
    read(policy, 0, (1,), 10)
    read(policy, 1, (1,), 10)
    assert policy.choose(1 + QUIET_WHOLE_SECONDS - 0.1, "run", (1,), 10, scheduled=True, lacking=False) is Reading.SKIP
    assert policy.choose(1 + QUIET_WHOLE_SECONDS, "run", (1,), 10, scheduled=True, lacking=False) is Reading.WHOLE


def test_of_many_counters_those_online_are_read_while_they_account_for_what_moved() -> None:
    policy = PollPolicy()
    read(policy, 0, (1,), MANY)
    due = 0.3 / WHOLE_SHARE
    assert read(policy, due / 2, (2,), MANY, lacking=True) is Reading.ONLINE
    assert read(policy, due + 0.1, (3,), MANY) is Reading.ONLINE
    assert read(policy, due + 0.2, (4,), MANY, lacking=True) is Reading.WHOLE
    assert read(policy, due + 0.1 + QUIET_WHOLE_SECONDS, (5,), MANY) is Reading.ONLINE
    assert read(policy, due + 0.2 + QUIET_WHOLE_SECONDS, (6,), MANY) is Reading.WHOLE


def test_with_many_counters_the_end_of_a_movement_is_read_until_nothing_is_lacking() -> None:
    policy = PollPolicy()
    read(policy, 0, (1,), MANY)
    assert [read(policy, 1, (1,), MANY), read(policy, 2, (1,), MANY)] == [Reading.ONLINE, Reading.SKIP]
    assert read(policy, 3, (2,), MANY, lacking=True) is Reading.ONLINE
    assert read(policy, 4, (2,), MANY, lacking=True) is Reading.ONLINE
    assert read(policy, 0.3 / WHOLE_SHARE + 0.1, (2,), MANY, lacking=True) is Reading.WHOLE
    assert read(policy, 0.3 / WHOLE_SHARE + 0.2, (2,), MANY) is Reading.SKIP


def test_without_marks_something_may_have_moved() -> None:
    policy = PollPolicy()
    read(policy, 0, None, 10)
    read(policy, 1, None, 10)
    assert policy.choose(2, "run", None, 10, scheduled=False, lacking=False) is Reading.WHOLE


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2 * FEW_COUNTERS), st.booleans()),
        max_size=40,
    )
)
def test_a_mark_that_moved_is_never_answered_with_nothing(steps: list[tuple[int, bool, int, bool]]) -> None:
    policy, seen = PollPolicy(), -1
    for now, (mark, scheduled, counters, lacking) in enumerate(steps):
        reading = policy.choose(now, "run", (mark,), counters, scheduled=scheduled, lacking=lacking)
        if mark != seen:
            assert reading is not Reading.SKIP
        policy.done(now, "run", (mark,), reading, 0.3, lacking=lacking)
        seen = mark
