"""What workers ask about traffic: statistics with ``reset``, whether these arrived, and newer figures than they have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from pgnode.bus.commands import INBOUNDS, Command, Reply
from pgnode.errors import NotFoundError
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.supervisor.traffic.payouts import Payouts
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stat_names import INBOUNDS_NOT_COUNTED

_OF_INBOUNDS = (pb.StatType.Inbounds, pb.StatType.Inbound)


class Urgency(Protocol):
    """Whom somebody who waits for figures hurries."""

    def hurry(self) -> None:
        """Have figures published as soon as they are known."""


class TrafficQueries:
    """Belongs to the supervisor's loop.

    Args:
        payouts: Hands out what is owed.
        inbounds: Knows whether inbounds are counted.
        figures: Is hurried.
        require_running: Raises the NodeError of the node's state where nothing runs.
        read: Reads the core's counters, unless that was done a moment ago.
        publish_age: Tells workers which of their figures show what was handed out.
        commit: Stores that statistics of inbounds are wanted.
    """

    def __init__(
        self,
        payouts: Payouts,
        inbounds: InboundStats,
        figures: Urgency,
        *,
        require_running: Callable[[], object],
        read: Callable[[], Awaitable[str]],
        publish_age: Callable[[], Awaitable[None]],
        commit: Callable[[], Awaitable[object]],
    ) -> None:
        self._payouts = payouts
        self._inbounds = inbounds
        self._figures = figures
        self._require_running = require_running
        self._read = read
        self._publish_age = publish_age
        self._commit = commit

    def __repr__(self) -> str:
        return f"TrafficQueries({self._payouts!r}, {self._inbounds!r})"

    async def take(self, command: Command) -> Reply:
        """Answer a reading with ``reset``: see :meth:`Payouts.take`.

        Args:
            command: Its body is a ``StatRequest``.

        Returns:
            A ``StatResponse``, in parts where it is large.

        Raises:
            NodeError: There is nothing to be read, or an inbound is asked for that is not counted and owes nothing.
        """
        self._require_running()
        wanted = pb.StatRequest.FromString(command.body).type
        if wanted in _OF_INBOUNDS:
            await self._ask_for_inbounds()
        reply = await self._payouts.take(command)
        if reply.lent is not None:
            # Before the answer: whoever reads after it finds none of what it holds.
            await self._publish_age()
        elif wanted == pb.StatType.Inbound and self._inbounds.counted is False:
            raise NotFoundError(INBOUNDS_NOT_COUNTED)
        return reply

    async def look(self, command: Command) -> Reply:
        """Have the core read, and what was found published at once.

        Args:
            command: Its body is "inbounds" where statistics of inbounds are wanted that are not counted.

        Returns:
            Nothing: what was found goes to all workers.

        Raises:
            NodeError: Nothing runs.
        """
        self._require_running()
        if command.body == INBOUNDS:
            await self._ask_for_inbounds()
        await self._read()
        self._figures.hurry()
        return Reply()

    async def _ask_for_inbounds(self) -> None:
        if self._inbounds.ask():
            await self._commit()
