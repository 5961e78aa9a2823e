"""Everything that was counted: the ledger, and the statistics of each kind as they are on the wire, kept in step with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from itertools import islice

from pgnode.bus.snapshots import STATS_INBOUNDS, STATS_OUTBOUNDS, STATS_USERS
from pgnode.store.changes import Journal
from pgnode.store.state import StoredState
from pgnode.supervisor.traffic.counter_reader import Counters
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.stats_index import KINDS, EncodedStats
from pgnode.supervisor.traffic.traffic_watch import TrafficWatch

#: Kind -> name of its snapshot.
SNAPSHOTS = {"user": STATS_USERS, "inbound": STATS_INBOUNDS, "outbound": STATS_OUTBOUNDS}

#: Counters that are counted, or encoded, before the event loop gets its turn: some 10 ms.
SLICE = 5_000


class TrafficFigures:
    """Belongs to the supervisor's loop; shared by those who count, hand out and forget.

    Args:
        journal: Where changes for the store go.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        #: What moved between the last two readings, while somebody looks.
        self.watch = TrafficWatch(time.monotonic)
        self.ledger = Ledger(self.watch)
        self.encoded = {kind: EncodedStats(kind, self.ledger) for kind in KINDS}
        #: Set when snapshots are older than what is known.
        self.news = asyncio.Event()

    def __repr__(self) -> str:
        return f"TrafficFigures({self.ledger!r})"

    async def restore(self, stored: StoredState) -> None:
        """Take over the counters that an earlier supervisor stored; nothing else may be asked of this object meanwhile."""
        rows = iter(stored.counters.items())
        while chunk := dict(islice(rows, SLICE)):
            self.ledger.restore(stored.run, chunk, {})
            self.touch(chunk)
            await asyncio.sleep(0)

    async def count(self, run: str, counters: Counters) -> None:
        """Count a reading in the ledger.

        Args:
            run: Tells one core process from the next.
            counters: (name, bytes) as the core has them.
        """
        for at in range(0, len(counters), SLICE):
            self.touch(self.ledger.read(run, counters[at : at + SLICE]))
            if len(counters) > SLICE:
                await asyncio.sleep(0)

    def touch(self, counters: Iterable[str]) -> None:
        """Mark the statistics of these counters: they are encoded anew when they are needed."""
        by_kind: dict[str, list[str]] = {}
        for counter in counters:
            by_kind.setdefault(counter.partition(">>>")[0], []).append(counter)
        for kind, of_kind in by_kind.items():
            if kind in self.encoded:
                self.encoded[kind].touch(of_kind)

    def note(self) -> None:
        """Note what changed in the ledger, for the next commit."""
        if rows := self.ledger.take_unstored():
            self._journal.counters.update(rows)
            self._journal.run = self.ledger.last_run

    async def blocks(self) -> dict[str, bytes]:
        """Return snapshot name -> body, of the kinds that changed since the last call."""
        made: dict[str, bytes] = {}
        for kind, encoded in self.encoded.items():
            if not encoded.changed:
                continue
            while not encoded.encode(SLICE // 2):  # noqa: ASYNC110 - the loop gets its turn between two slices of work
                await asyncio.sleep(0)
            made[SNAPSHOTS[kind]] = await asyncio.to_thread(encoded.block())
        return made
