"""How old a worker's copy of the statistics is, and when that is too old."""

from __future__ import annotations

import asyncio
import math

import pytest

from pgnode.bus import indexed
from pgnode.bus.snapshots import (
    ALL,
    BACKEND,
    NO_REVISION,
    ONLINE,
    POLLED,
    STATE,
    STATS_USERS,
    NodeStatus,
    Polled,
    Snapshot,
)
from pgnode.bus.state import State
from pgnode.worker.snapshots import LocalSnapshots
from tests.support.polling import next_turn


def reads(age_ms: int | None, error: str) -> LocalSnapshots:
    made = LocalSnapshots()
    made.take(Snapshot(POLLED, 1, 0, Polled(age_ms=age_ms, interval_ms=5_000, error=error).encode()))
    return made


def test_the_age_is_that_of_the_reading_and_not_of_the_news() -> None:
    age = reads(7_000, "").age_seconds()
    assert age is not None
    assert 7 <= age < 60
    assert reads(None, "").age_seconds() is None
    assert LocalSnapshots().age_seconds() is None


@pytest.mark.parametrize(
    ("age_ms", "error", "overdue"),
    [(11_000, "no answer", "no answer"), (2_000, "no answer", ""), (11_000, "", ""), (None, "no answer", "")],
)
def test_too_old_is_what_failed_for_two_intervals(age_ms: int | None, error: str, overdue: str) -> None:
    assert reads(age_ms, error).overdue() == overdue


STATUS = NodeStatus(State.RUNNING, True, "26.10.10", "0", "", 1)


def test_each_snapshot_is_kept_in_its_own_form() -> None:
    made = LocalSnapshots()
    assert (made.status, made.body(BACKEND), made.block(ONLINE)) == (None, None, None)
    assert repr(made) == "LocalSnapshots(nothing yet, 0)"
    made.take(Snapshot(STATE, 1, 0, STATUS.encode()))
    made.take(Snapshot(BACKEND, 1, 0, b"figures"))
    made.take(Snapshot(STATS_USERS, 1, 0, indexed.pack([(indexed.name_hash("alice"), b"hers")])))
    assert (made.status, made.body(BACKEND)) == (STATUS, b"figures")
    block = made.block(STATS_USERS)
    assert block is not None
    assert block.get("ALICE") == b"hers"
    assert repr(made) == "LocalSnapshots(running, 2)"


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"pgx2", b"pgx2\x05\0\0\0", b"\xff" * 100])
def test_what_cannot_be_read_leaves_what_was_there(body: bytes) -> None:
    made = LocalSnapshots()
    good = {STATE: STATUS.encode(), POLLED: Polled(1, 2, "").encode(), STATS_USERS: indexed.EMPTY}
    for name, data in good.items():
        made.take(Snapshot(name, 1, 0, data))
    before = (made.status, made.overdue(), made.block(STATS_USERS))
    for name in set(ALL) - {BACKEND, "system"}:
        made.take(Snapshot(name, 2, 0, body))
    assert (made.status, made.overdue(), made.block(STATS_USERS)) == before


def test_figures_are_renewed_before_they_are_stale() -> None:
    now = 100.0
    made = LocalSnapshots(lambda: now)
    assert (made.renew_at, made.stale_at) == (math.inf, math.inf), "nothing was read yet"
    made.take(Snapshot(POLLED, 1, 0, Polled(100, 5_000, "").encode()))
    assert now < made.renew_at < made.stale_at == pytest.approx(100.4)
    made.take(Snapshot(POLLED, 2, 0, Polled(100, 5_000, "", counters=20_001).encode()))
    assert made.stale_at == pytest.approx(101.9)
    made.take(Snapshot(POLLED, 3, 0, Polled(None, 5_000, "").encode()))
    assert made.stale_at == -math.inf, "a new supervisor has not read its core yet"


async def test_whoever_waits_learns_of_another_state() -> None:
    made = LocalSnapshots()
    waiting = asyncio.create_task(made.news())
    await next_turn()
    made.take(Snapshot(STATE, 1, 0, STATUS.encode()))
    await waiting
    assert made.status == STATUS


def test_a_block_that_shows_what_was_handed_out_is_void() -> None:
    made = LocalSnapshots()
    assert not made.is_void(STATS_USERS)
    made.take(Snapshot(STATS_USERS, 5, 0, indexed.EMPTY))
    assert made.fresh_block(STATS_USERS) is not None, "nothing is known of it yet"
    made.take(Snapshot(POLLED, 6, 0, Polled(0, 5_000, "", since={STATS_USERS: 5}).encode()))
    assert made.fresh_block(STATS_USERS) is not None
    made.take(Snapshot(POLLED, 7, 0, Polled(0, 5_000, "", since={STATS_USERS: NO_REVISION}).encode()))
    assert made.is_void(STATS_USERS)
    assert made.fresh_block(STATS_USERS) is None
    made.take(Snapshot(STATS_USERS, 8, 0, indexed.EMPTY))
    made.take(Snapshot(POLLED, 9, 0, Polled(0, 5_000, "", since={STATS_USERS: 8}, inbounds_counted=False).encode()))
    assert not made.is_void(STATS_USERS)
    assert made.inbounds_counted is False


async def test_whoever_waits_hears_of_newer_figures() -> None:
    made = LocalSnapshots()
    waiting = [asyncio.create_task(made.news()) for _ in range(2)]
    await next_turn()
    made.take(Snapshot(POLLED, 1, 0, Polled(0, 5_000, "").encode()))
    await asyncio.gather(*waiting)


def test_statistics_of_a_reading_that_failed_are_not_fresh() -> None:
    made = reads(0, "no answer")
    made.take(Snapshot(STATS_USERS, 1, 0, indexed.EMPTY))
    assert made.fresh_block(STATS_USERS) is None
    assert made.block(STATS_USERS) is not None
    made.take(Snapshot(POLLED, 2, 0, Polled(0, 5_000, "").encode()))
    assert made.fresh_block(STATS_USERS) is not None


def test_a_block_of_which_there_is_a_newer_one_elsewhere_is_told_when_that_came() -> None:
    wanted: list[str] = []
    made = LocalSnapshots(want=wanted.append)
    made.take(Snapshot(STATS_USERS, 1, 0, indexed.EMPTY))
    made.note_behind(STATS_USERS, 3)
    assert made.is_behind(STATS_USERS)
    assert made.fresh_block(STATS_USERS) is None
    assert made.block(STATS_USERS) is not None
    made.want(STATS_USERS)
    assert wanted == [STATS_USERS]
    made.take(Snapshot(STATS_USERS, 2, 0, indexed.EMPTY))
    assert made.is_behind(STATS_USERS)
    made.take(Snapshot(STATS_USERS, 3, 0, indexed.EMPTY))
    assert not made.is_behind(STATS_USERS)
