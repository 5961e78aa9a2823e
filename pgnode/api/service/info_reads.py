"""What the node is and how it does: versions, the machine's figures, the core's own. All from this worker's memory."""

from __future__ import annotations

from pgnode.api.service.ports import Reads
from pgnode.api.service.state import StateChecks
from pgnode.api.service.tracked import Answer
from pgnode.bus import snapshots
from pgnode.bus.snapshots import NodeStatus
from pgnode.bus.state import State
from pgnode.errors import BusUnavailableError, CoreUnavailableError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.node_version import told_version


class InfoReads:
    """The handlers of GetBaseInfo, GetSystemStats and GetBackendStats.

    Args:
        reads: The worker's snapshots.
        state: Tells whether the core can be read.
        node_version: The worker's own version, told to callers until the supervisor has said its.
    """

    def __init__(self, reads: Reads, state: StateChecks, *, node_version: str) -> None:
        self._reads = reads
        self._state = state
        self._core_answers = state.core_answers
        self._node_version = node_version
        self._encoded_status: NodeStatus | None = None
        self._encoded = self._encode(None)

    def __repr__(self) -> str:
        return f"InfoReads({self._reads.status})"

    def info(self, _body: bytes = b"") -> Answer:
        """Return a BaseInfoResponse, in every state; a supervisor that has just begun is waited for, up to a limit."""
        if self._is_well():
            return self._info_now()
        return self._state.after_refresh(self._info_now, core_found=True)

    def info_cached(self, _body: bytes = b"") -> bytes | None:
        """Return :meth:`info` where the core runs, which is no news that has to be waited for."""
        return self._info_now() if self._is_well() else None

    def system_stats(self, _body: bytes = b"") -> bytes:
        """Return SystemStatsResponse, in every state. Raise BusUnavailableError before the first one has arrived."""
        body = self._reads.body(snapshots.SYSTEM)
        if body is None:
            # Only in a worker's first moments.
            raise BusUnavailableError("no system statistics yet: the supervisor has not sent any, try again")
        return body

    def backend_stats(self, _body: bytes = b"") -> Answer:
        """Return BackendStatsResponse. Raise the UnavailableError of the node's state."""
        if self._is_well():
            return self._backend_stats_now()
        return self._state.after_refresh(self._backend_stats_now)

    def backend_stats_cached(self, _body: bytes = b"") -> bytes | None:
        """Return :meth:`backend_stats` where the core answers."""
        return self._reads.body(snapshots.BACKEND) if self._is_well() else None

    def _is_well(self) -> bool:
        """Tell whether the core runs, and no message waits to be read that may say otherwise: a caller may know that by now."""
        return self._core_answers() and not self._reads.has_unheard()

    def _backend_stats_now(self) -> bytes:
        self._state.require_core("failed to get sys stats")
        body = self._reads.body(snapshots.BACKEND)
        if body is None:
            raise CoreUnavailableError("failed to get sys stats: not read from the core yet")
        return body

    def _info_now(self) -> bytes:
        status = self._reads.status
        if status is not self._encoded_status:
            self._encoded = self._encode(status)
            self._encoded_status = status
        return self._encoded

    def _encode(self, status: NodeStatus | None) -> bytes:
        running = status is not None and (
            status.state == State.RUNNING or (status.state == State.RESTORING and status.core_ready)
        )
        version = (status.node_version if status is not None else "") or self._node_version
        return pb.BaseInfoResponse(
            started=running,
            core_version=status.core_version if status is not None else "",
            node_version=told_version(version),
            version=version,
            core_type=status.core_type if status is not None else snapshots.XRAY,
            running=running,
        ).SerializeToString()
