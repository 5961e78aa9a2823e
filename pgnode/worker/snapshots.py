"""A worker's own copy of the snapshots, decoded once per revision, for reads that cost a dict look-up."""

from __future__ import annotations

import time

import structlog

from pgnode.bus import snapshots
from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.snapshots import NodeStatus, Polled, Snapshot

log = structlog.get_logger(__name__)


class LocalSnapshots:
    """Filled by whoever follows the snapshots (:meth:`take`), read by the service; all within one event loop.

    Attributes:
        status: The node's state, None before the first one came.
    """

    def __init__(self) -> None:
        self.status: NodeStatus | None = None
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
                return
            body = bytes(snapshot.body)
            if snapshot.name == snapshots.STATE:
                self.status = NodeStatus.decode(body)
            elif snapshot.name == snapshots.POLLED:
                polled = self._polled = Polled.decode(body)
                self._read_at = None if polled.age_ms is None else time.monotonic() - polled.age_ms / 1000
            else:
                self._bodies[snapshot.name] = body
        except (ValueError, TypeError) as error:
            log.warning("snapshot not readable", name=snapshot.name, rev=snapshot.rev, error=str(error))

    def body(self, name: str) -> bytes | None:
        """Return the raw bytes of "system" or "backend"; None before the first ones."""
        return self._bodies.get(name)

    def block(self, name: str) -> IndexedBlock | None:
        """Return the statistics of a kind, or who is online; None before the first ones."""
        return self._blocks.get(name)

    def fresh_block(self, name: str) -> IndexedBlock | None:
        """Return :meth:`block`; None also where the last reading of the core failed."""
        polled = self._polled
        return self._blocks.get(name) if polled is None or not polled.error else None

    def age_seconds(self) -> float | None:
        """Return seconds since the core was read for the statistics; None where it was not yet."""
        return None if self._read_at is None else time.monotonic() - self._read_at

    def overdue(self) -> str:
        """Return why the statistics are older than two intervals; "" where they are not, or nothing is known to have failed."""
        polled = self._polled
        if polled is None or not polled.error:
            return ""
        age = self.age_seconds()
        if age is None or age * 1000 <= 2 * polled.interval_ms:
            return ""
        return polled.error
