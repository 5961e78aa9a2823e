"""The copy of the node's state in the store, kept true: what changed is stored together with the answers that depend on it.

What has a copy is a :class:`Part`. One transaction holds what the parts changed, the replies and the acknowledgements: a 200
means that the store has it. What was not stored is not acknowledged, so it is delivered and done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from redis.asyncio.client import Pipeline

from pgnode.bus.commands import Command, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.server import CommandServer
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.supervisor.persistence.redis_store import Store

log = structlog.get_logger(__name__)

#: Makes a part believe again that what it staged is not stored.
Undo = Callable[[], None]


@dataclass(slots=True)
class Staged:
    """A transaction that is made and not sent."""

    pipe: Pipeline
    commands: list[Command]
    undos: list[Undo]
    #: Of the desired state: sent in order.
    ordered: bool
    #: The generation that the store is to have then, and which of the replies tells it; None where it is not raised.
    generation: tuple[int, int] | None = None


class Part(Protocol):
    """Something in the supervisor's memory of which the store holds a copy."""

    def stage(self, pipe: Pipeline) -> Undo | None:
        """Add what changed since it was last stored; None where nothing did."""

    def stage_all(self, pipe: Pipeline) -> Undo | None:
        """Add all of it, in place of whatever the store holds."""


class Keeper:
    """Stores parts and sends answers. Belongs to the supervisor's loop.

    ``desired`` are the parts that make up the desired state: a change of any of them raises the generation.
    """

    def __init__(self, store: Store, server: CommandServer, snapshots: SnapshotWriter, link: PipelinedRedis) -> None:
        self._store = store
        self._server = server
        self._snapshots = snapshots
        #: Sends the transactions.
        self._link = link
        self.desired: list[Part] = []
        #: Parts that are not desired but counted; they are stored by whoever changes them.
        self.books: list[Part] = []
        #: Rises with every change of the desired state that is stored.
        self.generation = 0
        #: Called with the transaction of each such change, for what has to be told with it.
        self.on_change: Callable[[Pipeline], None] = lambda _pipe: None
        self._missed = False
        #: The store is another one, or was emptied, and something was written to it since.
        self._replaced = False
        #: Held while the desired state is written: an older transaction must not follow a newer one.
        self._order = asyncio.Lock()
        #: The same for the books.
        self._books_order = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Keeper(generation {self.generation}{', store missed something' if self._missed else ''})"

    async def commit(self, answers: Sequence[tuple[Command, Reply]], parts: Sequence[Part] | None = None) -> bool:
        """Store what changed in ``parts`` (default: the desired ones) and answer, in one transaction.

        Returns whether that was done. When it was not, the commands will be taken again.
        """
        return await self.store(self.stage(answers, parts))

    def stage(self, answers: Sequence[tuple[Command, Reply]], parts: Sequence[Part] | None = None) -> Staged:
        """The transaction of :meth:`commit`, made but not sent: what changes from here on is not in it."""
        pipe = self._store.pipeline()
        chosen = self.desired if parts is None else parts
        undos = [undo for part in chosen if (undo := part.stage(pipe)) is not None]
        generation = None
        if undos and parts is None:
            self.generation += 1
            generation = self.generation, self._store.raise_generation(pipe)
            self.on_change(pipe)
        self._server.answer(pipe, answers)
        return Staged(pipe, [command for command, _ in answers], undos, parts is None, generation)

    async def store(self, staged: Staged) -> bool:
        """Send a transaction; those of the desired state in the order in which this was called."""
        try:
            if staged.ordered:
                async with self._order:
                    self._look_at_generation(staged, await self._link.transaction(staged.pipe))
            elif staged.undos:
                # Not behind a long transaction of the desired state.
                async with self._books_order:
                    await staged.pipe.execute()
            else:
                await staged.pipe.execute()
        except BUS_ERRORS as error:
            log.warning("not stored, will be done again", commands=len(staged.commands), error=str(error))
            self.give_up(staged)
            self.lost()
            return False
        finally:
            self._server.release(staged.commands)
        return True

    def _look_at_generation(self, staged: Staged, replies: Sequence[Any]) -> None:
        """A store that counts otherwise does not have what was written to it before."""
        if staged.generation is None:
            return
        expected, at = staged.generation
        if replies[at] != expected:
            log.warning("the store lacks what it was told", generation=replies[at], expected=expected)
            self._replaced = True
            self.lost()

    def give_up(self, staged: Staged) -> None:
        """A transaction that will not be sent: what it held is to be stored by another one."""
        for undo in staged.undos:
            undo()
        self._server.release(staged.commands)

    def lost(self) -> None:
        """The store could not be reached."""
        self._missed = True
        self._server.lost_connection()

    async def fill_if_missed(self, turn: asyncio.Lock) -> None:
        """After the store was away: write what it misses; everything, when it came back empty or old. Raises BUS_ERRORS."""
        if not self._missed:
            return
        async with turn, self._order, self._books_order:
            pipe = self._store.pipeline()
            stored = await self._store.generation()
            if stored != self.generation or self._replaced:
                log.warning("the store is not what it was, filling it again", stored=stored, generation=self.generation)
                undos = [part.stage_all(pipe) for part in (*self.desired, *self.books)]
                self._store.put_generation(pipe, self.generation)
            else:
                undos = [part.stage(pipe) for part in (*self.desired, *self.books)]
            self.on_change(pipe)
            self._snapshots.put_all(pipe)
            try:
                await pipe.execute()
            except BUS_ERRORS:
                for undo in undos:
                    if undo is not None:
                        undo()
                raise
            self._missed = self._replaced = False
            log.info("the store is back")
