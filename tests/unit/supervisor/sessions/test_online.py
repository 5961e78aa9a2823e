"""Who is online is asked for in as few questions as there may be; of a batch those are read who are seen."""

from __future__ import annotations

from typing import Any, cast

from pgnode.supervisor.sessions.due import Batch
from pgnode.supervisor.sessions.online import ALONE_MAX, NAMED_MAX, SLICE, online_from, read_who_is_seen
from pgnode.supervisor.users.departures import Departure
from pgnode.testing.users import make_user
from tests.unit.supervisor.sessions.lines import line, ring_of, spec

INBOUNDS = {"in": spec("in")}


class Core:
    """Says who is online, and notes what it was asked."""

    def __init__(self, *online: str) -> None:
        self.stats = self
        self._online = {name: {"192.0.2.1": 5} for name in online}
        self.asked: list[str] = []

    async def online(self, _seconds: float) -> dict[str, dict[str, int]]:
        self.asked.append("all")
        return self._online

    async def online_users(self, _seconds: float) -> set[str]:
        self.asked.append("names")
        return set(self._online)

    async def online_ips(self, email: str, _seconds: float) -> dict[str, int] | None:
        self.asked.append(email)
        return self._online.get(email)


def named(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


async def test_few_are_asked_for_one_by_one() -> None:
    core = Core("user0")
    assert await online_from(cast("Any", core), named(ALONE_MAX), 1.0) == {"user0": {"192.0.2.1": 5}}
    assert core.asked == named(ALONE_MAX)


async def test_of_more_it_is_asked_first_who_is_online() -> None:
    core = Core("user0", "carol")
    assert await online_from(cast("Any", core), named(1000), 1.0) == {"user0": {"192.0.2.1": 5}}
    assert core.asked == ["names", "user0"]


async def test_where_many_are_online_all_are_read() -> None:
    core = Core("carol", *named(NAMED_MAX + 1))
    assert set(await online_from(cast("Any", core), named(1000), 1.0)) == set(named(NAMED_MAX + 1))
    assert core.asked == ["names", "all"]


def kept(*keys: str) -> Batch:
    batch = Batch()
    for key in keys:
        batch.keep(Departure(key, (make_user(key, ["in"]).SerializeToString(),), None, 0, 1.0))
    return batch


async def test_those_are_read_who_are_online_or_whom_a_line_is_about() -> None:
    batch = kept("alice", "bob", "carol", "da\x1bve")
    ring = ring_of(line("192.0.2.1:1", "bob"), line("192.0.2.1:2", "da\\x1bve"), line("192.0.2.1:3"))
    await read_who_is_seen(batch, cast("Any", Core("ALICE")), ring.oldest_first(), INBOUNDS, 1.0)
    assert set(batch.unread) == {"carol"}
    assert set(batch.entries) == {("alice", "in"), ("bob", "in"), ("da\x1bve", "in")}


async def test_without_an_api_everybody_is_read() -> None:
    batch = kept(*named(2 * SLICE))
    await read_who_is_seen(batch, None, [], INBOUNDS, 1.0)
    assert not batch.unread
    assert len(batch.entries) == 2 * SLICE


async def test_nobody_is_asked_where_all_are_read() -> None:
    core = Core("alice")
    batch = Batch()
    batch.add(Departure("alice", (make_user("alice", ["in"]).SerializeToString(),), None, 0, 1.0), INBOUNDS)
    await read_who_is_seen(batch, cast("Any", core), [], INBOUNDS, 1.0)
    assert core.asked == []
