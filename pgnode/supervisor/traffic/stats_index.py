"""The statistics of all users, inbounds or outbounds as they are on the wire; what did not move is not encoded again. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from pgnode.bus import indexed
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint
from pgnode.wire.stat_names import SEPARATOR, Counter, counter_name, parse_counter

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


#: A Stat is encoded by hand as long as all lengths fit into one byte: 2 + _NAME_MAX + 5 + _END_MAX + 9 < 128.
_NAME_MAX, _END_MAX = 80, 20


class EncodedStats:
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
        #: Rises with every name that comes or goes; and the index of the names, with the number it was made at.
        self._edition = 0
        self._index: tuple[int, bytes] = (-1, b"")
        #: Places whose part is older than the ledger.
        self._stale: set[int] = set()
        #: Counters that may be owed something, in the order in which they began to be. A dict for its order.
        self._owing: dict[str, None] = {}
        #: Counters that were handed out and whose parts are to be made anew.
        self._lent: deque[Iterator[str]] = deque()
        #: Places of names that were dropped.
        self._holes = 0
        #: The block is older than the parts, or the parts than the ledger.
        self.changed = True

    def __repr__(self) -> str:
        return f"EncodedStats({self.kind}, {len(self._names) - self._holes} names, {len(self._stale)} stale)"

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
                self._edition += 1
            if counter not in self._counters[place]:
                self._counters[place] += (counter,)
            self._stale.add(place)
            self.changed = True

    def lent(self, counters: Iterable[str]) -> None:
        """These counters were handed out. Costs nothing now: somebody waits for them."""
        self._lent.append(iter(counters))
        self.changed = True

    def encode(self, limit: int) -> bool:
        """Encode up to ``limit`` stale parts, or find out which are; True when none is left."""
        if self._lent:
            slice_of_first = list(islice(self._lent[0], limit))
            self._find_stale(slice_of_first)
            if len(slice_of_first) < limit:
                self._lent.popleft()
            return False
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

    def _find_stale(self, counters: list[str]) -> None:
        at = len(self._prefix)
        places, stale = self._places, self._stale
        for counter in counters:
            place = places.get(counter[at:].rsplit(SEPARATOR, 2)[0])
            if place is not None:  # else it was dropped meanwhile
                stale.add(place)

    def block(self) -> Callable[[], bytes]:
        """A function, for any thread, that makes the indexed block of all parts as they are now."""
        edition, parts = self._edition, list(self._parts)
        made_at, names = self._index
        hashes = None if made_at == edition else list(self._hashes)
        self.changed = bool(self._stale or self._lent)

        def make() -> bytes:
            if hashes is None:
                return indexed.assemble(names, parts)
            anew = indexed.index(hashes)
            self._index = (edition, anew)
            return indexed.assemble(anew, parts)

        return make

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
            if entry is None or entry.total == entry.reported + entry.lent:
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
        self._edition += 1
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
    """``StatResponse`` of (counter, bytes): what a reading with ``reset`` returns.

    Encoded by hand: making 200,000 messages takes the library twice as long, and somebody waits.
    """
    made: list[bytes] = []
    ends: dict[tuple[str, str], bytes] = {}
    kind = ""
    at = 0
    for counter, value in taken:
        if not counter.startswith(kind) or not at:
            kind = counter.partition(SEPARATOR)[0] + SEPARATOR
            at = len(kind)
        parts = counter[at:].rsplit(SEPARATOR, 2)
        if len(parts) < 3:
            continue
        text, link, direction = parts
        name = text.encode()
        end = ends.get((direction, link))
        if end is None:
            end = ends[direction, link] = _end(direction, link)
        if not 0 < len(name) <= _NAME_MAX or not end or value <= 0:
            made.append(_one_stat(text, direction, link, value))
            continue
        number = end + varint.encode(value)
        made.append(b"\x0a%c\x0a%c%b%b" % (2 + len(name) + len(number), len(name), name, number))
    return b"".join(made)


def _end(direction: str, link: str) -> bytes:
    """What follows the name of a Stat, up to its value; nothing where that is not short."""
    parts = direction.encode(), link.encode()
    if not all(parts) or sum(map(len, parts)) > _END_MAX:
        return b""
    return b"\x12%c%b\x1a%c%b\x20" % (len(parts[0]), parts[0], len(parts[1]), parts[1])


def _one_stat(name: str, direction: str, link: str, value: int) -> bytes:
    """The same for one of them, of any length."""
    return pb.StatResponse(stats=[pb.Stat(name=name, type=direction, link=link, value=value)]).SerializeToString()


def counters_in(kind: str, body: bytes) -> list[tuple[str, int]]:
    """(counter, bytes) of a ``StatResponse`` that :func:`stats_answer` made."""
    return [
        (counter_name(Counter(kind, stat.name, stat.link, stat.type)), stat.value)
        for stat in pb.StatResponse.FromString(body).stats
    ]
