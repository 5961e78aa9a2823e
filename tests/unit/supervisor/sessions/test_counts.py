"""What was left is counted by reason, and remembered of the last users."""

from __future__ import annotations

from pgnode.supervisor.sessions.counts import LEFT, USERS_MAX, LeftUser, SessionCounts
from pgnode.supervisor.sessions.plan import LEFT_WORDS, SHARED, UDP


def test_what_is_left_is_counted_and_remembered() -> None:
    counts = SessionCounts()
    counts.cut["line"] += 3
    counts.leave([("alice", UDP), ("bob", SHARED), ("alice", SHARED)], 5.0)
    assert counts.left == {UDP: 1, SHARED: 2}
    assert counts.users == {"alice": LeftUser(5.0, (SHARED, UDP)), "bob": LeftUser(5.0, (SHARED,))}
    assert repr(counts) == "SessionCounts(3 cut, 3 left)"
    assert LEFT_WORDS.keys() == set(LEFT)


def test_only_the_last_users_are_remembered() -> None:
    counts = SessionCounts()
    counts.leave([(f"user{number}", UDP) for number in range(USERS_MAX + 2)], 5.0)
    assert len(counts.users) == USERS_MAX
    assert "user0" not in counts.users
