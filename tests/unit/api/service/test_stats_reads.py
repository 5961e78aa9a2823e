"""Statistics and who is online, from memory or on loan."""

from __future__ import annotations

import asyncio
import functools
import math

import pytest

from pgnode.api.service.freshness import Freshness
from pgnode.api.service.state import StateChecks
from pgnode.api.service.stats_reads import TAKE_STATS_SECONDS, StatsReads
from pgnode.api.service.tracked import TrackedResponse
from pgnode.bus.commands import INBOUNDS, Kind
from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.errors import CoreUnavailableError, InvalidRequestError, NotFoundError
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.unit.api.fakes import Node, status

ALICE = pb.StatsOnlineIpListResponse(name="alice", ips={"192.0.2.1": 1, "192.0.2.2": 2}).SerializeToString()


def request(name: str = "alice", *, reset: bool = False) -> bytes:
    return pb.StatRequest(type=pb.UserStat, name=name, reset=reset).SerializeToString()


@pytest.fixture
def node() -> Node:
    made = Node()
    made.reads.blocks = {
        "stats.users": IndexedBlock(pack([(name_hash("alice"), b"traffic")])),
        "online": IndexedBlock(pack([(name_hash("alice"), ALICE)])),
    }
    return made


@pytest.fixture
def reads(node: Node) -> StatsReads:
    checks = StateChecks(node.reads, node.refresh)
    return StatsReads(node.reads, node.commands, checks, write_timeout_seconds=30.0)


def test_the_second_time_an_answer_is_at_hand(reads: StatsReads) -> None:
    assert reads.stats_cached(request()) is None
    assert reads.stats(request()) == b"traffic"
    assert reads.stats_cached(request()) == b"traffic"
    assert reads.stats(request("nobody")) == reads.stats_cached(request("nobody")) == b""


async def test_what_is_taken_is_on_loan(node: Node, reads: StatsReads) -> None:
    node.commands.reply = b"taken"
    body = request(reset=True)
    assert reads.is_tracked(body)
    answer = reads.stats(body)
    assert not isinstance(answer, bytes | memoryview)
    found = await answer
    assert isinstance(found, TrackedResponse)
    found.settle(True)
    assert (found.body, node.commands.settled) == (b"taken", [True])
    assert node.commands.calls == [(Kind.TAKE_STATS, body, TAKE_STATS_SECONDS)]


@pytest.mark.parametrize("body", [request(), b"\xff", b"\x18\x09"])
def test_nothing_else_is_tracked(reads: StatsReads, body: bytes) -> None:
    assert not reads.is_tracked(body)


async def test_after_bad_news_others_are_waited_for(node: Node, reads: StatsReads) -> None:
    node.reads.status, node.news = status("starting"), status()
    for answer, expected in ((reads.stats(request()), b"traffic"), (reads.user_online_ips(request()), ALICE)):
        assert not isinstance(answer, bytes | memoryview)
        assert await answer == expected
        node.reads.status = status("starting")
    count = reads.user_online(request())
    assert not isinstance(count, bytes)
    assert pb.OnlineStatResponse.FromString(await count).value == 2


async def test_a_core_that_was_taken_over_is_read_before_its_figures_are_told(node: Node, reads: StatsReads) -> None:
    """A supervisor that has just begun has only what was stored."""
    node.reads.status, node.news = status("restoring"), status()
    node.reads.renew_at = node.reads.stale_at = -math.inf
    answer = reads.stats(request())
    assert not isinstance(answer, bytes | memoryview)
    waiting = asyncio.ensure_future(answer)
    await eventually(lambda: Kind.LOOK in [kind for kind, *_ in node.commands.calls], "newer ones are asked for")
    assert not waiting.done()
    node.reads.renew_at = node.reads.stale_at = math.inf
    node.reads.came.set()
    assert await waiting == b"traffic"


