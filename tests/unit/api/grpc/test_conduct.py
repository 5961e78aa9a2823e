"""What is borne of callers over gRPC, and what ends their connections."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from dataclasses import replace

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from pgnode.api.callers import AllowedCallers, WrongKeys
from pgnode.api.grpc.conduct import POLL_INTERVAL_SECONDS, SAY_SECONDS, Conduct, ConductLimits, peer_of
from pgnode.os_support.connections import Peer
from pgnode.testing.clock import ManualClock
from tests.support.polling import eventually, next_turn

LIMITS = ConductLimits(
    taken_back=10,
    taken_back_per_second=2,
    taken_back_again=2,
    strangers_bytes=1000,
)


class Stage:
    def __init__(self, *allowed: str, limits: ConductLimits = LIMITS) -> None:
        self.clock = ManualClock()
        self.ended: list[Peer] = []
        self.conduct = Conduct(
            self.clock,
            limits,
            self._end,
            wrong_keys=WrongKeys(3, self.clock.now),
            allowed=AllowedCallers(map(ipaddress.ip_network, allowed)),
        )

    def _end(self, peers: AbstractSet[Peer]) -> int:
        self.ended += sorted(peers)
        return len(peers)


def peer(port: int, host: str = "192.0.2.1") -> str:
    return f"ipv4:{host}:{port}"


async def test_a_stranger_who_comes_again_and_again_loses_each_connection() -> None:
    stage = Stage()
    for port in range(3):
        assert not stage.conduct.came_without_key(peer(port))
    await next_turn()
    assert stage.ended == []
    assert stage.conduct.came_without_key(peer(7))
    stage.conduct.came_without_key(peer(8, "192.0.2.2"))
    await eventually(lambda: stage.ended == [("192.0.2.1", 7)], "the one above the limit, and nobody else")
    stage.conduct.came_without_key(peer(9))
    await eventually(lambda: stage.ended[1:] == [("192.0.2.1", 9)], "and the next one")


async def test_strangers_who_come_now_and_then_are_refused_and_no_more() -> None:
    stage = Stage()
    for _ in range(100):
        stage.conduct.came_without_key(peer(1))
        stage.clock.seconds += 20.0
    assert stage.ended == []


async def test_who_takes_calls_back_as_fast_as_it_can_is_ended_and_borne_less_the_next_time() -> None:
    stage = Stage()
    for _ in range(10):
        stage.conduct.took_back(peer(1))
    assert stage.ended == []
    stage.conduct.took_back(peer(1))
    await eventually(lambda: stage.ended == [("192.0.2.1", 1)], "it is ended")
    for _ in range(2):
        stage.conduct.took_back(peer(2))
    assert len(stage.ended) == 1, "a call or two may be taken back by anybody"
    stage.conduct.took_back(peer(2))
    await eventually(lambda: stage.ended[1:] == [("192.0.2.1", 2)], "its next connection is ended sooner")
    stage.clock.seconds += 60.0
    for _ in range(10):
        stage.conduct.took_back(peer(3))
    assert len(stage.ended) == 2, "it is forgiven"


async def test_many_at_once_are_ended_together_and_said_in_one_line() -> None:
    stage = Stage()
    with capture_logs() as logged:
        for port in range(50):
            stage.conduct.came_without_key(peer(port))
        await eventually(lambda: len(stage.ended) == 47, "all above the limit are ended")
        assert [(line["event"], line["caller"]) for line in logged] == [("gRPC connection ended", "192.0.2.1")]
        stage.clock.seconds += SAY_SECONDS
        for port in range(50, 120):
            stage.conduct.came_without_key(peer(port))
        await eventually(lambda: len(stage.ended) > 50, "and others later")
    assert [line["more_before"] for line in logged] == [0, 46]


async def test_a_connection_that_is_being_ended_is_ended_once() -> None:
    stage = Stage()
    for _ in range(30):
        stage.conduct.took_back(peer(1))
    await eventually(lambda: stage.ended == [("192.0.2.1", 1)], "once")


class Watched(Stage):
    """A stage on which somebody looks at what comes."""

    def __init__(self, *allowed: str, limits: ConductLimits = LIMITS) -> None:
        super().__init__(*allowed, limits=limits)
        #: What has come from each caller; an error in its place is raised.
        self.received: dict[Peer, int] | OSError = {}
        self.looks = 0
        self.watching = asyncio.create_task(self.conduct.watch(self._look))

    def _look(self) -> dict[Peer, int]:
        self.looks += 1
        if isinstance(self.received, OSError):
            raise self.received
        return dict(self.received)

    async def look(self, received: dict[Peer, int] | OSError) -> None:
        """Have them looked at once more, with this to be found."""
        self.received = received
        await eventually(lambda: self.clock.pauses, "the last look is over")
        looks = self.looks
        await self.clock.advance(POLL_INTERVAL_SECONDS)
        await eventually(lambda: self.looks > looks and self.clock.pauses, "the look is over")


@pytest_asyncio.fixture
async def watched() -> AsyncIterator[Watched]:
    stage = Watched()
    yield stage
    stage.watching.cancel()


async def test_who_sends_much_and_does_not_show_the_key_loses_its_connection(watched: Watched) -> None:
    stranger, panel = Peer("192.0.2.1", 1), Peer("192.0.2.1", 2)
    watched.conduct.came_with_key(peer(2))
    with capture_logs() as logged:
        await watched.look({stranger: 1000, panel: 5000})
        assert watched.ended == []
        await watched.look({stranger: 2001, panel: 900_000})
        await eventually(lambda: watched.ended == [stranger], "the stranger's is ended, the panel's is not")
    assert logged[0]["cause"] == "its caller sends much and does not show the key"


async def test_of_too_many_connections_of_one_address_those_of_strangers_end_first() -> None:
    watched = Watched(limits=replace(LIMITS, connections=3))
    mine = {Peer("192.0.2.1", port): 0 for port in range(3)}
    watched.conduct.came_with_key(peer(0))
    watched.conduct.came_with_key(peer(1))
    await watched.look(mine | {Peer("192.0.2.2", 9): 0})
    assert watched.ended == []
    with capture_logs() as logged:
        await watched.look(mine | {Peer("192.0.2.1", 8): 0, Peer("192.0.2.2", 9): 0})
        await eventually(lambda: len(watched.ended) == 1, "one has to go")
    assert watched.ended[0] in (Peer("192.0.2.1", 2), Peer("192.0.2.1", 8))
    assert logged[0]["cause"] == "its caller's address has too many connections"
    # Where all have shown the key, the number counts all the same.
    for port in range(10, 15):
        watched.conduct.came_with_key(peer(port))
    await watched.look({Peer("192.0.2.1", port): 0 for port in range(10, 15)})
    await eventually(lambda: len(watched.ended) == 3, "two more")
    watched.watching.cancel()


async def test_who_sends_little_at_a_time_is_left_alone(watched: Watched) -> None:
    for count in range(10):
        await watched.look({Peer("192.0.2.1", 1): 900 * count})
    assert watched.ended == []


async def test_who_showed_the_key_is_known_for_as_long_as_its_connection_lasts(watched: Watched) -> None:
    panel = Peer("192.0.2.1", 1)
    watched.conduct.came_with_key(peer(1))
    await watched.look({panel: 5000})
    await watched.look(OSError("no /proc"))
    await watched.look({panel: 50_000})
    assert watched.ended == [], "a look that fails makes nobody a stranger"
    await watched.look({})
    await watched.look({panel: 5000})
    await eventually(lambda: watched.ended == [panel], "somebody else has its port")


async def test_a_right_key_does_not_help_who_may_not_call_and_wrong_ones_do_not_hurt_who_has_it() -> None:
    stage = Stage("203.0.113.0/24")
    for port in range(10):
        stage.conduct.came_without_key(peer(port, "203.0.113.5"))
    await eventually(lambda: len(stage.ended) == 7, "those with wrong keys are ended")
    assert stage.conduct.came_with_key(peer(20, "203.0.113.5"))
    assert stage.conduct.came_with_key(peer(20, "203.0.113.5"))
    assert stage.conduct.came_with_key(peer(21, "127.0.0.1"))
    assert stage.conduct.came_with_key("unix:/run/x")
    assert not stage.conduct.came_with_key(peer(22, "192.0.2.1"))
    await eventually(lambda: stage.ended[7:] == [("192.0.2.1", 22)], "the one who may not call is ended")
    assert (stage.conduct.not_allowed, stage.conduct.cut_off) == (1, 8)


async def test_who_may_not_call_is_ended_before_it_asks_for_anything() -> None:
    stage = Watched("203.0.113.0/24")
    with capture_logs() as logged:
        await stage.look({Peer("203.0.113.5", 1): 10, Peer("127.0.0.1", 2): 10, Peer("192.0.2.1", 3): 10})
        await eventually(lambda: stage.ended, "it is ended")
    stage.watching.cancel()
    # It may be seen in two looks here, where nothing really ends it.
    assert set(stage.ended) == {("192.0.2.1", 3)}, "and nobody else"
    assert [line["cause"] for line in logged] == ["its address is not in ALLOWED_CALLERS"]


async def test_callers_without_an_address_are_left_alone() -> None:
    stage = Stage()
    for _ in range(30):
        stage.conduct.took_back("unix:")
        stage.conduct.came_without_key("unix:/run/x")
    assert stage.ended == []
    assert "0 keys" in repr(stage.conduct)
    assert "0 addresses" in repr(stage.conduct)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ipv4:192.0.2.1:4711", Peer("192.0.2.1", 4711)),
        ("ipv6:%5B2001:db8::1%5D:4711", Peer("2001:db8::1", 4711)),
        ("ipv6:[::1]:5", Peer("::1", 5)),
        ("ipv6:%5Bfe80::1%25eth0%5D:5", Peer("fe80::1", 5)),
        ("unix:/run/x", None),
        ("", None),
    ],
)
def test_how_the_library_names_callers(name: str, found: Peer | None) -> None:
    assert peer_of(name) == found
