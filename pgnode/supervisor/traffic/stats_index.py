"""The statistics of all users, inbounds or outbounds as they are on the wire; what did not move is not encoded again. Pure.

Each name has a slot, and keeps it: the blocks that workers read are arrays, and a name is looked up once.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from pgnode.bus import indexed
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stat_names import SEPARATOR, parse_counter

#: The first part of a counter's name that makes it a statistic.
KINDS = ("user", "inbound", "outbound")

#: StatType -> (kind, whether one name is asked for).
STAT_TYPES: dict[int, tuple[str, bool]] = {
    pb.Outbounds: ("outbound", False),
    pb.Outbound: ("outbound", True),
    pb.Inbounds: ("inbound", False),
    pb.Inbound: ("inbound", True),
    pb.UsersStat: ("user", False),
    pb.UserStat: ("user", True),
}


class EncodedStats:
    """All names of one kind, each in a slot of its own, with the encoded statistics of that slot.

    Args:
        kind: One of :data:`KINDS`.
        ledger: Has the amounts.
    """

    def __init__(self, kind: str, ledger: Ledger) -> None:
        self.kind = kind
        self._prefix = kind + SEPARATOR
        self._ledger = ledger
        self._slots: dict[str, int] = {}
        self._names: list[str] = []
        self._counters: list[tuple[str, ...]] = []
        self._parts: list[bytes] = []
        self._hashes = array("Q")
        #: Rises with every name that comes or goes; and the index of the names, with the number it was made at.
        self._edition = 0
        self._index: tuple[int, bytes] = (-1, b"")
        #: Slots whose part is older than the ledger.
        self._stale: set[int] = set()
        #: Counters that may be owed something, in the order in which they began to be. A dict for its order.
        self._owing: dict[str, None] = {}
        #: Counters that were handed out and whose parts are to be made anew.
        self._lent: deque[Iterator[str]] = deque()
        #: How many slots are free, because their names were dropped.
        self._free_slots = 0
        #: The block is older than the parts, or the parts than the ledger.
        self.changed = True
        self._only_owed = False

    def __repr__(self) -> str:
        return f"EncodedStats({self.kind}, {len(self._names) - self._free_slots} names, {len(self._stale)} stale)"

    def __len__(self) -> int:
        return len(self._names) - self._free_slots

    def show_only_owed(self, wanted: bool) -> None:
        """Leave names out that are owed nothing: they are not counted (any more), and a zero would say that nothing moved."""
        if wanted != self._only_owed:
            self._only_owed = wanted
            self._stale.update(self._slots.values())
            self.changed = True

    def touch(self, counters: Iterable[str]) -> None:
        """Take note that these counters are new, have moved, or are owed again."""
        at, slots, owing, stale = len(self._prefix), self._slots, self._owing, self._stale
        for counter in counters:
            slot = slots.get(counter[at:].rsplit(SEPARATOR, 2)[0])
            if slot is None or counter not in (known := self._counters[slot]):
                self._enter(counter)
                continue
            # Names are as long as all else that is kept of a counter: each is there once.
            owing[known[known.index(counter)]] = None
            stale.add(slot)
            self.changed = True

    def _enter(self, counter: str) -> None:
        """Take note of a counter that is not known, if it is one of the kind's."""
        parsed = parse_counter(counter) if counter.startswith(self._prefix) else None
        if parsed is None:
            return
        slot = self._slots.get(parsed.name)
        if slot is None:
            slot = self._slots[parsed.name] = len(self._names)
            self._names.append(parsed.name)
            self._counters.append(())
            self._parts.append(b"")
            self._hashes.append(indexed.name_hash(parsed.name))
            self._edition += 1
        self._counters[slot] += (counter,)
        self._owing[counter] = None
        self._stale.add(slot)
        self.changed = True

    def lent(self, counters: Iterable[str]) -> None:
        """Take note that these counters were handed out. Costs nothing now: somebody waits for them."""
        self._lent.append(iter(counters))
        self.changed = True

    def encode(self, limit: int) -> bool:
        """Encode stale parts, or find out which are stale.

        Args:
            limit: How many at most.

        Returns:
            Whether none is left.
        """
        if self._lent:
            slice_of_first = list(islice(self._lent[0], limit))
            self._find_stale(slice_of_first)
            if len(slice_of_first) < limit:
                self._lent.popleft()
            return False
        get = self._ledger.get
        for slot in list(islice(self._stale, limit)):
            response = pb.StatResponse()
            name = self._names[slot]
            skip = len(self._prefix) + len(name) + len(SEPARATOR)
            for counter in self._counters[slot]:
                entry = get(counter)
                if entry is not None and (entry.free or not self._only_owed):
                    link, _, direction = counter[skip:].partition(SEPARATOR)
                    response.stats.add(name=name, type=direction, link=link, value=entry.free)
            self._parts[slot] = response.SerializeToString()
            self._stale.discard(slot)
        return not self._stale

    def _find_stale(self, counters: list[str]) -> None:
        at = len(self._prefix)
        slots, stale = self._slots, self._stale
        for counter in counters:
            slot = slots.get(counter[at:].rsplit(SEPARATOR, 2)[0])
            if slot is not None:  # otherwise it was dropped meanwhile
                stale.add(slot)

    def block(self) -> Callable[[], bytes]:
        """Return a function, for any thread, that makes the indexed block of all parts as they are now."""
        edition, parts = self._edition, list(self._parts)
        made_at, names = self._index
        hashes = None if made_at == edition else self._hashes[:]
        self.changed = bool(self._stale or self._lent)

        def make() -> bytes:
            if hashes is None:
                return indexed.assemble(names, parts)
            anew = indexed.index(hashes)
            self._index = (edition, anew)
            return indexed.assemble(anew, parts)

        return make

    def counters_of(self, name: str) -> tuple[str, ...]:
        """Return the counters of ``name``, in any case."""
        slot = self._slots.get(name)
        if slot is None:
            wanted = indexed.name_hash(name)
            if wanted not in self._hashes:
                return ()
            slot = self._hashes.index(wanted)
        return self._counters[slot]

    def take_owing(self, limit: int) -> list[str]:
        """Take up to ``limit`` counters that a caller may be given something of, and is to be given all of that now."""
        owing = self._owing
        taken = list(islice(owing, limit))
        for counter in taken:
            del owing[counter]
        return taken

    def names(self) -> list[str]:
        """Return all names, in any order."""
        return list(self._slots)

    def drop(self, name: str) -> None:
        """Leave ``name`` out; its slot stays free until there are too many of those."""
        slot = self._slots.pop(name, None)
        if slot is None:
            return
        for counter in self._counters[slot]:
            self._owing.pop(counter, None)
        self._counters[slot], self._parts[slot], self._hashes[slot] = (), b"", 0
        self._edition += 1
        self._stale.discard(slot)
        self._free_slots += 1
        self.changed = True
        if self._free_slots > len(self._names) // 2:
            self._compact()

    def _compact(self) -> None:
        """Move all names to the front, so that no slot is free."""
        kept = list(self._slots.items())
        self._names = [name for name, _ in kept]
        self._counters = [self._counters[slot] for _, slot in kept]
        self._parts = [self._parts[slot] for _, slot in kept]
        self._hashes = array("Q", [self._hashes[slot] for _, slot in kept])
        moved = {slot: at for at, (_, slot) in enumerate(kept)}
        self._stale = {moved[slot] for slot in self._stale}
        self._slots = {name: at for at, name in enumerate(self._names)}
        self._free_slots = 0
