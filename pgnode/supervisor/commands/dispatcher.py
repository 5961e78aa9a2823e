"""Commands on their way through the supervisor: taken from the bus, sorted, done in groups, stored and answered.

Changes are carried out by one task, in the order in which they came, with the core lock held. Commands that only read traffic or
settle loans are answered by another task and never wait for a change. Inspections of the running core wait for nothing. A new
kind of command is one entry in :class:`Handlers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import structlog

from pgnode.bus.commands import (
    CORE_KINDS,
    GATHERED_KINDS,
    INSPECTION_KINDS,
    MAINTENANCE_KINDS,
    QUERY_KINDS,
    Command,
    Kind,
    Reply,
)
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.server import CommandServer
from pgnode.errors import DeadlineExceededError, InternalError, NodeError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.fault_points import async_fault_point
from pgnode.supervisor.commands.command_queue import CommandQueue
from pgnode.supervisor.commands.grouping import LONG_KINDS, batches, is_gathered
from pgnode.supervisor.commands.inspections import Inspections
from pgnode.supervisor.commands.together import Together
from pgnode.supervisor.persistence.committer import Commit, StateCommitter

log = structlog.get_logger(__name__)

#: Seconds until the bus is tried again.
BUS_PAUSE_SECONDS = 0.1

#: Seconds in which the next group gathers, at most, while one is being stored: nearly always that takes less.
GATHER_SECONDS = 0.02

#: What a caller is told of an error that nobody expected.
INTERNAL_TEXT = "internal error while doing this call: see the node's log"

#: What a caller is told whose command expired before it was begun.
NOT_BEGUN = "the call waited too long and was not begun"

#: Commands that are no call of a panel's: of an operator on this machine, and of workers by themselves.
NO_CALL_KINDS = frozenset({Kind.NEW_CORE, Kind.WATCH_LOGS})

#: Does one command and returns the reply or its body, or raises a NodeError.
Handler = Callable[[Command], Awaitable[bytes | Reply]]

#: Does one step of a long change; returns its reply once the change is complete.
Step = Callable[[], Awaitable[Reply | None]]

Answers = list[tuple[Command, Reply]]


@dataclass(frozen=True, slots=True)
class Handlers:
    """Who does which command."""

    #: Commands that are done alone: barriers between groups of user changes.
    changes: Mapping[Kind, Handler]
    #: Commands about traffic (:data:`QUERY_KINDS`).
    queries: Mapping[Kind, Handler]
    #: Inspections (:data:`INSPECTION_KINDS`).
    inspections: Mapping[Kind, Handler]
    #: Does a group of user changes (every kind that is in none of the other fields); every caller gets its own answer. Calls
    #: its second argument before it calls the core: what is desired may be stored from then on.
    sync: Callable[[Sequence[Command], Callable[[], None]], Awaitable[Answers]]
    #: Begins a long change (:data:`~pgnode.supervisor.commands.grouping.LONG_KINDS`); returns what does the next step of it.
    begin: Callable[[Command], Step]
    #: Takes commands of :data:`MAINTENANCE_KINDS`, and answers them itself.
    maintain: Callable[[Command], None]


class CommandDispatcher:
    """Queues commands for the handlers that carry them out. Belongs to the supervisor's loop.

    Args:
        server: Takes commands from the bus.
        committer: Stores, and answers.
        core_lock: Held by whoever starts, stops or changes the core.
        handlers: Who does what.
        together: Says how long a group waits for others; without it none does.
        known: Waits, up to a limit, until it is known whether a core runs; None: that is known.
    """

    def __init__(
        self,
        server: CommandServer,
        committer: StateCommitter,
        core_lock: asyncio.Lock,
        handlers: Handlers,
        *,
        together: Together | None = None,
        known: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._known = known
        self._server = server
        self._committer = committer
        self._core_lock = core_lock
        self._handlers = handlers
        self._writes = CommandQueue()
        self._queries = CommandQueue()
        self._together = together if together is not None else Together(inf)
        self._inspections = Inspections(lambda command: self._one(command, handlers.inspections), self._send)
        #: A long change that is under way, and what does the next step of it.
        self._long: tuple[Command, Step] | None = None
        #: When a command of somebody else than an operator came last, monotonic seconds; None before the first one.
        self.last_command_at: float | None = None
        #: What is being stored and answered.
        self._storing: asyncio.Task[bool] | None = None

    def __repr__(self) -> str:
        return f"CommandDispatcher({len(self._writes)} changes and {len(self._queries)} queries waiting)"

    async def read(self) -> None:
        """Take commands from the bus until cancelled; nothing is done here, only sorted."""
        away = False
        while True:
            commands: list[Command] = []
            await async_fault_point("commands.take")
            try:
                commands = await self._server.take()
                away = False
            except BUS_ERRORS as error:
                self._server.release(commands)
                if not away:
                    log.warning("the bus is away", error=str(error))
                away = True
                self._server.lost_connection()
                await asyncio.sleep(BUS_PAUSE_SECONDS)
                continue
            if self._server.looks_again:
                # Something older was not stored and comes again: these come after it.
                self._server.release(commands)
                continue
            self._sort(commands)

    def _sort(self, commands: Sequence[Command]) -> None:
        writes: list[Command] = []
        now = time.monotonic()
        for command in commands:
            kind = command.kind
            if kind not in NO_CALL_KINDS:
                self.last_command_at = now
            if kind in GATHERED_KINDS:
                writes.append(command)
            elif kind in INSPECTION_KINDS:
                self._inspections.begin(command)
            elif kind in MAINTENANCE_KINDS:
                self._handlers.maintain(command)
            elif kind in QUERY_KINDS:
                self._queries.put([command])
            else:
                writes.append(command)
        self._writes.put(writes)

    async def _send(self, command: Command, reply: Reply) -> None:
        await self._committer.answer([(command, reply)])

    async def answer_queries(self) -> None:
        """Answer what only reads, or settles loans; never behind a change, and none behind another."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                for command in await self._queries.take():
                    tasks.create_task(self._answer_query(command))

    async def _answer_query(self, command: Command) -> None:
        reply = await self._one(command, self._handlers.queries)
        await self._committer.commit_traffic([(command, reply)])

    async def write(self) -> None:
        """Do what changes something, in the order in which it came, in groups.

        While one group is being stored the next one gathers, for GATHER_SECONDS at most, and is then applied to the core. It is
        stored and answered only after that one, and if that one could not be answered, everything behind it is taken again as
        well, in order. A long change is taken in and applied in steps; small changes come between them, everything else waits
        for its end.
        """
        try:
            while True:
                group = await self._next_group()
                try:
                    for batch in batches(group):
                        await self._one_batch(batch)
                    if self._long is not None:
                        await self._go_on()
                except _NotAnsweredError:
                    self._take_again(group)
                except Exception:
                    # This task begins again. What was under way is delivered again, too, until its callers have given up.
                    if self._long is not None:
                        self._server.release([self._long[0]])
                        self._long = None
                    self._take_again(group)
                    raise
        finally:
            storing, self._storing = self._storing, None
            if storing is not None:
                await end_tasks([storing])

    async def _next_group(self) -> list[Command]:
        if self._long is not None:
            return self._writes.take_now()
        group, since = await self._writes.take(), 0
        if self._storing is None or self._storing.done():
            since = len(group)
        else:
            # Larger groups cost less a change. A disk that takes longer is not waited for.
            await asyncio.wait([self._storing], timeout=GATHER_SECONDS)
            group += self._writes.take_now()
        more = self._together.expected(len(group), since, time.monotonic())
        if more:
            before = len(group)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._together.patience_seconds(more)):
                    while len(group) < before + more:
                        group += await self._writes.take()
            self._together.waited(len(group) - before)
        return group

    async def _one_batch(self, batch: Sequence[Command]) -> None:
        alone = not is_gathered(batch[0])
        while alone and self._long is not None:
            await self._go_on()
        if alone or (self._storing is not None and self._storing.done()):
            await self._stored()
        if alone and batch[0].kind in LONG_KINDS and not self._server.expired(batch[0]):
            self._long = batch[0], self._handlers.begin(batch[0])
            await async_fault_point("long_change.begun")
            return
        async with self._core_lock:
            commit = self._committer.begin(await self._do(batch))
        await self._store(commit)

    async def _go_on(self) -> None:
        assert self._long is not None
        command, step = self._long
        await async_fault_point("long_change.next_part")
        async with self._core_lock:
            reply = await step()
            if reply is not None:
                self._long = None
            # What became desired is stored at once; the answer comes when the change is complete.
            commit = self._committer.begin([(command, reply)] if reply is not None else ())
        if reply is not None or commit.changes:
            await self._store(commit)

    async def _store(self, commit: Commit) -> None:
        """Store and answer, after the group before has been. Raises _NotAnsweredError where that one was not answered."""
        try:
            await self._stored()
        except _NotAnsweredError:
            self._committer.give_up(commit)
            raise
        count = len(commit.answers)
        self._storing = asyncio.create_task(self._committer.store(commit))
        self._storing.add_done_callback(lambda _: self._together.answered(count, time.monotonic()))

    async def _stored(self) -> None:
        storing = self._storing
        if storing is not None:
            await asyncio.wait([storing])
            self._storing = None
            if not storing.result():
                raise _NotAnsweredError

    def _take_again(self, group: Sequence[Command]) -> None:
        """Leave ``group`` and all waiting commands to be delivered again; those that were answered are not.

        A long change goes on: everything before it was stored when it began, and it keeps its own data.
        """
        under_way = self._long[0] if self._long is not None else None
        self._server.release(command for command in group if command is not under_way)
        self._server.release(self._writes.take_now())
        self._server.lost_connection()

    async def _do(self, batch: Sequence[Command]) -> Answers:
        if batch[0].kind in self._handlers.changes:
            return [(command, await self._one(command, self._handlers.changes)) for command in batch]
        # Nobody waits for an expired one any more, and whoever sent it was told that it failed.
        expired = self._server.expired_among(batch)
        answers: Answers = [(command, Reply(error=DeadlineExceededError(NOT_BEGUN))) for command in expired]
        live = [command for command in batch if command not in expired] if expired else batch
        if live:
            answers += await self._handlers.sync(live, self._committer.begin_early)
        return answers

    async def _one(self, command: Command, handlers: Mapping[Kind, Handler]) -> Reply:
        if self._known is not None and command.kind in CORE_KINDS:
            await self._known()
        if self._server.expired(command):
            return Reply(error=DeadlineExceededError(NOT_BEGUN))
        try:
            answer = await handlers[command.kind](command)
            return answer if isinstance(answer, Reply) else Reply(body=answer)
        except NodeError as error:
            return Reply(error=error)
        except Exception:
            log.exception("command failed", command=repr(command))
            return Reply(error=InternalError(INTERNAL_TEXT))


class _NotAnsweredError(Exception):
    """An answer was not sent, so its command comes again: nothing that came after it may be answered before."""
