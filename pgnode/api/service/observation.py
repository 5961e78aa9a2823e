"""How the node is, for monitors: metrics, and whether it lives, is ready, and has a core that serves.

Metrics and readiness are the supervisor's answer, so they are the same from every worker. While it does not answer, a worker
tells that, and what it knows itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

from pgnode.api.service.ports import Commands, Reads
from pgnode.bus.commands import Kind
from pgnode.errors import NodeError

#: Seconds that the supervisor has to answer; monitors wait for five or ten.
ANSWER_SECONDS = 2.0

JSON_TYPE = "application/json"

#: What a node is not ready for while its supervisor is silent.
SILENT = "the supervisor does not answer"


@dataclass(frozen=True, slots=True)
class Observed:
    """An answer to a monitor."""

    status: int
    media_type: str
    body: bytes


#: Takes an Accept header; returns the content type and the text of what this worker knows itself.
OwnMetrics = Callable[[str], tuple[str, bytes]]


class Observation:
    """One per worker.

    Args:
        reads: The worker's snapshots.
        commands: The way to the supervisor.
        own_metrics: Writes down what this worker knows itself; called in a thread.
        answer_seconds: Seconds that the supervisor has to answer.
    """

    def __init__(
        self, reads: Reads, commands: Commands, own_metrics: OwnMetrics, *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._reads = reads
        self._commands = commands
        self._own_metrics = own_metrics
        self._answer_seconds = answer_seconds

    def __repr__(self) -> str:
        return f"Observation({self._reads.status})"

    async def metrics(self, accept: str) -> Observed:
        """Return the metrics; while the supervisor is silent, that it is so.

        Args:
            accept: The Accept header.

        Returns:
            A text of Prometheus or OpenMetrics.
        """
        answer = await self._ask(Kind.METRICS, accept.encode())
        if answer is None:
            content_type, text = await asyncio.to_thread(self._own_metrics, accept)
        else:
            said, _, text = answer.partition(b"\n")
            content_type = said.decode()
        return Observed(200, content_type, text)

    async def live(self, _accept: str) -> Observed:
        """Return that this worker answers."""
        return Observed(200, JSON_TYPE, b'{"live": true}')

    async def ready(self, _accept: str) -> Observed:
        """Return whether the node is ready for callers, and why not."""
        answer = await self._ask(Kind.READY, b"")
        if answer is None:
            answer = json.dumps({"ready": False, "because": [SILENT]}).encode()
        return Observed(200 if json.loads(answer)["ready"] else 503, JSON_TYPE, answer)

    async def health(self, _accept: str) -> Observed:
        """Return whether a core serves users."""
        status = self._reads.status
        up = status is not None and status.core_ready
        body = {"core_up": up, "state": "unknown" if status is None else str(status.state)}
        return Observed(200 if up else 503, JSON_TYPE, json.dumps(body).encode())

    async def _ask(self, kind: Kind, body: bytes) -> bytes | None:
        """Ask the supervisor; None where it does not answer in time."""
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await self._commands.call(kind, body, self._answer_seconds)
        except (NodeError, TimeoutError):
            return None
