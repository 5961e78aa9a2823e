"""Who is gone is looked after in the background: by lines, by addresses, late lines; faults end nothing else. On a model core."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.os_support.tcp_ends import Connection, Seen
from pgnode.store.changes import Journal
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.sessions.counts import BY_ADDRESS, BY_LINE
from pgnode.supervisor.sessions.cutter import AGAIN_MAX, Cutter
from pgnode.supervisor.sessions.due import Batch
from pgnode.supervisor.sessions.plan import ADDRESS, UNREACHABLE
from pgnode.supervisor.users.decoding import Inbounds
from pgnode.supervisor.users.departures import Departures
from pgnode.supervisor.users.table import UserTable
from pgnode.testing.users import make_user
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.process.reach import UnreachableError
from pgnode.xray.process.reach_messages import Question
from tests.support.polling import eventually
from tests.unit.supervisor.sessions.lines import line, spec

INBOUNDS = {"in": spec("in"), "else": spec("else", port=444)}


class Model:
    """A core with connections, its log and who is online; and the users' table, by which it changes."""

    def __init__(self, **limits: Any) -> None:
        self.running: Any = SimpleNamespace(pid=1)
        self.api: Any = SimpleNamespace(stats=self)
        #: What the core's runs are called, one question after the other; the last one stays.
        self.runs = ["run"]
        self.ends_told_since: int | None = 1
        self.ring = LogRing(10_000)
        #: (address, port, tag) -> user.
        self.open: dict[tuple[str, int, str], str] = {}
        self.closed: list[tuple[str, int, str]] = []
        self.faults: list[Exception] = []
        #: Happens once, right after the first connection was ended.
        self.then: Callable[[], None] = lambda: None
        #: Happens once, when the core is looked into.
        self.before_look: Callable[[], None] = lambda: None
        self.moved = 0
        self.asked = 0
        journal = Journal()
        self.journal = journal
        self.table = UserTable(journal)
        self.departures = Departures(journal, place=lambda: self.ring.next_number, now=lambda: 1000.0, wanted=True)
        self.cutter = Cutter(
            self.departures,
            cast("Any", self),
            self.ring,
            lambda: INBOUNDS,
            look=self.look,
            moved=self._moved,
            **{"later_seconds": (0.01, 0.01), "again_seconds": 0.01, **limits},
        )

    @property
    def run_id(self) -> str:
        return self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]

    def _moved(self) -> None:
        self.moved += 1

    async def look(self, _running: Any, asked: Question) -> Seen:
        self.asked += 1
        before, self.before_look = self.before_look, lambda: None
        before()
        if self.faults:
            raise self.faults.pop(0)
        seen = Seen()
        for place, door in enumerate(asked.doors):
            for end in list(self.open):
                connection = Connection(end[0], end[1], "192.0.2.9", INBOUNDS[end[2]].ports[0][0])
                if door.takes(connection):
                    if asked.listed:
                        seen.found.append((place, connection))
                    if (end[0], end[1], place) in asked.targets:
                        del self.open[end]
                        self.closed.append(end)
                        seen.cut.append((end[0], end[1], place))
                        then, self.then = self.then, lambda: None
                        then()
        return seen

    async def online(self, _seconds: float) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (address, _, _), user in self.open.items():
            found.setdefault(user, {})[address] = 5
        return found

    async def online_users(self, seconds: float) -> set[str]:
        return set(await self.online(seconds))

    async def online_ips(self, email: str, seconds: float) -> dict[str, int] | None:
        return (await self.online(seconds)).get(email)

    def connect(self, user: str, port: int, *, tag: str = "in", address: str = "192.0.2.1", told: bool = True) -> None:
        self.open[address, port, tag] = user
        if told:
            self.ring.put(line(f"{address}:{port}", user, tag=tag), float(port), 1)

    def change(self, email: str, *tags: str, key: str = "") -> None:
        """Give a user accounts in these inbounds."""
        user = make_user(email, tags, key=key).SerializeToString() if tags else None
        self.table.put(email, user)
        place = self.departures.place(self.table, [email])
        self.departures.settled(self.table, [email], place)
        self.table.core_has([email])

    async def done(self) -> None:
        """Wait until nothing is to be done any more."""
        await eventually(lambda: "(0 waiting, 0 open)" in repr(self.departures), "all is looked after")

    @contextlib.asynccontextmanager
    async def works(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.cutter.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def after(change: Callable[[Model], None], **limits: Any) -> Model:
    """Two users with connections, and what one change makes of them."""
    model = Model(**limits)
    for name in ("alice", "bob"):
        model.change(name, "in", "else")
    model.connect("alice", 1)
    model.connect("alice", 2, tag="else")
    model.connect("bob", 3)
    async with model.works():
        change(model)
        await model.done()
    return model


async def test_who_is_removed_loses_all_connections_and_nobody_else() -> None:
    model = await after(lambda model: model.change("alice"))
    assert list(model.open.values()) == ["bob"]
    assert model.cutter.counts.cut == {BY_LINE: 2}
    assert model.moved == 1
    assert model.journal.departed_done == model.journal.departed["alice"].generation


async def test_who_is_taken_out_of_an_inbound_keeps_the_others() -> None:
    model = await after(lambda model: model.change("alice", "in"))
    assert model.closed == [("192.0.2.1", 2, "else")]


async def test_who_comes_back_keeps_what_is_new() -> None:
    def back(model: Model) -> None:
        model.change("alice")
        model.change("alice", "in", "else")
        model.connect("alice", 7)

    model = await after(back)
    assert sorted(model.open) == [("192.0.2.1", 3, "in"), ("192.0.2.1", 7, "in")]


async def test_who_comes_back_in_the_grace_keeps_what_is_new() -> None:
    model = Model(grace_seconds=0.2)
    model.change("alice", "in")
    model.connect("alice", 1)
    async with model.works():
        model.change("alice")
        await eventually(lambda: "Cutter(1 batches" in repr(model.cutter), "it waits for its time")
        model.change("alice", "in")
        model.connect("alice", 7)
        await model.done()
    assert model.closed == [("192.0.2.1", 1, "in")]


async def test_who_is_being_put_back_keeps_what_is_new_before_that_is_settled() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.change("alice")
    model.table.put("alice", b"")
    # The core is being told, and somebody connects before it has answered.
    model.departures.place(model.table, ["alice"])
    model.connect("alice", 7)
    async with model.works():
        await model.done()
    assert model.closed == [("192.0.2.1", 1, "in")]


async def test_a_connection_whose_line_comes_late_ends_too() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.then = lambda: model.connect("alice", 2)
    async with model.works():
        model.change("alice")
        await model.done()
    assert not model.open


async def test_an_end_that_is_used_again_is_left() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.then = lambda: model.connect("bob", 1, told=False)
    async with model.works():
        model.change("alice")
        await model.done()
    assert list(model.open.values()) == ["bob"]


async def test_without_lines_addresses_tell() -> None:
    model = Model()
    model.ends_told_since = None
    for name in ("alice", "bob"):
        model.change(name, "in")
    model.connect("alice", 1, told=False)
    model.connect("alice", 2, address="192.0.2.2", told=False)
    model.connect("bob", 3, told=False)
    async with model.works():
        model.change("alice")
        await model.done()
    assert model.closed == [("192.0.2.2", 2, "in")]
    assert model.cutter.counts.cut == {BY_ADDRESS: 1}
    assert model.cutter.counts.left == {ADDRESS: 1}


async def test_what_is_too_old_for_the_log_is_told_from_what_is_new() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1, told=False)
    async with model.works():
        model.change("alice", "in", key="new")
        model.connect("alice", 2)
        await model.done()
    assert model.closed == [("192.0.2.1", 1, "in")]


