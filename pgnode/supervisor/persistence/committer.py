"""From a change to its answer: what changed is stored, and only then acknowledged and answered over the bus.

A 200 means that the store has it. What is desired may be stored while the core takes it (:meth:`StateCommitter.begin_early`).
What was stored and could not be answered is delivered again, and changes nothing then. What could not be stored is answered with
503; memory and core keep it, and it is stored as soon as the store takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode.bus.commands import Command, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.server import CommandServer
from pgnode.errors import StoreUnavailableError
from pgnode.os_support.fault_points import async_fault_point
from pgnode.store.changes import Journal, Scope, StoreChanges
from pgnode.store.database import StoreWriteError
from pgnode.store.writer import StoreWriter

log = structlog.get_logger(__name__)

#: Pause before a failed write to the store is tried again.
RETRY_SECONDS = 2.0

#: Adds what workers have to learn to the transaction of the answers.
Tell = Callable[[Pipeline], None]

Answers = Sequence[tuple[Command, Reply]]


@dataclass(frozen=True, slots=True)
class Early:
    """What is being stored of a change that is under way."""

    #: Returns why that was not possible, "" when it was.
    task: asyncio.Task[str]
    #: What is to be stored after it, where nobody waits for that.
    behind: StoreChanges


@dataclass(slots=True)
class Commit:
    """Changes of the desired state to be stored, and the answers to be sent after that."""

    changes: StoreChanges
    answers: Answers
    #: Stores what changed before :attr:`changes`.
    early: Early | None = None


class _Scoped:
    """Commits of one scope, one after the other."""

    def __init__(self) -> None:
        self.order = asyncio.Lock()
        #: What the store did not take yet, older than whatever comes.
        self.kept = StoreChanges()

    def keep(self, changes: StoreChanges) -> None:
        self.kept.add(changes)


class StateCommitter:
    """Stores and answers. Belongs to the supervisor's loop.

    Args:
        journal: Where everybody notes what changed.
        store: Writes it.
        server: Writes answers in their form on the bus.
        redis: Makes transactions.
        bus: Sends them.
        tell: Called with the transaction of the answers to each change of the desired state.
        answered: Called with what was answered.
        retry_seconds: Pause before the store is tried again that did not take something.
    """

    def __init__(
        self,
        journal: Journal,
        store: StoreWriter,
        server: CommandServer,
        redis: Redis,
        bus: PipelinedRedis,
        *,
        tell: Tell,
        answered: Callable[[Answers], None] = lambda _answers: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._journal = journal
        self._store = store
        self._server = server
        self._redis = redis
        self._bus = bus
        self._tell = tell
        self._answered = answered
        self._retry_seconds = retry_seconds
        self._scopes = {scope: _Scoped() for scope in Scope}
        self._retrying: asyncio.Task[None] | None = None
        #: What is being stored of a change that is under way.
        self._early: Early | None = None
        #: Why the store did not take the last commit; "" when it did.
        self.error = ""
        #: How often the store did not take a commit.
        self.failures = 0
        #: Rises with every change of the desired state.
        self.generation = 0

    def __repr__(self) -> str:
        """Say whether the store takes what it is given."""
        return f"StateCommitter(generation {self.generation}{f', {self.error}' if self.error else ''})"

    # --- the desired state --------------------------------------------------------------------------------------

    def begin_early(self) -> None:
        """Store what is desired so far while the core takes it; with the core's lock held, and :meth:`begin` comes next."""
        if changes := self._journal.take(Scope.DESIRED):
            # Begins in the loop's next turn: until then the core has its calls.
            behind = StoreChanges()
            self._early = Early(asyncio.create_task(self._store_early(changes, behind)), behind)

    async def _store_early(self, changes: StoreChanges, behind: StoreChanges) -> str:
        scoped = self._scopes[Scope.DESIRED]
        async with scoped.order:
            error = await self._write_desired(scoped, changes)
            if behind:
                scoped.keep(behind)
                self._retry_soon()
            return error

    def begin(self, answers: Answers) -> Commit:
        """Take what changed of the desired state, for :meth:`store`; with the core's lock held, so that it is whole."""
        changes, early = self._journal.take(Scope.DESIRED), self._early
        self._early = None
        self.generation += early is not None or bool(changes)
        return Commit(changes, answers, early)

    async def store(self, commit: Commit) -> bool:
        """Store and answer, in the order in which this is called.

        Args:
            commit: What :meth:`begin` took.

        Returns:
            Whether the answers were sent; if not, the commands will be taken again.
        """
        scoped, early = self._scopes[Scope.DESIRED], commit.early
        try:
            error = await self._result_of(early, commit.changes) if early is not None else ""
            async with scoped.order:
                if commit.changes or early is None:
                    error = await self._write_desired(scoped, commit.changes)
                changed = early is not None or bool(commit.changes)
                return await self._answer(_with_error(commit.answers, error), tell=changed)
        finally:
            self._release(commit.answers)

    async def _result_of(self, early: Early, later: StoreChanges) -> str:
        """Wait for what is stored early; what came later is kept where nobody waits any more."""
        try:
            await asyncio.wait([early.task])
        except asyncio.CancelledError:
            self._keep(early, later)
            raise
        return early.task.result()

    async def commit(self, answers: Answers = ()) -> bool:
        """Do :meth:`begin` and :meth:`store`."""
        return await self.store(self.begin(answers))

    def give_up(self, commit: Commit) -> None:
        """Answer nobody, since an earlier answer was not sent; what changed is stored all the same."""
        self._keep(commit.early, commit.changes)
        self._release(commit.answers)

    def _keep(self, early: Early | None, later: StoreChanges) -> None:
        """Have it stored soon, but after what is stored early: that is older."""
        if early is not None and not early.task.done():
            early.behind.add(later)
        else:
            self._scopes[Scope.DESIRED].keep(later)
            self._retry_soon()

    # --- traffic, and answers alone -----------------------------------------------------------------------------

    async def commit_traffic(self, answers: Answers = ()) -> bool:
        """Store what changed of the traffic, and answer; never behind a change of the desired state.

        Args:
            answers: Commands, and what they are answered.

        Returns:
            Whether the answers were sent.
        """
        scoped = self._scopes[Scope.TRAFFIC]
        try:
            async with scoped.order:
                error = await self._write(scoped, self._journal.take(Scope.TRAFFIC))
            if answers:
                await async_fault_point("commit.traffic_stored")
            return await self._answer(_with_error(answers, error))
        finally:
            self._release(answers)

    async def answer(self, answers: Answers) -> bool:
        """Send answers that depend on nothing stored; returns whether they were sent."""
        try:
            return await self._answer(answers)
        finally:
            self._release(answers)

    async def require_room(self, needed_bytes: int) -> None:
        """Make sure that the store takes changes, before something is done that a caller could not be told of.

        Args:
            needed_bytes: About how many bytes they have.

        Raises:
            StoreUnavailableError: It does not; the text says why, and what to do.
        """
        for scoped in self._scopes.values():
            if scoped.kept:
                async with scoped.order:
                    await self._write(scoped, StoreChanges())
        error = self.error
        if not error:
            try:
                await self._store.require_room(needed_bytes)
            except StoreWriteError as failed:
                error = str(failed)
        if error:
            raise StoreUnavailableError(f"not stored: {error}; what runs goes on unchanged")

    # --- both steps ---------------------------------------------------------------------------------------------

    async def _write_desired(self, scoped: _Scoped, changes: StoreChanges) -> str:
        """Do :meth:`_write` for what is desired."""
        if changes:
            await async_fault_point("commit.desired")
        error = await self._write(scoped, changes)
        if changes:
            await async_fault_point("commit.desired_stored")
        return error

    async def _write(self, scoped: _Scoped, changes: StoreChanges) -> str:
        """Write ``changes`` over what was kept; returns why that was not possible, "" when it was."""
        if scoped.kept:
            older, scoped.kept = scoped.kept, StoreChanges()
            older.add(changes)
        else:
            older = changes
        if not older:
            return ""
        await async_fault_point("commit.applied")
        try:
            await self._store.commit(older)
        except StoreWriteError as error:
            older.add(scoped.kept)
            scoped.kept = older
            if not self.error:
                log.error("the store does not take changes", error=str(error))
            self.error = str(error)
            self.failures += 1
            self._retry_soon()
            return self.error
        if self.error:
            self.error = ""
            log.info("the store takes changes again")
        await async_fault_point("commit.stored")
        return ""

    async def _answer(self, answers: Answers, *, tell: bool = False) -> bool:
        pipe = self._redis.pipeline(transaction=True)
        if tell:
            self._tell(pipe)
        self._server.answer(pipe, answers)
        try:
            await self._bus.transaction(pipe)
        except BUS_ERRORS as error:
            log.warning("not answered, will be taken again", commands=len(answers), error=str(error))
            self._server.lost_connection()
            return False
        self._answered(answers)
        return True

    def _release(self, answers: Answers) -> None:
        self._server.release(command for command, _ in answers)

    def _retry_soon(self) -> None:
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._retry())

    async def _retry(self) -> None:
        """Write what was kept until the store has it; nothing newer, which may be incomplete."""
        while any(scoped.kept for scoped in self._scopes.values()):
            await asyncio.sleep(self._retry_seconds)
            for scoped in self._scopes.values():
                async with scoped.order:
                    await self._write(scoped, StoreChanges())

    async def close(self) -> None:
        """Store what is left, once."""
        if self._retrying is not None:
            self._retrying.cancel()
        await self.commit()
        await self.commit_traffic()


def _with_error(answers: Answers, error: str) -> Answers:
    """Say to callers that the store did not take their changes, where it did not. Pure."""
    if not error:
        return answers
    failed = StoreUnavailableError(f"not stored: {error}")
    return [(command, reply if reply.error is not None else Reply(error=failed)) for command, reply in answers]
