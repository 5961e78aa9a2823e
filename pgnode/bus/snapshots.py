"""Snapshots, which reads are answered from: their names, what is in them, and how they look in Redis. Pure.

The supervisor writes them (:mod:`pgnode.bus.snapshot_writer`), each worker keeps a copy in memory
(:mod:`pgnode.bus.snapshot_reader`). A snapshot is a hash (``rev``, ``at_ms``, ``body``, ``shared``). Its new revision is
announced over pub/sub; the announcement of a small one brings it along. A large block is in memory that all workers of the host
share: ``shared`` is its handle (:mod:`pgnode.os_support.shared_memory`), and ``body`` is empty. Workers on other hosts ask for it
when a caller wants it (:mod:`pgnode.bus.host_copies`).

==================  ======================================================================================
name                body
==================  ======================================================================================
``supervisor``      :class:`pgnode.bus.protocol.Hello` as JSON
``state``           :class:`NodeStatus` as JSON
``system``          ``SystemStatsResponse``
``backend``         ``BackendStatsResponse``
``stats.users``     indexed block: ``StatResponse`` pieces by e-mail
``stats.inbounds``  indexed block: ``StatResponse`` pieces by tag
``stats.outbounds`` indexed block: ``StatResponse`` pieces by tag
``polled``          :class:`Polled` as JSON; comes with every reading of the core, also where nothing moved
``online``          indexed block: ``StatsOnlineIpListResponse`` by e-mail, online users only
==================  ======================================================================================
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from pgnode.bus.indexed import Body
from pgnode.bus.state import State

SUPERVISOR = "supervisor"
STATE = "state"
SYSTEM = "system"
BACKEND = "backend"
STATS_USERS = "stats.users"
STATS_INBOUNDS = "stats.inbounds"
STATS_OUTBOUNDS = "stats.outbounds"
ONLINE = "online"
POLLED = "polled"
#: The first one says whether the others can be read.
ALL = (SUPERVISOR, STATE, SYSTEM, BACKEND, STATS_USERS, STATS_INBOUNDS, STATS_OUTBOUNDS, ONLINE, POLLED)

#: Those that are indexed blocks, of which large ones are shared.
BLOCKS = frozenset({STATS_USERS, STATS_INBOUNDS, STATS_OUTBOUNDS, ONLINE})

#: ``NodeStatus.core_type`` of a node that runs a panel's own config; the other one is "wireguard".
XRAY = "xray"

#: Statistics that are older than this many seconds are read anew when somebody asks; of many counters, more seconds.
FRESH_SECONDS = 0.5
MANY_COUNTERS = 20_000
FRESH_SECONDS_OF_MANY = 2.0

#: No snapshot has such a revision: what there is of it is not to be shown.
NO_REVISION = 1 << 62

#: Bytes of a body that comes with its announcement at most.
INLINE_BYTES = 2048

#: Bytes from which on a block is shared.
SHARED_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The node's state as workers need it to answer; units in names."""

    state: State
    #: The core runs and its API answered at the last probe.
    core_ready: bool
    core_version: str
    node_version: str
    #: Why the core's API did not answer at the last probe, "" when it did.
    core_api_error: str
    #: Number of the core run, counted since the state folder was made; a new core has a new one.
    core_run: int
    #: Workers tell of calls (pgnode.bus.activity) while this is above 0: seconds of silence after which the panel counts as
    #: away.
    keep_alive_seconds: int = 0
    #: The panel has been silent for longer than that.
    degraded: bool = False
    #: How often each strategy was used by a start since the supervisor began: "same core", "hot change",
    #: "new core"; "hot change, failed" became a new core; after "…, log waits" a part of the log comes with the next core.
    starts: dict[str, int] = field(default_factory=dict)
    #: What was asked for and waits for the next start of the core; "" for nothing.
    waiting: str = ""
    #: Why it is not known what has to run, "" where it is; a core that was found goes on meanwhile.
    unknown: str = ""
    #: Cores that were replaced since they hung, since the supervisor began.
    core_hangs: int = 0
    #: Why nobody new should be sent to this node, "" where that is not so.
    draining: str = ""
    #: What was asked for last: "xray" or "wireguard".
    core_type: str = XRAY

    def encode(self) -> bytes:
        """Return the snapshot's body."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes) -> NodeStatus:
        """Read what :meth:`encode` made.

        Args:
            body: The snapshot's body.

        Returns:
            The status.

        Raises:
            ValueError: It is no JSON, or names a state that is not known.
            TypeError: Fields are missing.
        """
        # Another version may have more.
        fields = {name: value for name, value in json.loads(body).items() if name in cls.__dataclass_fields__}
        status = cls(**fields)
        return cls(**{**fields, "state": State(status.state)})


@dataclass(frozen=True, slots=True)
class Polled:
    """How old the statistics are: ages, not times, since hosts disagree about the time and clocks are set."""

    #: Milliseconds since the last reading of the core that succeeded, when this was sent; None before the first one.
    age_ms: int | None
    #: Milliseconds between two readings.
    interval_ms: int
    #: Why the last attempt failed, "" when it did not.
    error: str
    #: Counters that the ledger holds, and milliseconds that the last reading took, for the operator.
    counters: int = 0
    took_ms: int = 0
    #: When this was sent, Unix milliseconds of Redis's clock; 0 where that is not known.
    sent_at_ms: int = 0
    #: Name of a snapshot -> the revision that it has to have at least: one before shows what was handed out meanwhile.
    since: dict[str, int] = field(default_factory=dict)
    #: Whether the core counts inbounds; None where that is not known.
    inbounds_counted: bool | None = None

    @property
    def fresh_seconds(self) -> float:
        """For how long the figures of a reading are fresh."""
        return FRESH_SECONDS if self.counters <= MANY_COUNTERS else FRESH_SECONDS_OF_MANY

    def age_seconds(self, now_ms: float) -> float | None:
        """Return seconds since the core was read; None where it never was.

        Args:
            now_ms: Unix milliseconds of Redis's clock.

        Returns:
            Seconds.
        """
        if self.age_ms is None:
            return None
        since_ms = max(0.0, now_ms - self.sent_at_ms) if self.sent_at_ms else 0.0
        return (self.age_ms + since_ms) / 1000

    def encode(self) -> bytes:
        """Return the snapshot's body."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes) -> Polled:
        """Read what :meth:`encode` made.

        Args:
            body: The snapshot's body.

        Returns:
            The ages.

        Raises:
            ValueError: It is no JSON.
            TypeError: Fields are missing.
        """
        # Another version may have more.
        return cls(**{name: value for name, value in json.loads(body).items() if name in cls.__dataclass_fields__})


