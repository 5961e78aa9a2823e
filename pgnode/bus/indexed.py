"""Many small encoded messages as one block of bytes, with an index that costs its reader nothing to take over.

A block of all users' statistics is one body (the messages one after the other, itself an answer where the messages
are elements of a repeated field) and three arrays: sorted hashes of the names, the place of each in the body's order, and
where each place ends. Its reader copies nothing of a large block, which may be memory that it shares with others; a look-up is
a bisection. Only the last array changes with the messages; the others change with the names.

Names are compared in lower case, by 64 bits of BLAKE2b: two of 100,000 names share a hash with a chance of 3e-10.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import accumulate

_HEAD = struct.Struct("<4sI")
_MAGIC = b"pgx2"

#: Bytes of the index for each name: its hash, its place, and where its message ends.
_BYTES_EACH = 8 + 4 + 4

#: Hashes sorted at a time: some 5 ms.
_RUN = 10_000

#: Bytes of a body from which on it is not copied.
LARGE_BYTES = 256 * 1024

#: Messages as they are handed out; large ones may be memory that is shared with other processes.
Body = bytes | memoryview


def name_hash(name: str) -> int:
    """Return the hash under which a name is found."""
    return int.from_bytes(blake2b(name.lower().encode(), digest_size=8).digest(), "little")


def index(hashes: Sequence[int]) -> bytes:
    """Make the part of a block that depends on the names alone.

    Args:
        hashes: Hashes of the names, in the body's order.

    Returns:
        The part, for :func:`assemble`.
    """
    # A thread that sorts lets nobody else have the interpreter. Sorted runs first, so that the last sort only merges them.
    order: list[int] = []
    for at in range(0, len(hashes), _RUN):
        order += sorted(range(at, min(at + _RUN, len(hashes))), key=hashes.__getitem__)
    if len(hashes) > _RUN:
        order.sort(key=hashes.__getitem__)
    return array("Q", [hashes[place] for place in order]).tobytes() + array("I", order).tobytes()


def assemble(index_of_names: bytes, parts: Sequence[bytes]) -> bytes:
    """Make a block.

    Args:
        index_of_names: What :func:`index` returned.
        parts: The messages, in the order in which it was given their names.

    Returns:
        The block.
    """
    ends = array("I", accumulate(map(len, parts))).tobytes()
    return b"".join((_HEAD.pack(_MAGIC, len(parts)), index_of_names, ends, *parts))


def pack(items: Iterable[tuple[int, bytes]]) -> bytes:
    """Make a block of names and messages.

    Args:
        items: (name hash, message bytes), in the body's order. Of equal hashes the first is found.

    Returns:
        The block.
    """
    hashes, parts = [], []
    for hashed, part in items:
        hashes.append(hashed)
        parts.append(part)
    return assemble(index(hashes), parts)


class IndexedBlock:
    """A block as its reader holds it: ``body`` and :meth:`get`.

    Args:
        data: The block; it is kept where it is large.

    Raises:
        ValueError: It is none.
    """

    __slots__ = ("_ends", "_hashes", "_places", "body")

    def __init__(self, data: Body) -> None:
        magic, count = _HEAD.unpack_from(data) if len(data) >= _HEAD.size else (b"", 0)
        if magic != _MAGIC or len(data) < _HEAD.size + count * _BYTES_EACH:
            raise ValueError("not an indexed block")
        view, places = memoryview(data), _HEAD.size + 8 * count
        ends, at = places + 4 * count, places + 8 * count
        self._hashes = view[_HEAD.size : places].cast("Q")
        self._places = view[places:ends].cast("I")
        self._ends = view[ends:at].cast("I")
        body = view[at:]
        self.body: Body = body if len(body) > LARGE_BYTES else bytes(body)

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, name: str) -> bytes | None:
        """Return the bytes under ``name``; None where there are none."""
        return self.find(name_hash(name))

    def find(self, hashed: int) -> bytes | None:
        """Return what :meth:`get` does, by the name's hash."""
        hashes = self._hashes
        at = bisect_left(hashes, hashed)
        if at == len(hashes) or hashes[at] != hashed:
            return None
        place, ends = self._places[at], self._ends
        found = self.body[ends[place - 1] if place else 0 : ends[place]]
        return found if isinstance(found, bytes) else found.tobytes()


#: A block without names.
EMPTY = pack(())
