"""The statistics of all users, inbounds or outbounds as they are on the wire; what did not move is not encoded again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from pgnode.bus import indexed
from pgnode.supervisor.ledger import Ledger
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stats import SEPARATOR, Counter, counter_name, parse_counter

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


class StatsBook:
    """Everybody of one kind, each with a place that stays the same, and the encoded statistics in that place."""

    def __init__(self, kind: str, ledger: Ledger) -> None:
        self.kind = kind
        self._prefix = kind + SEPARATOR
        self._ledger = ledger
        self._places: dict[str, int] = {}
        self._names: list[str] = []
        self._counters: list[tuple[str, ...]] = []
        self._parts: list[bytes] = []
        self._hashes: list[int] = []
        #: Of the names alone; None when there are new ones.
        self._index: bytes | None = None
        #: Places whose part is older than the ledger.
        self._stale: set[int] = set()
        #: Counters that may be owed something, in the order in which they began to be. A dict for its order.
        self._owing: dict[str, None] = {}
        #: Places of names that were dropped.
        self._holes = 0
        #: The block is older than the parts, or the parts than the ledger.
        self.changed = True

    def __repr__(self) -> str:
        return f"StatsBook({self.kind}, {len(self._names) - self._holes} names, {len(self._stale)} stale)"

    def __len__(self) -> int:
        return len(self._names) - self._holes

    def touch(self, counters: Iterable[str]) -> None:
        """These counters are new, or have moved, or were handed out."""
        prefix = self._prefix
        for counter in counters:
            if not counter.startswith(prefix):
                continue
            parsed = parse_counter(counter)
            if parsed is None:
                continue
            self._owing[counter] = None
            place = self._places.get(parsed.name)
            if place is None:
                place = self._places[parsed.name] = len(self._names)
                self._names.append(parsed.name)
                self._counters.append(())
                self._parts.append(b"")
                self._hashes.append(indexed.name_hash(parsed.name))
                self._index = None
            if counter not in self._counters[place]:
                self._counters[place] += (counter,)
            self._stale.add(place)
            self.changed = True

    def encode(self, limit: int) -> bool:
        """Encode up to ``limit`` stale parts; True when none is left."""
        get = self._ledger.get
        for place in list(islice(self._stale, limit)):
            response = pb.StatResponse()
            name = self._names[place]
            skip = len(self._prefix) + len(name) + len(SEPARATOR)
            for counter in self._counters[place]:
                entry = get(counter)
                if entry is not None:
                    link, _, direction = counter[skip:].partition(SEPARATOR)
                    response.stats.add(name=name, type=direction, link=link, value=entry.free)
            self._parts[place] = response.SerializeToString()
            self._stale.discard(place)
        return not self._stale

    def block(self) -> Callable[[], bytes]:
        """A function, for any thread, that makes the indexed block of all parts as they are now."""
        if self._index is None:
            self._index = indexed.index(self._hashes)
        names, parts = self._index, list(self._parts)
        self.changed = bool(self._stale)
        return lambda: indexed.assemble(names, parts)

    def counters_of(self, name: str) -> tuple[str, ...]:
        """The counters of ``name``, in any case."""
        place = self._places.get(name)
        if place is None:
            wanted = indexed.name_hash(name)
            if wanted not in self._hashes:
                return ()
            place = self._hashes.index(wanted)
        return self._counters[place]

    def owing(self, limit: int) -> list[str]:
        """Up to ``limit`` counters that a caller may be given something of."""
        found, settled = [], []
        for counter in self._owing:
            entry = self._ledger.get(counter)
            if entry is None or not entry.free:
                settled.append(counter)
            else:
                found.append(counter)
                if len(found) == limit:
                    break
        for counter in settled:
            del self._owing[counter]
        return found

    def names(self) -> list[str]:
        """Everybody, in no order that matters."""
        return list(self._places)

    def drop(self, name: str) -> None:
        """Leave ``name`` out; its place stays empty until there are too many of those."""
        place = self._places.pop(name, None)
        if place is None:
            return
        for counter in self._counters[place]:
            self._owing.pop(counter, None)
        self._counters[place], self._parts[place], self._hashes[place] = (), b"", 0
        self._index = None
        self._stale.discard(place)
        self._holes += 1
        self.changed = True
        if self._holes > len(self._names) // 2:
            self._close_up()

    def _close_up(self) -> None:
        kept = list(self._places.items())
        self._names = [name for name, _ in kept]
        self._counters = [self._counters[place] for _, place in kept]
        self._parts = [self._parts[place] for _, place in kept]
        self._hashes = [self._hashes[place] for _, place in kept]
        moved = {place: at for at, (_, place) in enumerate(kept)}
        self._stale = {moved[place] for place in self._stale}
        self._places = {name: at for at, name in enumerate(self._names)}
        self._holes = 0


def stats_answer(taken: Iterable[tuple[str, int]]) -> bytes:
    """``StatResponse`` of (counter, bytes): what a reading with ``reset`` returns."""
    response = pb.StatResponse()
    add = response.stats.add
    for counter, value in taken:
        parsed = parse_counter(counter)
        if parsed is not None:
            add(name=parsed.name, type=parsed.type, link=parsed.link, value=value)
    return response.SerializeToString()


def counters_in(kind: str, body: bytes) -> list[tuple[str, int]]:
    """(counter, bytes) of a ``StatResponse`` that :func:`stats_answer` made."""
    return [
        (counter_name(Counter(kind, stat.name, stat.link, stat.type)), stat.value)
        for stat in pb.StatResponse.FromString(body).stats
    ]
