"""The log over gRPC, for as long as each caller stays, and the end of all viewers when the worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pgnode.api.grpc.grpc_compat import Context
from pgnode.api.grpc.limits import ConcurrencyLimit
from pgnode.api.service.ports import LogEntry
from pgnode.errors import UnavailableError
from pgnode.wire import service_pb2 as pb

_ENDING_TEXT = "this worker is ending: open the log again"


class LogViewers:
    """All viewers of the log from this worker over gRPC.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self.limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False

    def __repr__(self) -> str:
        return f"LogViewers({self.limit})"

    async def pass_on(self, entries: AsyncIterator[LogEntry], context: Context) -> None:
        """Send what is logged until the caller goes; raise UnavailableError when the worker ends.

        This waits for the one caller alone: the entries queue up, and are dropped, for each by itself. There are no heartbeats,
        since the panel would show them as empty lines. Callers that have gone without closing are found by the connection's
        own pings.

        Args:
            entries: The log.
            context: The call; this has to run in the call's own task.
        """
        self._refuse_when_ending()
        viewer = asyncio.current_task()
        assert viewer is not None
        self._tasks.add(viewer)
        try:
            async for entry in entries:
                if entry is not None:
                    for text in entry[1].decode(errors="replace").split("\n"):
                        await context.write(pb.Log(detail=text).SerializeToString())
        except asyncio.CancelledError:
            if not self._ending:
                raise
            viewer.uncancel()
            raise UnavailableError(_ENDING_TEXT) from None
        finally:
            self._tasks.discard(viewer)

    def _refuse_when_ending(self) -> None:
        """Refuse a viewer that was still joining when the others were told."""
        if self._ending:
            raise UnavailableError(_ENDING_TEXT)

    def end(self) -> None:
        """Tell all viewers that this worker ends."""
        self._ending = True
        for viewer in self._tasks:
            viewer.cancel()
