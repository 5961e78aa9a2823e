"""A chunked sync as one set of users: the framing of ``PUT /users/sync/chunked`` and the order of its chunks. Pure.

The body is a run of (unsigned varint length, ``UsersChunk`` bytes). Frames of length zero are skipped; chunks may come
in any order, equal indexes append, and reading stops at the chunk that says ``last``: whatever follows it is ignored.
The indexes 0 to that of the last chunk must all be there, since a missing one means missing users.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from pgnode.errors import InvalidRequestError
from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint


class ChunkAssembler:
    """Collects chunks until the last one. Serves any transport that delivers chunks one by one."""

    def __init__(self) -> None:
        self._by_index: dict[int, list[pb.UsersChunk]] = {}
        self._last_index: int | None = None

    def __repr__(self) -> str:
        return f"ChunkAssembler(indexes={len(self._by_index)}, last={self._last_index})"

    @property
    def complete(self) -> bool:
        """Whether the chunk that says ``last`` was added; nothing after it counts."""
        return self._last_index is not None

    def add(self, chunk: pb.UsersChunk) -> None:
        """Take one chunk; those after the last one are ignored."""
        if self._last_index is not None:
            return
        self._by_index.setdefault(chunk.index, []).append(chunk)
        if chunk.last:
            self._last_index = chunk.index

    def users(self) -> pb.Users:
        """Return all users by chunk index, within one index as they came.

        Raise InvalidRequestError where the last chunk, or one before it, did not come, or one lies beyond it.
        """
        if self._last_index is None:
            raise InvalidRequestError("missing final chunk indicator")
        # Walked by what is there: the last index is the caller's word and may be as large as 2**64 - 1.
        indexes = sorted(self._by_index)
        for expected, index in enumerate(indexes):
            if index != expected:
                raise InvalidRequestError(f"missing chunk index {expected}")
        if indexes[-1] > self._last_index:
            # Taking the set without them would lose users in silence.
            raise InvalidRequestError(f"chunk index {indexes[-1]} lies beyond the last chunk, {self._last_index}")
        users = pb.Users()
        for index in indexes:
            for chunk in self._by_index[index]:
                users.users.extend(chunk.users)
        return users


def users_of(body: bytes) -> pb.Users:
    """Return the users in a whole chunked body; raise InvalidRequestError with the byte where a frame is wrong."""
    assembler = ChunkAssembler()
    at, end = 0, len(body)
    while at < end and not assembler.complete:
        start = at
        length, at = _length(body, at)
        if length == 0:
            continue
        if length > end - at:
            raise InvalidRequestError(
                f"chunk frame at byte {start} is cut short: {length} bytes announced, {end - at} are there"
            )
        try:
            chunk = pb.UsersChunk.FromString(body[at : at + length])
        except DecodeError:
            # The parser does not say what or where.
            raise InvalidRequestError(
                f"malformed UsersChunk in the frame at byte {start}: not a UsersChunk, or text in it is not UTF-8"
            ) from None
        assembler.add(chunk)
        at += length
    return assembler.users()


def frame(chunk: pb.UsersChunk) -> bytes:
    """Return ``chunk`` as one frame: its length as a varint, then its bytes."""
    data = chunk.SerializeToString()
    return varint.encode(len(data)) + data


def _length(body: bytes, at: int) -> tuple[int, int]:
    """Decode the length of the frame at ``at``; return it and the offset after it."""
    try:
        return varint.decode(body, at)
    except varint.VarintCutShortError:
        raise InvalidRequestError(f"chunk length at byte {at} is cut short") from None
    except varint.VarintError:
        raise InvalidRequestError(f"chunk length at byte {at} is no varint of 64 bits") from None
