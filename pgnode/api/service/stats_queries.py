"""What is asked of the statistics, parsed once: panels ask the same few things all the time. Pure but for its memory."""

from __future__ import annotations

from typing import NamedTuple

from pgnode.api.service.decoding import decode
from pgnode.bus import snapshots
from pgnode.bus.indexed import name_hash
from pgnode.wire import service_pb2 as pb

#: Requests kept, and the longest body that is kept.
REQUESTS_MAX = 4096
REQUEST_BYTES_MAX = 512

#: The snapshot that answers a type of statistics, and whether the answer is one named segment of it.
_SNAPSHOTS: dict[int, tuple[str, bool]] = {
    pb.StatType.UsersStat: (snapshots.STATS_USERS, False),
    pb.StatType.UserStat: (snapshots.STATS_USERS, True),
    pb.StatType.Inbounds: (snapshots.STATS_INBOUNDS, False),
    pb.StatType.Inbound: (snapshots.STATS_INBOUNDS, True),
    pb.StatType.Outbounds: (snapshots.STATS_OUTBOUNDS, False),
    pb.StatType.Outbound: (snapshots.STATS_OUTBOUNDS, True),
}


class StatQuery(NamedTuple):
    """A parsed StatRequest; reading a tuple is several times cheaper than reading the message."""

    type: int
    name: str
    reset: bool
    #: The hash of ``name``, as the snapshots are indexed by.
    hashed: int
    #: The snapshot that answers it, "" for an unknown type.
    snapshot: str
    #: The answer is the segment of that name, not all of the snapshot.
    single: bool

    @property
    def fault(self) -> str:
        """Why it has no answer among the statistics, "" where it has one."""
        if not self.snapshot:
            return f"unknown stat type {self.type}: known types are 0 to {max(_SNAPSHOTS)}"
        if self.single and not self.name:
            return "empty name: this stat type needs the name of a user, inbound or outbound"
        return ""


class StatQueries:
    """The latest queries by their bytes.

    Args:
        requests_max: So many are kept.
    """

    def __init__(self, requests_max: int = REQUESTS_MAX) -> None:
        self._requests_max = requests_max
        self._queries: dict[bytes, StatQuery] = {}
        #: Those that a snapshot answers as it is: which snapshot, and the hash of the name where only its segment is asked for.
        #: Always the same dict: the fast path reads it directly.
        self.plain: dict[bytes, tuple[str, int | None]] = {}

    def __repr__(self) -> str:
        return f"StatQueries({len(self._queries)})"

    def of(self, body: bytes) -> StatQuery:
        """Return the query in ``body``. Raise InvalidRequestError where that is no StatRequest."""
        query = self._queries.get(body)
        if query is None:
            request = decode(pb.StatRequest, body)
            snapshot, single = _SNAPSHOTS.get(request.type, ("", False))
            query = StatQuery(int(request.type), request.name, request.reset, name_hash(request.name), snapshot, single)
            if len(body) <= REQUEST_BYTES_MAX:
                self._keep(body, query)
        return query

    def _keep(self, body: bytes, query: StatQuery) -> None:
        if len(self._queries) >= self._requests_max:
            self._queries.clear()
            self.plain.clear()
        self._queries[body] = query
        if not query.reset and not query.fault:
            self.plain[body] = query.snapshot, query.hashed if query.single else None
