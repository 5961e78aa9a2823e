"""Groups of commands: barriers, and that what could not be stored is taken again in order with all that came after it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.commands import GATHERED_KINDS, Command, Kind, Reply
from pgnode.bus.server import CommandServer
from pgnode.os_support.aio import end_tasks
from pgnode.store.changes import StoreChanges
from pgnode.supervisor.commands.dispatcher import Answers, CommandDispatcher, batches
from pgnode.supervisor.persistence.committer import Staged, StateCommitter
from tests.support.polling import eventually
from tests.unit.supervisor.commands.handlers import handlers


def _command(number: int, kind: Kind = Kind.SYNC_USER) -> Command:
    return Command(f"{number}-0", str(number), kind, "w", 10**15, b"")


@given(st.lists(st.sampled_from(Kind)))
def test_batches_keep_the_order_and_are_barriers(kinds: list[Kind]) -> None:
    group = [_command(number, kind) for number, kind in enumerate(kinds)]
    found = batches(group)
    assert [command for batch in found for command in batch] == group
    for batch in found:
        assert len(batch) == 1 or all(command.kind in GATHERED_KINDS for command in batch)
    for before, after in itertools.pairwise(found):
        assert not (before[0].kind in GATHERED_KINDS and after[0].kind in GATHERED_KINDS)


class _Server:
    def __init__(self) -> None:
        self.released: list[str] = []
        self.lost = 0

    def release(self, commands: Sequence[Command]) -> None:
        self.released += [command.id for command in commands]

    def lost_connection(self) -> None:
        self.lost += 1

    def expired(self, _command: Command) -> bool:
        return False


class _Committer:
    """Stores when it is told to, and fails when it is told to."""

    def __init__(self) -> None:
        self.stored: list[list[str]] = []
        self.given_up: list[list[str]] = []
        self.outcomes: asyncio.Queue[bool] = asyncio.Queue()

    def stage(self, answers: Answers) -> Staged:
        return Staged(StoreChanges(), answers)

    async def store(self, staged: Staged) -> bool:
        done = await self.outcomes.get()
        if done:
            self.stored.append([command.id for command, _ in staged.answers])
        return done

    def give_up(self, staged: Staged) -> None:
        self.given_up.append([command.id for command, _ in staged.answers])


async def test_the_next_group_is_applied_while_one_is_stored_but_not_stored_before_it() -> None:
    server, committer, applied = _Server(), _Committer(), list[str]()

    async def sync(group: Sequence[Command]) -> Answers:
        applied.extend(command.id for command in group)
        return [(command, Reply()) for command in group]

    async def full(command: Command) -> bytes:
        applied.append(command.id)
        return b""

    commands = CommandDispatcher(
        cast(CommandServer, server),
        cast(StateCommitter, committer),
        asyncio.Lock(),
        handlers(sync=sync, changes={Kind.STOP: full}),
    )
    task = asyncio.create_task(commands.write())
    try:
        for number in range(2):
            commands._writes.put_nowait(_command(number))
            await eventually(lambda number=number: applied == [str(n) for n in range(number + 1)], "applied")  # type: ignore[misc]
        assert committer.stored == []
        committer.outcomes.put_nowait(True)
        committer.outcomes.put_nowait(True)
        await eventually(lambda: committer.stored == [["0"], ["1"]], "stored in order")
        # A barrier is not begun before what came before it is stored; when that fails, it is taken again as well.
        commands._writes.put_nowait(_command(2))
        commands._writes.put_nowait(_command(3, Kind.STOP))
        await eventually(lambda: applied[-1] == "2", "applied")
        committer.outcomes.put_nowait(False)
        await eventually(lambda: server.lost == 1, "given back")
        assert "3" not in applied
        assert {"2", "3"} <= set(server.released)
        # The group behind one that fails is not stored either.
        for number in (4, 5):
            commands._writes.put_nowait(_command(number))
            await eventually(lambda number=number: applied[-1] == str(number), "applied")  # type: ignore[misc]
        committer.outcomes.put_nowait(False)
        await eventually(lambda: committer.given_up == [["5"]], "the second one is given up")
        assert committer.stored == [["0"], ["1"]]
    finally:
        await end_tasks([task])
