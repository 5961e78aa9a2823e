"""A queue from which everything that waits is taken at once. One task takes from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pgnode.bus.commands import Command


class CommandQueue:
    """Commands in the order in which they came. Belongs to the supervisor's loop.

    What :class:`asyncio.Queue` does for each command is done here for all that come together.
    """

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._there = asyncio.Event()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._commands)

    def __repr__(self) -> str:
        return f"CommandQueue({len(self)} waiting)"

    def put(self, commands: Iterable[Command]) -> None:
        """Add commands."""
        self._commands += commands
        if self._commands:
            self._there.set()

    def take_now(self) -> list[Command]:
        """Take everything that waits, perhaps nothing."""
        taken, self._commands = self._commands, []
        self._there.clear()
        return taken

    async def take(self) -> list[Command]:
        """Take everything that waits, at least one; nothing is lost when this is cancelled."""
        await self._there.wait()
        return self.take_now()
