"""What the service needs of others, and knows of them: the worker's snapshots, the way to the supervisor, and the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from pgnode.api.service.tracked import Settle
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.snapshots import NodeStatus


class Reads(Protocol):
    """The worker's own copy of the snapshots; every access is a look-up in memory."""

    @property
    def status(self) -> NodeStatus | None:
        """The node's state; None before the first one has arrived."""

    def body(self, name: str) -> bytes | None:
        """Return the bytes of a plain snapshot (``system``, ``backend``)."""

    def block(self, name: str) -> IndexedBlock | None:
        """Return an indexed snapshot (``stats.users``, ``stats.inbounds``, ``stats.outbounds``, ``online``)."""

    def fresh_block(self, name: str) -> IndexedBlock | None:
        """Return :meth:`block`, or None where the last reading of the core failed, or what was handed out since is in it."""

    def is_void(self, name: str) -> bool:
        """Return whether a snapshot shows what was handed out since."""

    def is_behind(self, name: str) -> bool:
        """Return whether there is a newer revision of a snapshot, which has to be fetched from another host first."""

    @property
    def want(self) -> Callable[[str], None]:
        """Has it fetched."""

    @property
    def has_unheard(self) -> Callable[[], bool]:
        """Tells whether a further revision has come that is taken over in the next turn of the event loop."""

    async def news(self) -> None:
        """Wait for the next figures, what tells their age, or the next state of the node."""

    @property
    def renew_at(self) -> float:
        """Monotonic time from which on newer figures are to be asked for."""

    @property
    def stale_at(self) -> float:
        """Monotonic time from which on the figures are too old."""

    @property
    def inbounds_counted(self) -> bool | None:
        """Whether the core counts inbounds; None where that is not known."""

    def age_seconds(self) -> float | None:
        """Return the seconds since the core was read for the statistics; None where it was not yet."""

    def overdue(self) -> str:
        """Return why the statistics are too old to be told, "" where they are not."""


class Commands(Protocol):
    """The way to the supervisor.

    Both raise the supervisor's NodeError, BusUnavailableError where it cannot be reached, and DeadlineExceededError.
    """

    async def call(self, kind: Kind, body: bytes, timeout_seconds: float, /) -> bytes:
        """Return the body of the supervisor's reply."""

    async def lend(self, kind: Kind, body: bytes, timeout_seconds: float, /) -> tuple[bytes, Settle]:
        """Return the body of the reply, which is on loan until the second value was called.

        Where this raises, nothing was lent.
        """


#: Fetches newer snapshots from the store; returns soon, also when the store is away, and never raises.
Refresh = Callable[[], Awaitable[None]]

#: Log lines with their entry's id, a line feed between two; None when there was nothing for a while: time for a heartbeat.
LogEntry = tuple[str, bytes] | None


class LogSource(Protocol):
    """Where viewers get log lines from."""

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[LogEntry]]:
        """Open the log: a short replay, then the lines as they come.

        A viewer too slow for them finds ``[N lines dropped…]``.
        """