#: Bytes that are compared at a time.
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot in one revision."""

    name: str
    #: Rises with every revision, also across restarts of the supervisor.
    rev: int
    #: When the supervisor made it, Unix milliseconds of its clock.
    at_ms: int
    #: Of a block, where it is shared, the memory that is.
    body: Body
    #: How the shared memory is found; "" where it is none.
    shared: str = ""

    def has(self, body: bytes) -> bool:
        """Whether this is its body."""
        held = self.body
        if isinstance(held, bytes) or len(held) != len(body):
            return held == body
        # Piece by piece: a memoryview compares byte by byte in no hurry, and different bodies are so from early on.
        pieces = range(0, len(body), _PIECE)
        return all(held[at : at + _PIECE].tobytes() == body[at : at + _PIECE] for at in pieces)


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is said over pub/sub of a new revision."""

    name: str
    rev: int
    at_ms: int
    #: None where it was too large to come along.
    body: bytes | None


def encode_announcement(snapshot: Snapshot) -> bytes:
    """Return the message that announces a snapshot: ``<name> <rev> <at_ms>``, and a small body in the next line."""
    head, body = f"{snapshot.name} {snapshot.rev} {snapshot.at_ms}".encode(), snapshot.body
    return head + b"\n" + body if isinstance(body, bytes) and len(body) <= INLINE_BYTES else head


def decode_announcement(data: bytes) -> Announcement:
    """Read what :func:`encode_announcement` made.

    Args:
        data: The message.

    Returns:
        What it says.

    Raises:
        ValueError: It is something else.
    """
    head, inline, body = data.partition(b"\n")
    name, rev, at_ms = head.decode().split(" ")
    return Announcement(name, int(rev), int(at_ms), body if inline else None)