async def test_many_at_once_are_asked_for_together() -> None:
    model = Model()
    names = [f"user{number}" for number in range(300)]
    for port, name in enumerate(names, 1):
        model.change(name, "in")
        model.connect(name, port, told=port % 2 == 0, address=f"192.0.{2 + port // 250}.{port % 250}")
    model.change("bob", "in")
    model.connect("bob", 999, address="198.51.100.1")
    async with model.works():
        for name in names:
            model.change(name)
        await model.done()
    assert list(model.open.values()) == ["bob"]


async def test_of_very_many_those_are_read_who_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    read, read_one = [], Batch.read

    def note(batch: Batch, key: str, inbounds: Inbounds) -> None:
        read.append(key)
        read_one(batch, key, inbounds)

    monkeypatch.setattr(Batch, "read", note)
    model = Model(later_seconds=(0.2, 0.2), read_max=20)
    names = [f"user{number}" for number in range(60)]
    for name in (*names, "carol"):
        model.change(name, "in")
    model.connect("user1", 1)
    model.connect("user2", 2, address="192.0.2.2", told=False)
    model.connect("user3", 3)
    # Nobody is online through it, and a line tells.
    model.connect("carol", 4)
    async with model.works():
        for name in names[1:]:
            model.change(name)
        model.change("user3", "in", key="new")
        model.connect("user3", 33)
        model.change("carol")
        await eventually(lambda: model.asked > 1, "the first look has been")
        # The first was checked before it was removed, and is seen late; the second came back, and comes later.
        model.connect("user4", 5)
        model.change("user5", "in")
        model.connect("user5", 6)
        await model.done()
    assert sorted(model.open.values()) == ["user3", "user5"]
    assert ("192.0.2.1", 33, "in") in model.open
    assert set(read) == {"user1", "user2", "user3", "user4", "user5", "carol"}


