"""Handing out on loan: nothing is given twice, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pgnode.bus.commands import Command, Kind, Reply, settlement
from pgnode.errors import CoreUnavailableError, InvalidRequestError
from pgnode.os_support.aio import end_tasks
from pgnode.store.changes import Journal
from pgnode.store.lent_bytes import count_lent
from pgnode.store.rows import LedgerRow
from pgnode.store.state import StoredState
from pgnode.supervisor.traffic import payouts as module
from pgnode.supervisor.traffic.figures import TrafficFigures
from pgnode.supervisor.traffic.payouts import Payouts
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually, next_turn


def up(user: str) -> str:
    return f"user>>>{user}>>>traffic>>>uplink"


class Stage:
    """Some users who moved something, and workers that ask for it."""

    def __init__(self, **options: Any) -> None:
        self.journal = Journal()
        self.figures = TrafficFigures(self.journal)
        self.error = ""
        self.alive = {"worker"}
        self.away = False
        self.commits = 0
        self.number = 0
        self.made_while_read: dict[str, bytes] = {}
        self.payouts = Payouts(
            self.figures,
            self.journal,
            read=self.read,
            alive=self.alive_of,
            commit=self.commit,
            **{"wait_seconds": 0.1, "poll_seconds": (0.01, 0.02), **options},
        )

    async def read(self) -> str:
        self.made_while_read = await self.figures.blocks()
        return self.error

    async def alive_of(self, workers: Sequence[str]) -> set[str]:
        if self.away:
            raise ConnectionError("the bus is away")
        return self.alive & set(workers)

    async def commit(self) -> None:
        self.commits += 1

    async def moved(self, *users: str, value: int = 10) -> None:
        await self.figures.count("run", [(up(user), value) for user in users])

    def command(self, kind: int = pb.UsersStat, name: str = "", worker: str = "worker") -> Command:
        self.number += 1
        body = pb.StatRequest(type=kind, name=name, reset=True).SerializeToString()  # type: ignore[arg-type]
        return Command(f"{self.number}-0", str(self.number), Kind.TAKE_STATS, worker, 10**15, body)

    async def settle(self, loan: str, *, delivered: bool) -> None:
        command = self.command()
        command.body = settlement(loan, delivered=delivered)
        assert await self.payouts.settle(command) == Reply()

    @property
    def owed(self) -> int:
        return sum(entry.free for name in self.figures.ledger.names() if (entry := self.figures.ledger.get(name)))


def given(reply: Reply) -> dict[str, int]:
    bodies = [reply.body, *(reply.parts or [])]
    return {stat.name: stat.value for body in bodies for stat in pb.StatResponse.FromString(body).stats}


async def test_what_was_delivered_is_reported() -> None:
    stage = Stage()
    await stage.moved("a", "b")
    command = stage.command()
    reply = await stage.payouts.take(command)
    assert given(reply) == {"a": 10, "b": 10}
    assert stage.owed == 0
    assert len(stage.journal.loans) == 1
    assert await stage.payouts.take(command) == reply, "a command that comes again gets the same"
    assert "1 open" in repr(stage.payouts)
    await stage.settle(command.id, delivered=True)
    assert stage.payouts.delivered == 1
    assert stage.journal.settled == {command.id: True}
    assert list(stage.journal.loans.values()) == [None]
    assert await stage.payouts.take(command) == Reply(), "and nothing when it is over"
    await stage.settle(command.id, delivered=True)
    assert stage.payouts.delivered == 1
    assert given(await stage.payouts.take(stage.command())) == {}


async def test_what_was_not_delivered_is_owed_again() -> None:
    stage = Stage()
    await stage.moved("a")
    command = stage.command(pb.UserStat, "A")
    assert given(await stage.payouts.take(command)) == {"a": 10}
    await stage.settle(command.id, delivered=False)
    assert stage.owed == 10
    assert given(await stage.payouts.take(stage.command(pb.UserStat, "a"))) == {"a": 10}
    assert given(await stage.payouts.take(stage.command(pb.UserStat, "nobody"))) == {}


async def test_a_large_answer_comes_in_parts() -> None:
    stage = Stage(part_counters=2)
    await stage.moved(*"abcde")
    command = stage.command()
    reply = await stage.payouts.take(command)
    assert reply.lent == 3
    assert given(reply) == dict.fromkeys("abcde", 10)
    await stage.settle(command.id, delivered=True)
    assert list(stage.journal.loans.values()) == [None] * 3


async def test_a_large_answer_whose_caller_goes_meanwhile() -> None:
    stage = Stage(part_counters=2)
    await stage.moved(*"abcde")
    command = stage.command()
    taking = asyncio.create_task(stage.payouts.take(command))
    await eventually(lambda: stage.journal.loans, "the first part is lent")
    if not taking.done():
        await stage.settle(command.id, delivered=False)
        assert given(await taking) in ({}, dict.fromkeys("abcde", 10))
    assert stage.owed in (0, 50)


async def test_errors_are_told() -> None:
    stage = Stage()
    with pytest.raises(InvalidRequestError, match="unknown stat type 77"):
        await stage.payouts.take(stage.command(77))
    stage.error = "no answer"
    with pytest.raises(CoreUnavailableError, match="failed to get stats: no answer"):
        await stage.payouts.take(stage.command())


async def test_who_asks_while_it_is_on_loan_waits_for_the_outcome() -> None:
    stage = Stage(wait_seconds=10)
    await stage.moved("a")
    first = stage.command()
    await stage.payouts.take(first)
    commands = {
        asyncio.create_task(stage.payouts.take(command)): command
        for command in (stage.command(), stage.command(pb.UserStat, "a"))
    }
    second, third = commands
    done, _ = await asyncio.wait({second, third}, timeout=0.05)
    assert not done
    await stage.settle(first.id, delivered=False)
    [luckier], [waits] = await asyncio.wait({second, third}, return_when=asyncio.FIRST_COMPLETED)
    assert len(given(await luckier)) == 1, "one of them gets it"
    await stage.settle(commands[luckier].id, delivered=True)
    assert given(await waits) == {}


async def test_a_wait_has_an_end_and_a_caller_that_has_gone_gets_nothing() -> None:
    stage = Stage()
    await stage.moved("a")
    await stage.payouts.take(stage.command())
    assert given(await stage.payouts.take(stage.command())) == {}
    gone = stage.command()
    waiting = asyncio.create_task(stage.payouts.take(gone))
    await next_turn()
    await stage.settle(gone.id, delivered=False)
    assert await waiting == Reply()


async def test_what_a_dead_worker_carried_is_owed_again() -> None:
    stage = Stage(wait_seconds=10)
    await stage.moved("a")
    await stage.payouts.take(stage.command(worker="dead"))
    watching = asyncio.create_task(stage.payouts.watch_loans())
    stage.away = True
    waiting = asyncio.create_task(stage.payouts.take(stage.command()))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done, "while the bus is away nobody is dead"
    stage.away = False
    assert given(await waiting) == {"a": 10}
    assert stage.commits == 1
    await end_tasks([watching])


async def test_without_loans_nobody_is_asked_for() -> None:
    stage = Stage()
    stage.away = True
    watching = asyncio.create_task(stage.payouts.watch_loans())
    done, _ = await asyncio.wait({watching}, timeout=0.06)
    assert not done
    await end_tasks([watching])


async def test_the_next_supervisor_goes_on_with_open_loans() -> None:
    stage = Stage()
    await stage.moved("a", "b")
    command, ended = stage.command(), stage.command(pb.UserStat, "nobody")
    reply = await stage.payouts.take(command)
    await stage.settle(ended.id, delivered=True)
    journal = stage.journal
    parts = {name: part for name, part in journal.loans.items() if part is not None}
    assert journal.counters == {}, "that would take as long as all else"
    assert journal.run == stage.figures.ledger.last_run
    rows: dict[str, LedgerRow] = {}
    count_lent(rows, journal.run, parts.values())
    stored = StoredState(counters=rows, run=journal.run, loans=parts, settled={ended.id: True})
    later = Stage()
    await later.figures.restore(stored)
    await later.payouts.restore(stored)
    assert later.owed == 0
    assert given(await later.payouts.take(command)) == given(reply)
    assert await later.payouts.take(ended) == Reply()
    await later.settle(command.id, delivered=False)
    assert later.owed == 20
    assert later.journal.counters.keys() == rows.keys(), "there is no loan any more that says so"


async def test_ends_of_loans_are_not_kept_for_ever() -> None:
    stage = Stage()
    for number in range(module.SETTLED_STORED + 3):
        await stage.settle(f"loan{number}", delivered=True)
    assert [loan for loan, kept in stage.journal.settled.items() if kept is None] == ["loan0", "loan1", "loan2"]


@pytest.mark.parametrize("body", [b"\xff", "text"])
async def test_traffic_of_a_damaged_loan_stays_owed(body: Any) -> None:
    stage = Stage()
    await stage.moved("a", "b")
    await stage.figures.note_all()
    command = stage.command()
    await stage.payouts.take(command)
    parts = {name: replace(part, body=body) for name, part in stage.journal.loans.items() if part is not None}
    rows = {name: row for name, row in stage.journal.counters.items() if row is not None}
    stored = StoredState(counters=rows, run=stage.journal.run, loans=parts)
    later = Stage()
    await later.figures.restore(stored)
    await later.payouts.restore(stored)
    assert later.owed == 20
    assert later.journal.loans == dict.fromkeys(parts)


async def test_snapshots_wait_for_what_becomes_of_all_that_was_handed_out() -> None:
    stage = Stage()
    await stage.figures.blocks()
    await stage.moved("alice", "bob")
    command = stage.command()
    await stage.payouts.take(command)
    assert stage.made_while_read == {}
    assert await stage.figures.blocks() == {}
    await stage.settle(command.id, delivered=True)
    assert set(await stage.figures.blocks()) == {"stats.users"}
    # Of one user there is little to be made again.
    await stage.moved("alice", value=20)
    await stage.payouts.take(stage.command(pb.UserStat, "alice"))
    assert set(stage.made_while_read) == {"stats.users"}
    assert set(await stage.figures.blocks()) == {"stats.users"}


@pytest.mark.parametrize("why", ["nothing is owed", "the core cannot be read", "its caller has gone"])
async def test_snapshots_wait_for_nothing_where_nothing_is_handed_out(why: str) -> None:
    stage = Stage()
    await stage.figures.blocks()
    await stage.moved("alice")
    command = stage.command()
    if why == "nothing is owed":
        first = stage.command()
        await stage.payouts.take(first)
        await stage.settle(first.id, delivered=True)
        assert await stage.payouts.take(command) == Reply()
    elif why == "the core cannot be read":
        stage.error = "it does not answer"
        with pytest.raises(CoreUnavailableError):
            await stage.payouts.take(command)
    else:
        await stage.settle(command.id, delivered=False)
        assert await stage.payouts.take(command) == Reply()
    assert set(await stage.figures.blocks()) == {"stats.users"}
