"""The maintenance calls without any transport: what a call is checked for, and who does it.

Every call but the first is a job of the supervisor's: checked here, handed over as a command, and waited for. A caller that goes
away does not stop its job.
"""

from __future__ import annotations

import json

from pgnode.api.service.ports import Commands, Reads, Refresh
from pgnode.bus.commands import Kind
from pgnode.wire.maintenance import core_version_of, object_of, region_of, text_of
from pgnode.wire.node_version import told_version

#: Seconds that a caller waits beyond the time that a job may prepare: the core is replaced after that, with deadlines of its own.
EXCHANGE_SECONDS = 20.0


class MaintenanceService:
    """One object per worker that answers :data:`~pgnode.api.service.maintenance_calls.CALLS`.

    Args:
        reads: The worker's snapshots.
        commands: The way to the supervisor.
        refresh: Fetches newer snapshots.
        job_timeout_seconds: How long a job may prepare.
        write_timeout_seconds: How long a reset may take.
        node_version: The worker's own version.
    """

    def __init__(
        self,
        reads: Reads,
        commands: Commands,
        refresh: Refresh,
        *,
        job_timeout_seconds: float,
        write_timeout_seconds: float,
        node_version: str,
    ) -> None:
        self._reads = reads
        self._commands = commands
        self._refresh = refresh
        self._job_seconds = job_timeout_seconds + EXCHANGE_SECONDS
        self._write_seconds = write_timeout_seconds
        self._node_version = node_version

    def __repr__(self) -> str:
        return f"MaintenanceService({self._reads.status})"

    async def hello(self, _body: bytes = b"") -> bytes:
        """Answer from this worker's memory; this never fails."""
        status = self._reads.status
        return json.dumps(
            {
                "detail": f"pgnode {self._node_version} is running",
                "node_version": told_version(self._node_version),
                "core_version": status.core_version if status is not None else "",
                "state": status.state if status is not None else "unknown",
            }
        ).encode()

    async def core_update(self, body: bytes) -> bytes:
        """Replace the core. Raise InvalidRequestError, ConflictError, UpdateFailedError or DownloadFailedError."""
        version = core_version_of(text_of(object_of(body, ["core_version"]), "core_version"))
        return await self._job(Kind.CORE_UPDATE, {"core_version": version}, self._job_seconds)

    async def geofiles(self, body: bytes) -> bytes:
        """Replace the geo files. Raise InvalidRequestError, ConflictError, UpdateFailedError or DownloadFailedError."""
        region = region_of(text_of(object_of(body, ["region"]), "region"))
        return await self._job(Kind.GEOFILES, {"region": region}, self._job_seconds)

    async def hard_reset(self, body: bytes) -> bytes:
        """Stop the core and delete config and users. Raise ConflictError."""
        object_of(body, [])
        return await self._job(Kind.HARD_RESET, {}, self._write_seconds)

    async def update(self, body: bytes) -> bytes:
        """Run UPDATE_COMMAND. Raise UnsupportedError, ConflictError or UpdateFailedError."""
        object_of(body, [])
        return await self._job(Kind.UPDATE, {}, self._job_seconds)

    async def _job(self, kind: Kind, request: dict[str, str], timeout_seconds: float) -> bytes:
        answer = await self._commands.call(kind, json.dumps(request).encode() if request else b"", timeout_seconds)
        # The caller's next request may come to this worker, which then has to know the core's new version and state.
        await self._refresh()
        return answer
