"""The maintenance calls without any transport: what they are, what a call is checked for, and who does it.

They are JSON over a port of their own (API_PORT). Every call but the first is a job of the supervisor's: checked here,
handed over as a command, and waited for. A caller that goes away does not stop its job.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from pgnode.api.service.node_service import Commands, Reads
from pgnode.bus.commands import Kind
from pgnode.errors import (
    BusUnavailableError,
    ConflictError,
    DeadlineExceededError,
    DownloadFailedError,
    InternalError,
    InvalidRequestError,
    LengthRequiredError,
    NodeError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedError,
    UpdateFailedError,
)
from pgnode.wire.maintenance import core_version_of, object_of, region_of, text_of

#: Seconds more that a caller waits than a job may prepare: a core is exchanged after that, with deadlines of its own.
EXCHANGE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class MaintenanceCall:
    """One call of the maintenance API."""

    http_method: Literal["GET", "POST"]
    #: Path without a trailing slash; it answers with one too.
    path: str
    #: Name of the handler on MaintenanceService: takes the body's bytes, returns those of a JSON object with ``detail``.
    handler: str
    takes_body: bool
    #: One sentence for the documents.
    summary: str
    #: What a job may answer beside what every call may.
    errors: tuple[type[NodeError], ...] = ()

    @property
    def all_errors(self) -> tuple[type[NodeError], ...]:
        """All that it may answer, by status."""
        found: set[type[NodeError]] = {UnauthenticatedError, InternalError, *self.errors}
        if self.http_method == "POST":
            found.update(
                (InvalidRequestError, TooLargeError, BusUnavailableError, DeadlineExceededError, ConflictError)
            )
        if self.takes_body:
            found.add(LengthRequiredError)
        return tuple(sorted(found, key=lambda error: (error.status, error.code)))


CALLS: tuple[MaintenanceCall, ...] = (
    MaintenanceCall(
        "GET", "/", "hello", False, "Answers at once, whatever else goes on: the panel asks before every call."
    ),
    MaintenanceCall(
        "POST",
        "/node/core_update",
        "core_update",
        True,
        'Downloads a release of the core and exchanges the core for it: `{"core_version": "latest"}` or a version.',
        (UpdateFailedError, DownloadFailedError),
    ),
    MaintenanceCall(
        "POST",
        "/node/geofiles",
        "geofiles",
        True,
        'Downloads geoip.dat and geosite.dat: `{"region": "iran"}`, `"china"` or `"russia"`.',
        (UpdateFailedError, DownloadFailedError),
    ),
    MaintenanceCall(
        "POST",
        "/node/hard_reset",
        "hard_reset",
        False,
        "Ends the core and forgets config and users; key, certificate and unreported traffic stay.",
    ),
    MaintenanceCall(
        "POST",
        "/node/update",
        "update",
        False,
        "Runs UPDATE_COMMAND and answers its output; without one it says how this installation is updated.",
        (UnsupportedError, UpdateFailedError),
    ),
)


class MaintenanceService:
    """One object per worker that answers :data:`CALLS`.

    ``job_timeout_seconds`` is what a job may take, ``write_timeout_seconds`` what a reset may.
    """

    def __init__(
        self,
        reads: Reads,
        commands: Commands,
        refresh: Callable[[], Awaitable[None]],
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
        """From this worker's memory; never fails."""
        status = self._reads.status
        return json.dumps(
            {
                "detail": f"pgnode {self._node_version} is here",
                "node_version": self._node_version,
                "core_version": status.core_version if status is not None else "",
                "state": status.state if status is not None else "unknown",
            }
        ).encode()

    async def core_update(self, body: bytes) -> bytes:
        """Raises InvalidRequest-, Conflict-, UpdateFailed- and DownloadFailedError."""
        version = core_version_of(text_of(object_of(body, ["core_version"]), "core_version"))
        return await self._job(Kind.CORE_UPDATE, {"core_version": version}, self._job_seconds)

    async def geofiles(self, body: bytes) -> bytes:
        """Raises InvalidRequest-, Conflict-, UpdateFailed- and DownloadFailedError."""
        region = region_of(text_of(object_of(body, ["region"]), "region"))
        return await self._job(Kind.GEOFILES, {"region": region}, self._job_seconds)

    async def hard_reset(self, body: bytes) -> bytes:
        """Raises ConflictError."""
        object_of(body, [])
        return await self._job(Kind.HARD_RESET, {}, self._write_seconds)

    async def update(self, body: bytes) -> bytes:
        """Raises Unsupported-, Conflict- and UpdateFailedError."""
        object_of(body, [])
        return await self._job(Kind.UPDATE, {}, self._job_seconds)

    async def _job(self, kind: Kind, request: dict[str, str], budget_seconds: float) -> bytes:
        answer = await self._commands.call(kind, json.dumps(request).encode() if request else b"", budget_seconds)
        # The caller's next request may come to this worker, which then has to know the core's new version and state.
        await self._refresh()
        return answer
