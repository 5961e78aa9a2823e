"""A worker's own copy of the snapshots, decoded once per revision, for reads that cost a dict look-up."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import structlog

from pgnode.bus import snapshots
from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.protocol import PROTOCOL, Hello
from pgnode.bus.snapshots import NodeStatus, Polled, Snapshot

log = structlog.get_logger(__name__)

#: Share of the time for which figures are fresh, after which newer ones are asked for: they are there in time then.
RENEW_SHARE = 0.6


class LocalSnapshots:
    """Filled by whoever follows the snapshots (:meth:`take`), read by the service; all within one event loop.

    Attributes:
        status: The node's state, None before the first one came.
        renew_at: Monotonic time from which on newer figures are to be asked for.
        stale_at: Monotonic time from which on the figures are too old to be told without asking for newer ones.
        inbounds_counted: Whether the core counts inbounds; None where that is not known.

    Args:
        now: Monotonic seconds.
        want: Has a block fetched of which there is a newer revision.
        has_unheard: Tells whether a further revision has come that is taken over in the next turn of the event loop.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        want: Callable[[str], None] = lambda _name: None,
        has_unheard: Callable[[], bool] = lambda: False,
    ) -> None:
        self._now = now
        #: Tells whether a further revision has come that is taken over in the next turn of the event loop.
        self.has_unheard = has_unheard
        self._on_hello: list[Callable[[Hello], None]] = []
        self._hello: Hello | None = None
        #: Has a block fetched of which there is a newer revision.
        self.want = want
        self._behind: dict[str, int] = {}
        self.status: NodeStatus | None = None
        self.renew_at = self.stale_at = math.inf
        self.inbounds_counted: bool | None = None
        self._revisions: dict[str, int] = {}
        #: Whoever waits for the next figures.
        self._awaited: asyncio.Future[None] | None = None
        self._polled: Polled | None = None
        #: Monotonic time at which the core was read last.
        self._read_at: float | None = None
        self._bodies: dict[str, bytes] = {}
        self._blocks: dict[str, IndexedBlock] = {}

    def __repr__(self) -> str:
        return f"LocalSnapshots({self.status.state if self.status else 'nothing yet'}, {len(self._bodies) + len(self._blocks)})"

    def take(self, snapshot: Snapshot) -> None:
        """Take over a new revision. One that cannot be read is left out, and the previous one stays."""
        try:
            if snapshot.name in snapshots.BLOCKS:
                self._blocks[snapshot.name] = IndexedBlock(snapshot.body)
                self._revisions[snapshot.name] = snapshot.rev
                if snapshot.rev >= self._behind.get(snapshot.name, snapshot.rev):
                    self._behind.pop(snapshot.name, None)
                self._wake()
                return
            body = bytes(snapshot.body)
            if snapshot.name == snapshots.SUPERVISOR:
                self._hello = Hello.decode(body)
                for follower in self._on_hello:
                    follower(self._hello)
            elif snapshot.name == snapshots.STATE:
                self.status = NodeStatus.decode(body)
                self._wake()
            elif snapshot.name == snapshots.POLLED:
                polled = self._polled = Polled.decode(body)
                self._read_at = None if polled.age_ms is None else self._now() - polled.age_ms / 1000
                self.inbounds_counted = polled.inbounds_counted
                self._note_freshness(polled)
            else:
                self._bodies[snapshot.name] = body
        except (ValueError, TypeError, AttributeError) as error:
            # Of another protocol nothing has to be readable, and that was said.
            tell = log.warning if self._hello is None or self._hello.protocol == PROTOCOL else log.debug
            tell("snapshot not readable", name=snapshot.name, rev=snapshot.rev, error=str(error))

    def tell(self, follower: Callable[[Hello], None]) -> None:
        """Tell ``follower`` what the supervisor says of itself: now, and whenever it says something else."""
        self._on_hello.append(follower)
        if self._hello is not None:
            follower(self._hello)

    def note_behind(self, name: str, rev: int) -> None:
        """Take note that there is a newer revision of a block, which comes when it is wanted."""
        self._behind[name] = rev

    def is_behind(self, name: str) -> bool:
        """Whether there is a newer revision of a block, which has to be fetched first."""
        return name in self._behind

    def body(self, name: str) -> bytes | None:
        """Return the raw bytes of "system" or "backend"; None before the first ones."""
        return self._bodies.get(name)

    def block(self, name: str) -> IndexedBlock | None:
        """Return the statistics of a kind, or who is online; None before the first ones."""
        return self._blocks.get(name)

    def fresh_block(self, name: str) -> IndexedBlock | None:
        """Return :meth:`block`; None also where the last reading failed, it is void, or there is a newer one."""
        polled = self._polled
        if name in self._behind:
            return None
        if polled is None:
            return self._blocks.get(name)
        if polled.error or self._revisions.get(name, 0) < polled.since.get(name, 0):
            return None
        return self._blocks.get(name)

    def is_void(self, name: str) -> bool:
        """Whether a block shows what was handed out since."""
        return self._polled is not None and self._revisions.get(name, 0) < self._polled.since.get(name, 0)

    async def news(self) -> None:
        """Wait for the next figures, what tells their age, or the next state of the node."""
        if self._awaited is None:
            self._awaited = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._awaited)

    def _note_freshness(self, polled: Polled) -> None:
        if self._read_at is None:
            # A new supervisor has read no core yet: what one that runs has counted meanwhile is missing.
            self.renew_at = self.stale_at = -math.inf
        else:
            self.renew_at = self._read_at + polled.fresh_seconds * RENEW_SHARE
            self.stale_at = self._read_at + polled.fresh_seconds
        self._wake()

    def _wake(self) -> None:
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_result(None)

    def age_seconds(self) -> float | None:
        """Return seconds since the core was read for the statistics; None where it was not yet."""
        return None if self._read_at is None else self._now() - self._read_at

    def overdue(self) -> str:
        """Return why the statistics are older than two intervals; "" where they are not, or nothing is known to have failed."""
        polled = self._polled
        if polled is None or not polled.error:
            return ""
        age = self.age_seconds()
        if age is None or age * 1000 <= 2 * polled.interval_ms:
            return ""
        return polled.error