async def test_old_figures_are_renewed_first(node: Node, reads: StatsReads) -> None:
    assert reads.stats(request()) == b"traffic"
    node.reads.renew_at = node.reads.stale_at = 0.0
    assert reads.stats_cached(request()) is None
    for body, ask in ((request(), reads.stats), (request(), reads.user_online_ips)):
        answer = ask(body)
        assert not isinstance(answer, bytes | memoryview)
        waiting = asyncio.ensure_future(answer)
        await eventually(lambda: Kind.LOOK in [kind for kind, *_ in node.commands.calls], "newer ones are asked for")
        node.reads.renew_at = node.reads.stale_at = math.inf
        node.reads.came.set()
        assert await waiting in (b"traffic", ALICE)
        node.reads.renew_at = node.reads.stale_at = 0.0


async def test_what_was_handed_out_is_not_told(node: Node) -> None:
    checks = StateChecks(node.reads, node.refresh)
    freshness = Freshness(node.reads, node.commands, void_seconds=0.01)
    reads = StatsReads(node.reads, node.commands, checks, write_timeout_seconds=30.0, freshness=freshness)
    node.reads.void.add("stats.users")
    answer = reads.stats(request())
    assert not isinstance(answer, bytes | memoryview)
    with pytest.raises(CoreUnavailableError, match="made anew after a reset, try again"):
        await answer
    assert reads.user_online_ips(request()) == ALICE


async def test_what_has_come_is_heard_first(node: Node) -> None:
    """It says that what this worker has was handed out: to a caller who has the answer by now."""
    checks = StateChecks(node.reads, node.refresh)
    freshness = Freshness(node.reads, node.commands, void_seconds=0.01)
    reads = StatsReads(node.reads, node.commands, checks, write_timeout_seconds=30.0, freshness=freshness)
    handed_out = functools.partial(node.reads.void.add, "stats.users")
    assert reads.stats(request()) == reads.stats_cached(request()) == b"traffic"
    node.reads.unheard = [lambda: None, handed_out]
    assert reads.stats_cached(request()) is None
    answer = reads.stats(request())
    assert not isinstance(answer, bytes | memoryview)
    with pytest.raises(CoreUnavailableError, match="made anew after a reset, try again"):
        await answer


async def test_inbounds_that_are_not_counted_have_no_zero(node: Node, reads: StatsReads) -> None:
    one = pb.StatRequest(type=pb.Inbound, name="VLESS").SerializeToString()
    every = pb.StatRequest(type=pb.Inbounds).SerializeToString()
    node.reads.blocks["stats.inbounds"] = IndexedBlock(pack([]))
    assert reads.stats(one) == reads.stats_cached(one) == b""
    node.reads.inbounds_counted = False
    assert reads.stats_cached(one) is None
    with pytest.raises(NotFoundError, match="not counted by this core"):
        reads.stats(one)
    assert reads.stats(every) == b""
    await eventually(lambda: (Kind.LOOK, INBOUNDS) in [call[:2] for call in node.commands.calls], "they are wanted")
    node.reads.blocks["stats.inbounds"] = IndexedBlock(pack([(name_hash("VLESS"), b"owed")]))
    assert reads.stats(one) == b"owed"


def test_why_there_are_no_statistics(node: Node, reads: StatsReads) -> None:
    node.reads.too_old = "the core has not answered for 12 s"
    with pytest.raises(CoreUnavailableError, match="failed to get stats: the core has not answered"):
        reads.stats(request())
    node.reads.too_old, node.reads.blocks = "", {}
    with pytest.raises(CoreUnavailableError, match="failed to get stats: not read from the core yet"):
        reads.stats(request())
    with pytest.raises(InvalidRequestError, match="empty name"):
        reads.stats(request(""))


def test_who_is_not_online_is_not_found(reads: StatsReads) -> None:
    with pytest.raises(NotFoundError, match="online entry of user 'bob' not found"):
        reads.user_online(request("bob"))
    with pytest.raises(InvalidRequestError, match="empty name"):
        reads.user_online_ips(b"")
