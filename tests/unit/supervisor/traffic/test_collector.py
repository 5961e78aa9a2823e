"""Polls of many counters: whole readings are rare while users who are read account for all that moves, and nobody is lost."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.snapshots import ONLINE, STATS_INBOUNDS, STATS_OUTBOUNDS, STATS_USERS
from pgnode.store.changes import Journal
from pgnode.supervisor.traffic.attribution import TOLERATED_BYTES
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.traffic.figures import TrafficFigures
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.supervisor.traffic.poll_policy import PollPolicy
from pgnode.supervisor.traffic.storing import TrafficStoring
from pgnode.xray.client.api import CoreApi
from tests.support.polling import eventually, next_turn
from tests.unit.supervisor.traffic.fake_counters import IN, OUT, FakeCounters

TAGS = [("inbound", IN), ("outbound", OUT)]


class Polls:
    """Traffic that reads a fake core."""

    def __init__(self, *, counts_inbounds: bool = True, policy: PollPolicy | None = None) -> None:
        self.core = FakeCounters(counts_inbounds=counts_inbounds)
        self.tags = TAGS
        self.journal = Journal()
        self.inbounds = InboundStats("auto", self.journal)
        self.commits = 0
        self.figures = TrafficFigures(self.journal)
        self.traffic = TrafficCollector(
            self.figures,
            TrafficStoring(self.figures, self.commit),
            lambda: self.tags,
            interval_seconds=5,
            inbounds=self.inbounds,
            # Whatever the fake core has is a lot, and a whole reading may follow the one before at once.
            policy=policy if policy is not None else PollPolicy(few_counters=0, whole_share=1e9),
        )

    async def commit(self) -> None:
        self.commits += 1

    async def poll(self, *, scheduled: bool = True, exact: bool = False) -> list[str]:
        """The calls that it made, each once."""
        self.core.calls.clear()
        core = cast(CoreApi, self.core)
        assert await self.traffic.poll(core, "run", scheduled=scheduled and not exact, exact=exact) == ""
        return sorted(set(self.core.calls))

    @property
    def booked(self) -> int:
        ledger = self.figures.ledger
        return sum(
            entry.total
            for name in ledger.names()
            if name.startswith("user") and (entry := ledger.get(name)) is not None
        )

    @property
    def owed(self) -> int:
        ledger = self.figures.ledger
        entries = [ledger.get(name) for name in ledger.names() if name.startswith("user")]
        return sum(entry.owed for entry in entries if entry is not None)

    async def begin(self) -> None:
        """Alice and bob are online and were read."""
        for email in ("alice", "bob"):
            self.core.move(email, 1000, 1000)
            self.core.online.add(email)
        assert "whole" in await self.poll()
        await self.poll()


async def test_users_who_are_online_account_for_what_moves() -> None:
    polls = Polls()
    await polls.begin()
    for _ in range(20):
        polls.core.move("alice", 1_000_000, 50_000_000)
        polls.core.move("bob", 10, 0)
        assert await polls.poll() == ["by name", "online"]
        assert polls.booked == polls.core.moved_by_users


async def test_who_is_online_is_told_by_name() -> None:
    polls = Polls()
    await polls.begin()
    assert set(await polls.traffic.online_addresses()) == {"alice", "bob"}
    assert polls.traffic.addresses_of("alice") == (await polls.traffic.online_addresses())["alice"] > 0
    assert polls.traffic.addresses_of("nobody") == 0


async def test_who_came_and_went_is_found_at_once() -> None:
    polls = Polls()
    await polls.begin()
    for number in range(5):
        polls.core.move("alice", 5000, 5000)
        polls.core.move(f"short{number}", 2 * TOLERATED_BYTES, 0)
        assert "whole" in await polls.poll()
        assert polls.booked == polls.core.moved_by_users


async def test_little_is_found_when_it_becomes_much_and_before_the_core_ends() -> None:
    polls = Polls()
    await polls.begin()
    wholes = 0
    for number in range(12):
        polls.core.move(f"short{number}", TOLERATED_BYTES // 6, TOLERATED_BYTES // 6)
        wholes += "whole" in await polls.poll()
        assert polls.core.moved_by_users - polls.booked <= 1.1 * TOLERATED_BYTES
    assert 1 <= wholes <= 4
    polls.core.move("last", 1, 1)
    await polls.traffic.last_poll(cast(CoreApi, polls.core), "run")
    assert polls.booked == polls.core.moved_by_users


async def test_who_goes_offline_is_still_read() -> None:
    polls = Polls()
    await polls.begin()
    polls.core.move("bob", 7, 70_000_000)
    polls.core.online.discard("bob")
    assert await polls.poll() == ["by name", "online"]
    assert polls.booked == polls.core.moved_by_users


@pytest.mark.parametrize("tags", [[*TAGS, ("outbound", "")], [*TAGS, *(("inbound", str(n)) for n in range(64))]])
async def test_where_not_all_is_counted_by_name_nothing_is_taken_for_explained(tags: list[tuple[str, str]]) -> None:
    polls = Polls()
    polls.tags = tags
    await polls.begin()
    polls.core.move("alice", 1000, 1000)
    assert "whole" in await polls.poll()


async def test_whoever_asks_for_fresh_figures_gets_those_of_users_who_are_online() -> None:
    polls = Polls()
    await polls.begin()
    polls.core.move("alice", 1000, 1000)
    assert await polls.poll(scheduled=False) == ["by name", "online"]
    assert await polls.poll(scheduled=False) == ["by name", "online"], "who is online changes without a byte, too"


async def test_figures_that_were_read_a_moment_ago_are_not_read_again() -> None:
    polls = Polls()
    await polls.begin()
    polls.core.calls.clear()
    assert await polls.traffic.look(cast(CoreApi, polls.core), "run") == ""
    assert polls.core.calls == []
    assert await Polls().traffic.look(None, "") == "no core runs"


async def test_who_is_to_be_given_all_that_was_counted_does_not_share_a_reading_that_had_begun() -> None:
    polls = Polls()
    await polls.begin()
    polls.core.move("alice", 5, 5)
    core = cast(CoreApi, polls.core)
    polls.core.calls.clear()
    under_way = asyncio.create_task(polls.traffic.poll(core, "run", scheduled=True))
    await eventually(lambda: "online" in polls.core.calls, "users are read")
    polls.core.move("alice", 1_000_000, 1)
    polls.core.calls.clear()
    assert await asyncio.gather(*(polls.traffic.poll(core, "run", exact=True) for _ in range(9))) == [""] * 9
    await under_way
    assert polls.booked == polls.core.moved_by_users
    assert polls.core.calls.count("online") <= 2, "those share one who came before it began"


async def test_who_is_to_be_given_all_gets_what_somebody_moved_who_has_gone() -> None:
    polls = Polls(policy=PollPolicy(few_counters=0, whole_share=1e-9))
    await polls.begin()
    polls.core.move("short", 2 * TOLERATED_BYTES, 0)
    assert "whole" not in await polls.poll(), "it is too early for another whole reading"
    assert "whole" in await polls.poll(exact=True)
    assert polls.booked == polls.core.moved_by_users


async def test_what_is_blocked_is_found_without_counters_of_inbounds() -> None:
    polls = Polls(counts_inbounds=False)
    await polls.begin()
    assert polls.inbounds.counted is False
    assert await polls.poll() == ["by name", "online"]
    polls.core.move_blocked("alice", 700)
    assert await polls.poll(exact=True) == ["by name", "online"]
    assert polls.booked == polls.core.moved_by_users


async def test_an_outbound_without_a_tag_may_move_anything_where_inbounds_are_not_counted() -> None:
    polls = Polls(counts_inbounds=False)
    polls.tags = [*TAGS, ("outbound", "")]
    await polls.begin()
    assert "whole" in await polls.poll()


async def test_inbounds_that_are_not_counted_are_not_reported_as_zero() -> None:
    polls = Polls()
    await polls.begin()
    assert polls.inbounds.counted
    blocks = await polls.traffic.blocks()
    assert IndexedBlock(blocks[STATS_INBOUNDS]).get(IN)
    # The next core does not count them; nothing was handed out of what the first one counted.
    polls.core = FakeCounters(counts_inbounds=False)
    polls.core.move("alice", 10, 10)
    assert await polls.traffic.poll(cast(CoreApi, polls.core), "next run") == ""
    polls.figures.lend("loan:0", "inbound", [f"inbound>>>{IN}>>>traffic>>>{way}" for way in ("uplink", "downlink")])
    blocks = await polls.traffic.blocks()
    assert not IndexedBlock(blocks[STATS_INBOUNDS]).get(IN)
    assert polls.traffic.polled().inbounds_counted is False


async def test_a_core_that_serves_again_is_due_and_its_forerunners_error_is_over() -> None:
    polls = Polls()
    await polls.begin()
    polls.core.silent = True
    assert await polls.traffic.poll(cast(CoreApi, polls.core), "run", scheduled=True) != ""
    assert polls.traffic.polled().error != ""
    assert not polls.traffic.due.is_set()
    polls.figures.news.clear()
    polls.traffic.core_ready()
    assert polls.traffic.due.is_set()
    assert polls.figures.news.is_set()
    assert polls.traffic.polled().error == ""


async def test_a_reading_of_a_new_core_does_not_share_the_end_of_the_old_ones() -> None:
    polls = Polls()
    await polls.begin()
    old = asyncio.create_task(polls.traffic.poll(cast(CoreApi, polls.core), "run", scheduled=True))
    await next_turn()
    polls.core.silent = True
    fresh = FakeCounters()
    fresh.move("alice", 5, 5)
    assert await polls.traffic.poll(cast(CoreApi, fresh), "another", scheduled=False) == ""
    assert await old != ""
    assert polls.figures.ledger.run == 2
    assert polls.booked == polls.core.moved_by_users + fresh.moved_by_users


async def test_figures_are_not_said_to_be_of_a_reading_that_ended_while_they_were_made() -> None:
    polls = Polls()
    made = asyncio.create_task(polls.traffic.blocks())
    await next_turn()
    await polls.begin()
    await made
    assert polls.traffic.polled().age_ms is not None
    assert polls.traffic.polled(of_blocks=True).age_ms is None
    await polls.traffic.blocks()
    assert polls.traffic.polled(of_blocks=True).age_ms is not None


async def test_without_a_core_there_is_nothing_to_read() -> None:
    polls = Polls()
    assert await polls.traffic.poll(None, "") == "no core runs"
    await polls.traffic.last_poll(None, "")
    assert polls.commits == 0
    assert polls.traffic.polled().age_ms is None


async def test_what_a_core_counted_is_stored_before_it_ends_whatever_it_answers() -> None:
    polls = Polls()
    await polls.begin()
    polls.core.silent = True
    await polls.traffic.last_poll(cast(CoreApi, polls.core), "run")
    assert polls.commits == 1
    assert len(polls.journal.counters) == len(polls.core.counters)
    await polls.traffic.store_now()
    assert polls.commits == 2


async def test_what_a_core_counted_whose_books_were_lost_is_owed_to_nobody() -> None:
    polls = Polls()
    polls.core.move("alice", 1000, 1000)
    await polls.traffic.write_off(cast(CoreApi, polls.core), "run")
    assert polls.booked == polls.core.moved_by_users == 2000
    ledger = polls.figures.ledger
    assert not any(entry.owed for name in ledger.names() if (entry := ledger.get(name)) is not None)
    await polls.traffic.write_off(None, "")


async def test_a_core_that_is_silent_then_is_written_off_by_the_first_reading() -> None:
    polls = Polls()
    polls.core.move("alice", 1000, 1000)
    polls.core.silent = True
    told: list[str] = []
    await polls.traffic.write_off(cast(CoreApi, polls.core), "run", lambda: told.append("done"))
    assert (polls.booked, told) == (0, [])
    polls.core.silent = False
    polls.core.move("alice", 10, 10)
    await polls.poll()
    assert (polls.booked, polls.owed, told) == (2020, 0, ["done"])
    # What moves from now on is owed.
    polls.core.move("alice", 5, 0)
    await polls.traffic.last_poll(cast(CoreApi, polls.core), "run")
    assert polls.owed == 5


async def test_a_core_that_went_before_it_was_read_is_written_off_no_more() -> None:
    polls = Polls()
    polls.core.silent = True
    told: list[str] = []
    await polls.traffic.write_off(cast(CoreApi, polls.core), "another run", lambda: told.append("done"))
    polls.core.silent = False
    polls.core.move("alice", 10, 10)
    await polls.poll()
    assert (polls.owed, told) == (20, ["done"])


async def test_snapshots_say_who_is_online_and_what_moved() -> None:
    polls = Polls()
    await polls.begin()
    assert set(await polls.traffic.blocks()) == {ONLINE, STATS_USERS, STATS_INBOUNDS, STATS_OUTBOUNDS}
    assert set(await polls.traffic.blocks()) == {ONLINE}
    polled = polls.traffic.polled(99.0)
    assert (polled.counters, polled.interval_ms, polled.sent_at_ms, polled.error) == (8, 5000, 99, "")
    assert "PollPolicy" in repr(polls.traffic)


async def test_figures_that_are_being_handed_out_are_as_old_as_the_snapshot_that_shows_them() -> None:
    polls = Polls()
    await polls.begin()
    await polls.traffic.blocks()
    before = polls.traffic.polled(of_blocks=True).age_ms
    assert before is not None
    polls.figures.hold("user", 60)
    polls.core.move("alice", 1, 1)
    await polls.poll(exact=True)
    assert STATS_USERS not in await polls.traffic.blocks()
    behind = polls.traffic.polled(of_blocks=True).age_ms
    newest = polls.traffic.polled().age_ms
    assert behind is not None
    assert newest is not None
    assert polls.traffic._shown_at != polls.traffic._polled_at
    assert behind >= newest
    polls.figures.release("user")
    assert STATS_USERS in await polls.traffic.blocks()
    assert polls.traffic._shown_at == polls.traffic._polled_at
