"""Groups of commands: barriers, and that what could not be stored is taken again in order with all that came after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.server import CommandServer
from pgnode.errors import DeadlineExceededError, InternalError, InvalidRequestError
from pgnode.os_support.aio import end_tasks
from pgnode.store.changes import StoreChanges
from pgnode.supervisor.commands.dispatcher import Answers, CommandDispatcher, Step
from pgnode.supervisor.commands.together import Patience, Together
from pgnode.supervisor.persistence.committer import Commit, StateCommitter
from tests.support.polling import eventually, next_turn
from tests.unit.supervisor.commands.handlers import handlers


def _command(number: int, kind: Kind = Kind.SYNC_USER) -> Command:
    return Command(f"{number}-0", str(number), kind, "w", 10**15, b"")


#: Waits for others for as long as it takes.
PATIENT = Patience(least_seconds=60, each_seconds=60, most_seconds=60, recent_seconds=600)


class _Server:
    def __init__(self) -> None:
        self.released: list[str] = []
        self.lost = 0
        self.looks_again = False
        self.expired_ids: set[str] = set()
        #: What the bus has, or how it fails.
        self.coming: asyncio.Queue[list[Command] | Exception] = asyncio.Queue()

    async def take(self) -> list[Command]:
        found = await self.coming.get()
        if isinstance(found, Exception):
            raise found
        return found

    def release(self, commands: Sequence[Command]) -> None:
        self.released += [command.id for command in commands]

    def lost_connection(self) -> None:
        self.lost += 1

    def expired(self, command: Command) -> bool:
        return command.id in self.expired_ids

    def expired_among(self, commands: Sequence[Command]) -> list[Command]:
        return [command for command in commands if self.expired(command)]


class _Committer:
    """Stores when it is told to, and fails when it is told to."""

    def __init__(self) -> None:
        self.stored: list[list[str]] = []
        self.given_up: list[list[str]] = []
        self.answered: list[tuple[str, Reply]] = []
        self.outcomes: asyncio.Queue[bool] = asyncio.Queue()
        self.begun_early = 0

    def begin_early(self) -> None:
        self.begun_early += 1

    def begin(self, answers: Answers) -> Commit:
        return Commit(StoreChanges(), answers)

    async def store(self, commit: Commit) -> bool:
        done = await self.outcomes.get()
        if done:
            self.stored.append([command.id for command, _ in commit.answers])
        return done

    async def answer(self, answers: Answers) -> bool:
        self.answered += [(command.id, reply) for command, reply in answers]
        return True

    async def commit_traffic(self, answers: Answers) -> bool:
        return await self.answer(answers)

    def give_up(self, commit: Commit) -> None:
        self.given_up.append([command.id for command, _ in commit.answers])


async def test_the_next_group_is_applied_while_one_is_stored_but_not_stored_before_it() -> None:
    server, committer, applied = _Server(), _Committer(), list[str]()

    async def sync(group: Sequence[Command], noted: Callable[[], None]) -> Answers:
        noted()
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
            commands._writes.put([_command(number)])
            await eventually(lambda number=number: applied == [str(n) for n in range(number + 1)], "applied")  # type: ignore[misc]
        assert committer.stored == []
        committer.outcomes.put_nowait(True)
        committer.outcomes.put_nowait(True)
        await eventually(lambda: committer.stored == [["0"], ["1"]], "stored in order")
        # A barrier is not begun before what came before it is stored; when that fails, it is taken again as well.
        commands._writes.put([_command(2)])
        commands._writes.put([_command(3, Kind.STOP)])
        await eventually(lambda: applied[-1] == "2", "applied")
        committer.outcomes.put_nowait(False)
        await eventually(lambda: server.lost == 1, "given back")
        assert "3" not in applied
        assert {"2", "3"} <= set(server.released)
        # The group behind one that fails is not stored either.
        for number in (4, 5):
            commands._writes.put([_command(number)])
            await eventually(lambda number=number: applied[-1] == str(number), "applied")  # type: ignore[misc]
        committer.outcomes.put_nowait(False)
        await eventually(lambda: committer.given_up == [["5"]], "the second one is given up")
        assert committer.stored == [["0"], ["1"]]
        assert committer.begun_early == 5, "for each group that was applied"
    finally:
        await end_tasks([task])


async def test_with_few_processors_those_who_were_just_answered_come_with_the_next_group() -> None:
    server, committer, groups = _Server(), _Committer(), list[list[str]]()

    async def sync(group: Sequence[Command], noted: Callable[[], None]) -> Answers:
        noted()
        groups.append([command.id for command in group])
        return [(command, Reply()) for command in group]

    commands = CommandDispatcher(
        cast(CommandServer, server),
        cast(StateCommitter, committer),
        asyncio.Lock(),
        handlers(sync=sync),
        together=Together(2, PATIENT),
    )
    writing = asyncio.create_task(commands.write())
    try:
        commands._writes.put([_command(number) for number in range(8)])
        await eventually(lambda: len(groups) == 1, "the first group is applied")
        commands._writes.put([_command(number) for number in range(10, 15)])
        committer.outcomes.put_nowait(True)
        await eventually(lambda: committer.stored, "and answered")
        for _ in range(20):
            await next_turn()
        assert len(groups) == 1, "the others wait for those who come again"
        commands._writes.put([_command(number) for number in range(20, 26)])
        await eventually(lambda: len(groups) == 2, "and go with them")
        assert len(groups[1]) == 11
    finally:
        await end_tasks([writing])


def dispatcher(server: _Server, committer: _Committer, **known: Any) -> CommandDispatcher:
    return CommandDispatcher(
        cast(CommandServer, server), cast(StateCommitter, committer), asyncio.Lock(), handlers(**known)
    )


async def test_commands_are_sorted_and_a_bus_that_is_away_is_waited_for() -> None:
    server, committer, jobs = _Server(), _Committer(), list[str]()

    async def look(command: Command) -> bytes:
        return command.id.encode()

    commands = dispatcher(
        server, committer, inspections={Kind.LIST_RULES: look}, maintain=lambda command: jobs.append(command.id)
    )
    reading = asyncio.create_task(commands.read())
    server.coming.put_nowait(ConnectionError("away"))
    server.coming.put_nowait(ConnectionError("still away"))
    kinds = [Kind.LIST_RULES, Kind.UPDATE, Kind.TAKE_STATS, Kind.SYNC_USER]
    server.coming.put_nowait([_command(number, kind) for number, kind in enumerate(kinds)])
    await eventually(lambda: committer.answered, "the inspection is answered")
    assert committer.answered == [("0", Reply(body=b"0"))]
    assert jobs == ["1"]
    assert repr(commands) == "CommandDispatcher(1 changes and 1 queries waiting)"
    assert server.lost == 2
    # What was not answered comes again first.
    server.looks_again = True
    server.coming.put_nowait([_command(9)])
    await eventually(lambda: server.released == ["9"], "given back")
    await end_tasks([reading])


async def test_queries_are_answered_beside_each_other_whatever_happens() -> None:
    server, committer, held = _Server(), _Committer(), asyncio.Event()

    async def take(command: Command) -> bytes:
        if command.id == "0":
            await held.wait()
        if command.id == "1":
            raise ZeroDivisionError
        if command.id == "2":
            raise InvalidRequestError("no such statistics")
        return b"stats"

    commands = dispatcher(server, committer, queries={Kind.TAKE_STATS: take})
    server.expired_ids = {"3"}
    for number in range(5):
        commands._queries.put([_command(number, Kind.TAKE_STATS)])
    answering = asyncio.create_task(commands.answer_queries())
    await eventually(lambda: len(committer.answered) == 4, "all but one are answered")
    held.set()
    await eventually(lambda: len(committer.answered) == 5, "and that one, too")
    replies = dict(committer.answered)
    assert replies["0"] == replies["4"] == Reply(body=b"stats")
    kinds = {number: type(replies[number].error) for number in "123"}
    assert kinds == {"1": InternalError, "2": InvalidRequestError, "3": DeadlineExceededError}
    await end_tasks([answering])


async def test_questions_about_the_core_wait_until_it_is_known_whether_one_runs() -> None:
    """Others do not, nor does what expires meanwhile wait for its answer longer."""
    server, committer, known = _Server(), _Committer(), asyncio.Event()

    async def answer(command: Command) -> bytes:
        return command.id.encode()

    async def wait() -> None:
        await known.wait()

    handled = handlers(
        queries={Kind.TAKE_STATS: answer, Kind.SETTLE: answer},
        inspections={Kind.LIST_RULES: answer, Kind.METRICS: answer},
    )
    commands = CommandDispatcher(
        cast(CommandServer, server), cast(StateCommitter, committer), asyncio.Lock(), handled, known=wait
    )
    kinds = [Kind.TAKE_STATS, Kind.SETTLE, Kind.LIST_RULES, Kind.METRICS, Kind.TAKE_STATS]
    server.coming.put_nowait([_command(number, kind) for number, kind in enumerate(kinds)])
    tasks = [asyncio.create_task(commands.read()), asyncio.create_task(commands.answer_queries())]
    await eventually(
        lambda: sorted(number for number, _ in committer.answered) == ["1", "3"], "the others are answered"
    )
    server.expired_ids = {"4"}
    known.set()
    await eventually(lambda: len(committer.answered) == 5, "all are answered")
    replies = dict(committer.answered)
    assert (replies["0"], replies["2"]) == (Reply(body=b"0"), Reply(body=b"2"))
    assert isinstance(replies["4"].error, DeadlineExceededError)
    await end_tasks(tasks)


async def test_small_changes_come_between_the_steps_of_a_long_one() -> None:
    server, committer, done = _Server(), _Committer(), list[str]()

    async def sync(group: Sequence[Command], noted: Callable[[], None]) -> Answers:
        noted()
        done.extend(command.id for command in group)
        return [(command, Reply()) for command in group]

    def begin(command: Command) -> Step:
        async def step() -> Reply | None:
            done.append(f"step of {command.id}")
            if done.count(f"step of {command.id}") == 1:
                commands._writes.put([_command(2)])
            await next_turn()
            return Reply() if done.count(f"step of {command.id}") == 4 else None

        return step

    commands = dispatcher(server, committer, sync=sync, begin=begin)
    server.expired_ids = {"3"}
    for number, kind in ((1, Kind.SYNC_USERS), (3, Kind.SYNC_USER)):
        commands._writes.put([_command(number, kind)])
    for _ in range(9):
        committer.outcomes.put_nowait(True)
    writing = asyncio.create_task(commands.write())
    await eventually(lambda: ["1"] in committer.stored, "the long change is answered")
    assert done.index("step of 1") < done.index("2") < len(done) - 1 - done[::-1].index("step of 1")
    assert "3" not in done, "nobody waits for it any more"
    await end_tasks([writing])


async def test_after_a_fault_nobody_waits_for_ever() -> None:
    server, committer = _Server(), _Committer()

    async def sync(_group: Sequence[Command], _noted: Callable[[], None]) -> Answers:
        raise ZeroDivisionError

    def begin(_command: Command) -> Step:
        async def step() -> Reply | None:
            raise ZeroDivisionError

        return step

    commands = dispatcher(server, committer, sync=sync, begin=begin)
    commands._writes.put([_command(1)])
    with pytest.raises(ZeroDivisionError):
        await commands.write()
    commands._writes.put([_command(2, Kind.SYNC_USERS)])
    with pytest.raises(ZeroDivisionError):
        await commands.write()
    assert set(server.released) == {"1", "2"}
    assert server.lost == 2


async def test_an_inspection_waits_behind_no_change() -> None:
    """A change holds the core lock for as long as the test lasts."""
    taken = [
        Command("0-1", "look", Kind.LIST_RULES, "w", 1000, b""),
        Command("0-2", "add", Kind.ADD_RULE, "w", 1000, b""),
    ]
    answered: list[str] = []
    never = asyncio.Event()

    async def take() -> list[Command]:
        if not taken:
            await never.wait()
        return [taken.pop()]

    async def answer(answers: Answers) -> bool:
        answered.extend(command.id for command, _ in answers)
        return True

    async def handler(_command: Command) -> bytes:
        return b""

    async def change(_command: Command) -> bytes:
        await never.wait()
        return b""

    server = SimpleNamespace(take=take, expired=lambda _command: False, looks_again=False)
    committer = SimpleNamespace(answer=answer)
    known = handlers(changes={Kind.ADD_RULE: change}, inspections={Kind.LIST_RULES: handler})
    commands = CommandDispatcher(cast(Any, server), cast(Any, committer), asyncio.Lock(), known)
    tasks = [asyncio.create_task(work()) for work in (commands.read, commands.write)]
    try:
        await eventually(lambda: answered, "the inspection is answered")
        assert answered == ["look"]
    finally:
        for task in tasks:
            task.cancel()
