"""A worker's copy of the snapshots, kept up to date, and whether it is."""

from __future__ import annotations

import asyncio

import structlog

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.host_copies import Bring, HostCopies
from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_reader import SnapshotReader
from pgnode.worker.snapshots import LocalSnapshots

log = structlog.get_logger(__name__)

#: A worker serves before it has read the snapshots for the first time, but waits so many seconds for it.
FIRST_POLL_SECONDS = 2.0

#: A Redis that has not been heard for so many seconds cannot be reached: it is polled every two.
UNHEARD_SECONDS = 10.0

#: A read that would say "not running" asks for news first, so many seconds at most.
REFRESH_SECONDS = 1.0


class SnapshotFollower:
    """Follows the snapshots from :meth:`start` to :meth:`close`. Belongs to one event loop.

    Attributes:
        snapshots: The copy.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        unheard_seconds: A Redis that has not been heard for so long cannot be reached.
        bring: Has the supervisor, on another host, write a large snapshot where it can be fetched; None: it is on this host.
    """

    def __init__(
        self, url: str, keys: Keys, *, unheard_seconds: float = UNHEARD_SECONDS, bring: Bring | None = None
    ) -> None:
        self._unheard_seconds = unheard_seconds
        # The reader is made below.
        self.snapshots = LocalSnapshots(
            want=lambda name: self._reader.want(name),  # noqa: PLW0108
            has_unheard=lambda: self._reader.has_unheard(),  # noqa: PLW0108
        )
        self._copies = HostCopies(url, keys, bring) if bring is not None else None
        self._reader = SnapshotReader(
            url,
            keys,
            self.snapshots.take,
            fetch=self._copies.fetch if self._copies is not None else None,
            on_behind=self.snapshots.note_behind,
        )
        self._refreshing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"SnapshotFollower({self.snapshots!r})"

    async def start(self) -> None:
        """Read what is there, within a time limit, and follow it from then on."""
        try:
            async with asyncio.timeout(FIRST_POLL_SECONDS):
                await self._reader.poll()
        except BUS_ERRORS as error:
            log.warning("worker starts without snapshots", error=str(error))
        self._reader.start()

    async def close(self) -> None:
        """End following."""
        await self._reader.close()
        if self._copies is not None:
            await self._copies.close()

    async def refresh(self) -> None:
        """Ask for news now; whoever asks while that is under way shares it."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self._reader.poll()
        except BUS_ERRORS as error:
            log.debug("no news", error=str(error))

    def is_up_to_date(self) -> bool:
        """Return whether the node's state is known, and Redis was heard of late."""
        polled_at = self._reader.polled_at
        if polled_at is None or self.snapshots.status is None:
            return False
        return asyncio.get_running_loop().time() - polled_at < self._unheard_seconds

    def is_serving(self) -> bool:
        """Return whether callers are to be sent here: the state is up to date, and the node is not being drained."""
        status = self.snapshots.status
        return self.is_up_to_date() and status is not None and not status.draining
