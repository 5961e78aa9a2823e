"""Traffic: reads the core's counters into the ledger, hands out what is owed, makes the snapshots of statistics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from pgnode.bus import indexed
from pgnode.bus.snapshots import ONLINE, STATS_INBOUNDS, STATS_OUTBOUNDS, STATS_USERS
from pgnode.supervisor.ledger import Ledger
from pgnode.supervisor.sampling import KINDS, STAT_TYPES, StatsBook
from pgnode.wire import service_pb2 as pb
from pgnode.xray.api import CoreApi, CoreApiError

log = structlog.get_logger(__name__)

SNAPSHOT_OF = {"user": STATS_USERS, "inbound": STATS_INBOUNDS, "outbound": STATS_OUTBOUNDS}

#: The whole of the counters of 100,000 users takes the core 0.3 s.
POLL_SECONDS = 5.0


class Traffic:
    """Belongs to the supervisor's loop. Any number of askers share one reading of the core."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._book = StatsBook(self.ledger)
        #: Kinds ("user", …) whose snapshot is older than the ledger.
        self.stale: set[str] = set(KINDS)
        self._reading: asyncio.Task[str] | None = None

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

    def take(self, request: pb.StatRequest) -> list[tuple[str, int]]:
        """(counter, owed bytes) of the asked kind and name, only what is owed; it counts as reported from now on."""
        kind, named = STAT_TYPES[request.type]
        taken = self.ledger.take(self._book.counters_of(kind, request.name if named else None))
        self.stale |= self._book.touch(name for name, _ in taken)
        return taken

    def give_back(self, taken: Sequence[tuple[str, int]]) -> None:
        """What :meth:`take` returned was not delivered."""
        self.ledger.give_back(taken)
        self.stale |= self._book.touch(name for name, _ in taken)

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
