"""A worker's own copy of the snapshots, decoded once per revision, for reads that cost a dict look-up."""

from __future__ import annotations

import structlog

from pgnode.bus import snapshots
from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.snapshots import NodeStatus, Snapshot

log = structlog.get_logger(__name__)

_BLOCKS = frozenset(
    {snapshots.STATS_USERS, snapshots.STATS_INBOUNDS, snapshots.STATS_OUTBOUNDS, snapshots.ONLINE},
)


class LocalReads:
    """Filled by the snapshot reader (:meth:`take`), read by the service object; all within one event loop."""

    def __init__(self) -> None:
        #: The node's state, None before the first look at Redis.
        self.status: NodeStatus | None = None
        self._bodies: dict[str, bytes] = {}
        self._blocks: dict[str, IndexedBlock] = {}

    def __repr__(self) -> str:
        return f"LocalReads({self.status.state if self.status else 'nothing yet'}, {len(self._bodies) + len(self._blocks)})"

    def take(self, snapshot: Snapshot) -> None:
        """Take over a new revision. One that cannot be read is left out, and the one before stays."""
        try:
            if snapshot.name == snapshots.STATE:
                self.status = NodeStatus.decode(snapshot.body)
            elif snapshot.name in _BLOCKS:
                self._blocks[snapshot.name] = IndexedBlock(snapshot.body)
            else:
                self._bodies[snapshot.name] = snapshot.body
        except (ValueError, TypeError) as error:
            log.warning("snapshot not readable", name=snapshot.name, rev=snapshot.rev, error=str(error))

    def body(self, name: str) -> bytes | None:
        """Raw bytes of "system" or "backend"."""
        return self._bodies.get(name)

    def block(self, name: str) -> IndexedBlock | None:
        """The statistics of a kind, or who is online."""
        return self._blocks.get(name)