async def test_where_nobody_is_connected_nobody_is_looked_after() -> None:
    model = Model()
    for name in ("alice", "bob"):
        model.change(name, "in")
    async with model.works():
        model.change("alice")
        model.change("bob", "in", key="another")
        await model.done()
    assert model.asked == 1
    assert model.journal.departed_done == max(user.generation for user in model.journal.departed.values())


async def test_who_comes_back_while_nobody_else_is_connected_keeps_what_is_new() -> None:
    model = Model(grace_seconds=0.5)
    model.change("alice", "in")
    model.connect("alice", 1)
    async with model.works():
        model.change("alice")
        await eventually(lambda: "Cutter(1 batches" in repr(model.cutter), "it waits for its time")
        model.change("alice", "in")
        model.connect("alice", 7)
        model.change("bob", "in")
        model.change("bob")
        await model.done()
    assert model.closed == [("192.0.2.1", 1, "in")]


async def test_what_fails_is_tried_again() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    # The first one where it is asked whether anybody is connected.
    model.faults = [OSError("no"), OSError("not now"), CoreApiError("not now", ErrorKind.UNAVAILABLE)]
    async with model.works():
        model.change("alice")
        await model.done()
    assert not model.open
    assert model.cutter.counts.failures == 2


async def test_what_goes_on_failing_is_given_up() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.faults = [OSError("never")] * (AGAIN_MAX + 5)
    async with model.works():
        model.change("alice")
        await model.done()
    assert model.asked == 1 + AGAIN_MAX


async def test_a_fault_of_its_own_ends_one_batch_only() -> None:
    model = Model()
    for port, name in enumerate(("alice", "bob"), 1):
        model.change(name, "in")
        model.connect(name, port)
    model.faults = [KeyError("a fault"), KeyError("a fault")]
    async with model.works():
        model.change("alice")
        await model.done()
        model.change("bob")
        await model.done()
    assert list(model.open.values()) == ["alice"]


async def test_a_core_that_cannot_be_looked_into_is_said_once() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.faults = [UnreachableError("no")] * 4
    async with model.works():
        model.change("alice")
        await model.done()
        model.change("alice", "in")
        model.change("alice")
        await model.done()
    assert model.open
    assert model.cutter.counts.left == {UNREACHABLE: 2}


async def test_with_the_core_everything_ends() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.runs = ["run", "another"]
    model.change("alice")
    async with model.works():
        await eventually(lambda: len(model.runs) == 1 and "Cutter(0" in repr(model.cutter), "it is given up")
    assert model.open
    # Whether anybody is connected.
    assert model.asked == 1


async def test_an_operator_ends_what_there_is() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.connect("alice", 2, told=False)
    async with model.works():
        assert await model.cutter.disconnect("alice", "alice") == 1
        model.connect("alice", 7)
        await eventually(lambda: len(model.closed) == 2, "what no line tells ends, too")
        await eventually(lambda: "Cutter(0 batches" in repr(model.cutter), "it comes to its end")
    assert list(model.open) == [("192.0.2.1", 7, "in")]


async def test_all_connections_are_shown() -> None:
    model = Model()
    model.connect("alice", 1)
    assert await model.cutter.connections() == [("in", Connection("192.0.2.1", 1, "192.0.2.9", 443))]
    model.running = None
    assert await model.cutter.connections() == []


async def test_who_is_back_with_a_new_core_keeps_what_is_new() -> None:
    model = Model()
    model.change("alice", "in")
    model.connect("alice", 1)
    model.change("alice")

    def exchanged() -> None:
        model.runs = ["another"]
        model.open.clear()
        model.departures.forget_all()
        model.change("alice", "in")
        model.connect("alice", 7)

    model.before_look = exchanged
    async with model.works():
        await eventually(
            lambda: model.runs == ["another"], "the core ends while it is asked whether anybody is connected"
        )
        # Looked after once more, when all of that has been.
        model.change("bob", "in")
        model.connect("bob", 3)
        model.change("bob")
        await model.done()
    assert list(model.open.values()) == ["alice"]
