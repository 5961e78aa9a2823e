"""Answers to reads, made when a snapshot comes and not when somebody asks.

A worker feeds every new snapshot to :meth:`Answers.update`; the service takes finished bytes out. Everything here
belongs to one event loop.
"""

from __future__ import annotations

from pgnode import __version__
from pgnode.bus.indexed import EMPTY, IndexedBlock
from pgnode.bus.snapshots import (
    BACKEND,
    ONLINE,
    STATE,
    STATS_INBOUNDS,
    STATS_OUTBOUNDS,
    STATS_USERS,
    SYSTEM,
    NodeStatus,
    Snapshot,
)
from pgnode.wire import service_pb2 as pb

#: The state in which the core runs and takes calls; names of states are in pgnode.bus.snapshots.
RUNNING = "running"

_BLOCKS = frozenset({STATS_USERS, STATS_INBOUNDS, STATS_OUTBOUNDS, ONLINE})


def base_info(status: NodeStatus | None) -> bytes:
    """An encoded ``BaseInfoResponse``; ``status`` None when nothing is known but this program's version."""
    running = status is not None and status.state == RUNNING
    return pb.BaseInfoResponse(
        started=running,
        core_version=status.core_version if status is not None else "",
        node_version=status.node_version if status is not None else __version__,
        version=status.node_version if status is not None else __version__,
        core_type="xray",
        running=running,
    ).SerializeToString()


class Answers:
    """The newest of everything that reads are answered from."""

    def __init__(self) -> None:
        #: None before the first look at the store.
        self.status: NodeStatus | None = None
        #: ``BaseInfoResponse``.
        self.info: bytes = base_info(None)
        #: ``SystemStatsResponse`` and ``BackendStatsResponse``; None before there was one.
        self.system: bytes | None = None
        self.backend: bytes | None = None
        #: Snapshot name -> block, for statistics and online users.
        self.blocks: dict[str, IndexedBlock] = {name: IndexedBlock(EMPTY) for name in _BLOCKS}

    def __repr__(self) -> str:
        return f"Answers({self.status.state if self.status is not None else 'nothing known'})"

    def update(self, snapshot: Snapshot) -> None:
        """Take over a new snapshot. Raises ValueError for one that is malformed; the earlier one stays."""
        name, body = snapshot.name, snapshot.body
        if name == STATE:
            status = NodeStatus.decode(body)
            self.info = base_info(status)
            self.status = status
        elif name == SYSTEM:
            self.system = body
        elif name == BACKEND:
            self.backend = body
        elif name in _BLOCKS:
            self.blocks[name] = IndexedBlock(body)
