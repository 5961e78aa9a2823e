"""The core exchange of maintenance: the core ends, its executable or its geo files are changed, and a core starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.events import ExchangeRequested, Outcome
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.states import State

log = structlog.get_logger(__name__)

#: Does something, or takes it back. Raises NodeError.
Change = Callable[[], Awaitable[None]]


class CoreExchange:
    """Belongs to the supervisor's loop.

    Args:
        life: The state of the node.
        lifecycle: Asks the machine.
        core_lock: Held meanwhile.
    """

    def __init__(self, life: NodeLife, lifecycle: CoreLifecycle, core_lock: asyncio.Lock) -> None:
        self._life = life
        self._lifecycle = lifecycle
        self._core_lock = core_lock

    def __repr__(self) -> str:
        return f"CoreExchange({self._life!r})"

    async def exchange(self, change: Change, undo: Change, what: str) -> bool:
        """End the core, do ``change``, and start it again with all users.

        Where it does not come up, do ``undo`` and start once more. With nothing to run, only ``change`` is done. A core that
        lingers is ended.

        Args:
            change: Puts something else in place while no core runs.
            undo: Takes that back.
            what: The reason, for the log.

        Returns:
            Whether a core runs now.

        Raises:
            NodeError: The core did not come up with ``change``; the text ends with what runs now.
        """
        async with self._core_lock:
            log.info("exchanging the core", reason=what)
            await self._lifecycle.request(ExchangeRequested(), _Exchange(change, undo, what))
            return self._life.state is State.RUNNING


class _Exchange:
    def __init__(self, change: Change, undo: Change, what: str) -> None:
        self._change = change
        self._undo = undo
        self._what = what

    async def carry_out(self, action: do.Action) -> Outcome | None:
        match action:
            case do.MakeChange():
                await self._change()
            case do.UndoChange():
                log.warning("the core did not come up, restoring the previous one", reason=self._what)
                await self._undo()
        return None
