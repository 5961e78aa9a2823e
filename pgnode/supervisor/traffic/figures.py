"""Everything that was counted: the ledger, and the statistics of each kind as they are on the wire, kept in step with it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from pgnode.bus.snapshots import STATS_INBOUNDS, STATS_OUTBOUNDS, STATS_USERS
from pgnode.store.changes import Journal
from pgnode.store.rows import LedgerRow
from pgnode.store.state import StoredState
from pgnode.supervisor.traffic.counter_reader import Counters
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.stats_index import KINDS, EncodedStats
from pgnode.supervisor.traffic.traffic_watch import TrafficWatch

#: Kind -> name of its snapshot.
SNAPSHOTS = {"user": STATS_USERS, "inbound": STATS_INBOUNDS, "outbound": STATS_OUTBOUNDS}

#: Counters that are counted, encoded, or noted for the store before the event loop gets its turn: some 10 ms.
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
        #: Set when snapshots are older than what is known, and when somebody waits for newer ones.
        self.news = asyncio.Event()
        self.urgent = asyncio.Event()
        #: How often something of a kind was handed out.
        self._lent: Counter[str] = Counter()
        #: Names of snapshots that show what was handed out since they were made.
        self.void: set[str] = set()
        #: Kinds of which no snapshot is made for a while, and what ends that.
        self._held: dict[str, asyncio.TimerHandle] = {}

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

    def lend(self, part: str, kind: str, counters: Sequence[str]) -> list[tuple[str, int]]:
        """Hand out what is owed of some counters of a kind.

        Args:
            part: Name of the part of the loan.
            kind: One of :data:`~pgnode.supervisor.traffic.stats_index.KINDS`.
            counters: Their names.

        Returns:
            (counter, bytes) of those that something was owed of.
        """
        lent = self.ledger.lend(part, counters)
        if lent:
            self._lent[kind] += 1
            self.void.add(SNAPSHOTS[kind])
            self.encoded[kind].lent([counter for counter, _ in lent])
        return lent

    def hold(self, kind: str, seconds: float) -> None:
        """Make no snapshot of a kind for a while: all of it is being handed out, so the snapshot would be out of date at once.

        Args:
            kind: One of :data:`~pgnode.supervisor.traffic.stats_index.KINDS`.
            seconds: For how long, unless :meth:`release` comes before.
        """
        if (held := self._held.get(kind)) is not None:
            held.cancel()
        self._held[kind] = asyncio.get_running_loop().call_later(seconds, self.release, kind)

    def release(self, kind: str) -> None:
        """Make snapshots of a kind again. Nothing happens where it was not held."""
        held = self._held.pop(kind, None)
        if held is not None:
            held.cancel()
            self.news.set()

    def is_holding(self) -> bool:
        """Tell whether something changed of which no snapshot is made for a while."""
        return any(self.encoded[kind].changed for kind in self._held)

    def hurry(self) -> None:
        """Have what is known published at once: somebody waits for it."""
        self.news.set()
        self.urgent.set()

    def note(self, among: Iterable[str]) -> None:
        """Note what changed in the ledger of some counters, for the next commit.

        Args:
            among: Their names.
        """
        self._note(self.ledger.take_unstored(among))

    async def note_all(self) -> None:
        """Note what changed in the ledger, for the next commit. The event loop gets its turns meanwhile.

        A commit that comes in between stores a part of it. Each row is right by itself, so that does no harm.
        """
        while rows := self.ledger.take_unstored(most=SLICE):
            self._note(rows)
            if len(rows) == SLICE:
                await asyncio.sleep(0)

    def _note(self, rows: Mapping[str, LedgerRow | None]) -> None:
        if rows:
            self._journal.counters.update(rows)
            self._journal.run = self.ledger.last_run

    async def blocks(self) -> dict[str, bytes]:
        """Return snapshot name -> body, of the kinds that changed since the last call; none shows what was handed out before."""
        made: dict[str, bytes] = {}
        wanted = [kind for kind, encoded in self.encoded.items() if encoded.changed]
        while wanted:
            # What was handed out while they were made is still in them.
            wanted = [kind for kind in wanted if kind not in self._held and not await self._block(kind, made)]
        self.void -= made.keys()
        return made

    async def _block(self, kind: str, made: dict[str, bytes]) -> bool:
        """Make the snapshot of a kind, unless it is held; return False where some of it was handed out meanwhile."""
        encoded, lent = self.encoded[kind], self._lent[kind]
        while not encoded.encode(SLICE // 2):
            await asyncio.sleep(0)
            if kind in self._held:
                return True
        body = await asyncio.to_thread(encoded.block())
        if self._lent[kind] != lent:
            return False
        made[SNAPSHOTS[kind]] = body
        return True
