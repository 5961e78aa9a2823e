"""Traffic: reads the core's counters into the ledger, hands out what is owed, makes the snapshots of statistics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from redis.asyncio.client import Pipeline

from pgnode.bus import indexed
from pgnode.bus.snapshots import ONLINE, STATS_INBOUNDS, STATS_OUTBOUNDS, STATS_USERS
from pgnode.errors import CoreUnavailableError
from pgnode.supervisor.keeper import Undo
from pgnode.supervisor.ledger import Ledger
from pgnode.supervisor.sampling import KINDS, STAT_TYPES, StatsBook, stats_answer
from pgnode.supervisor.store import Store
from pgnode.wire import service_pb2 as pb
from pgnode.xray.api import CoreApi, CoreApiError

log = structlog.get_logger(__name__)

SNAPSHOT_OF = {"user": STATS_USERS, "inbound": STATS_INBOUNDS, "outbound": STATS_OUTBOUNDS}

#: The whole of the counters of 100,000 users takes the core 0.3 s.
POLL_SECONDS = 5.0


class Traffic:
    """Belongs to the supervisor's loop. Any number of askers share one reading of the core."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.ledger = Ledger()
        self._book = StatsBook(self.ledger)
        #: Kinds ("user", …) whose snapshot is older than the ledger.
        self.stale: set[str] = set(KINDS)
        self._reading: asyncio.Task[str] | None = None
        #: What was taken since the last transaction: nobody has it while that is not through.
        self._taken: list[tuple[str, int]] = []

    def restore(self, stored: Mapping[str, str]) -> None:
        self.ledger.restore(stored)
        self.stale |= self._book.touch(self.ledger.names())

    async def poll(self, api: CoreApi | None, run: str) -> str:
        """Read the counters of core run ``run`` once; returns why that was not possible, "" when it was."""
        if api is None:
            return "no core runs"
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(api, run))
        return await asyncio.shield(self._reading)

    async def _read(self, api: CoreApi, run: str) -> str:
        try:
            answer = await api.query_stats("", POLL_SECONDS)
        except CoreApiError as error:
            return str(error)
        changed = self.ledger.read(run, ((stat.name, stat.value) for stat in answer.stat))
        self.stale |= self._book.touch(changed)
        return ""

    async def take_stats(self, body: bytes, api: CoreApi | None, run: str) -> bytes:
        """StatResponse for a StatRequest with ``reset``: what is owed, booked as reported. Raises CoreUnavailableError."""
        error = await self.poll(api, run)
        if error:
            raise CoreUnavailableError(f"failed to get stats: {error}")
        request = pb.StatRequest.FromString(body)
        kind, named = STAT_TYPES[request.type]
        taken = self.ledger.take(self._book.counters_of(kind, request.name if named else None))
        self.stale |= self._book.touch(name for name, _ in taken)
        self._taken += taken
        return stats_answer(taken).SerializeToString()

    # --- the copy in the store ----------------------------------------------------------------------------------

    def stage(self, pipe: Pipeline) -> Undo | None:
        taken, self._taken = self._taken, []
        entries = self.ledger.take_unstored()
        if not entries:
            return None
        self._store.put_ledger(pipe, entries)

        def undo() -> None:
            self.ledger.put_back_unstored(entries)
            # Nobody got it: it is owed as before.
            self.ledger.give_back(taken)
            self.stale.update(self._book.touch(name for name, _ in taken))

        return undo

    def stage_all(self, pipe: Pipeline) -> Undo | None:
        self.ledger.mark_all_unstored()
        return self.stage(pipe)

    def blocks(self) -> dict[str, bytes]:
        """Snapshot name -> body, of the kinds that changed since the last call."""
        stale, self.stale = self.stale, set()
        return {SNAPSHOT_OF[kind]: self._book.block(kind) for kind in stale}


async def read_online(api: CoreApi, deadline_seconds: float) -> dict[str, bytes]:
    """Snapshot of who is online: name -> body. Raises CoreApiError."""
    items = []
    for user in (await api.users_stats(deadline_seconds, include_traffic=False)).users:
        message = pb.StatsOnlineIpListResponse(name=user.email)
        for address in user.ips:
            message.ips[address.ip] = address.last_seen
        if message.ips:
            items.append((indexed.name_hash(user.email), message.SerializeToString()))
    return {ONLINE: indexed.pack(items)}
