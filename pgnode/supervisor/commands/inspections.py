"""Inspections: commands that only ask about the core. Each is a task of its own, and none waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pgnode.bus.commands import Command, Reply
from pgnode.errors import UnavailableError

#: Inspections under way at once; a core that hangs must not gather them without end.
INSPECTIONS_MAX = 256

#: Does one command, whatever happens.
Answer = Callable[[Command], Awaitable[Reply]]

#: Sends one reply.
Send = Callable[[Command, Reply], Awaitable[None]]


class Inspections:
    """Belongs to the supervisor's loop.

    Args:
        answer: Does one command.
        send: Sends one reply.
        most: How many may be under way at once.
    """

    def __init__(self, answer: Answer, send: Send, *, most: int = INSPECTIONS_MAX) -> None:
        self._most = most
        self._answer = answer
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Inspections({len(self._tasks)} under way)"

    def begin(self, command: Command) -> None:
        """Begin to answer a command; return at once."""
        full = len(self._tasks) >= self._most
        task = asyncio.create_task(self._refuse(command) if full else self._do(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, command: Command) -> None:
        await self._send(command, await self._answer(command))

    async def _refuse(self, command: Command) -> None:
        await self._send(command, Reply(error=UnavailableError("too many inspections of the core at once, try again")))
