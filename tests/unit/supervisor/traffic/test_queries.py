"""What workers ask about traffic, with a fake for whoever hands it out."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pgnode.bus.commands import INBOUNDS, Command, Kind, Reply
from pgnode.errors import NotFoundError, NotInitializedError
from pgnode.store.changes import Journal
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.supervisor.traffic.queries import TrafficQueries
from pgnode.wire import service_pb2 as pb


class Stage:
    """Keeps in which order things were done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.reply = Reply()
        self.runs = True
        self.inbounds = InboundStats("auto", Journal())
        self.queries = TrafficQueries(
            cast(Any, self),
            self.inbounds,
            self,
            require_running=self.require_running,
            read=self.read,
            publish_age=self.publish_age,
            commit=self.commit,
        )

    def require_running(self) -> None:
        if not self.runs:
            raise NotInitializedError

    async def take(self, _command: Command) -> Reply:
        self.done.append("take")
        return self.reply

    async def read(self) -> str:
        self.done.append("read")
        return ""

    async def publish_age(self) -> None:
        self.done.append("age")

    async def commit(self) -> None:
        self.done.append("commit")

    def hurry(self) -> None:
        self.done.append("hurry")


def command(kind: Kind, body: bytes) -> Command:
    return Command("1-0", "1", kind, "worker", 10**15, body)


def wants(kind: Any, name: str = "") -> Command:
    return command(Kind.TAKE_STATS, pb.StatRequest(type=kind, name=name, reset=True).SerializeToString())


async def test_workers_hear_what_is_void_before_somebody_has_it() -> None:
    stage = Stage()
    stage.reply = Reply(b"taken", lent=0)
    assert await stage.queries.take(wants(pb.UsersStat)) == stage.reply
    assert stage.done == ["take", "age"]
    stage.reply = Reply()
    assert await stage.queries.take(wants(pb.UserStat, "nobody")) == Reply()
    assert stage.done == ["take", "age", "take"], "nothing was handed out"


async def test_whoever_reads_inbounds_wants_them_counted() -> None:
    stage = Stage()
    stage.inbounds.counted = False
    with pytest.raises(NotFoundError, match="not counted by this core"):
        await stage.queries.take(wants(pb.Inbound, "VLESS"))
    assert stage.done == ["commit", "take"]
    assert await stage.queries.take(wants(pb.Inbounds)) == Reply(), "no inbound, rather than zeros"
    stage.reply = Reply(b"owed since the core before", lent=0)
    assert await stage.queries.take(wants(pb.Inbound, "VLESS")) == stage.reply
    assert stage.done.count("commit") == 1


async def test_newer_figures_are_read_and_published_at_once() -> None:
    stage = Stage()
    assert await stage.queries.look(command(Kind.LOOK, b"")) == Reply()
    assert stage.done == ["read", "hurry"]
    assert await stage.queries.look(command(Kind.LOOK, INBOUNDS)) == Reply()
    assert stage.done == ["read", "hurry", "commit", "read", "hurry"]


@pytest.mark.parametrize("method", ["take", "look"])
async def test_without_a_core_there_is_nothing_to_ask(method: str) -> None:
    stage = Stage()
    stage.runs = False
    with pytest.raises(NotInitializedError):
        await getattr(stage.queries, method)(wants(pb.UsersStat))
    assert stage.done == []
