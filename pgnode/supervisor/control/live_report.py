"""What a supervisor says to whoever looks at the node live: rates and workers, as data and as JSON. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pgnode.bus.protocol import PROTOCOL
from pgnode.bus.reports import CALLS, CPU_SECONDS, SEPARATOR, Report
from pgnode.metrics.meter import CANCELLED, OK
from pgnode.supervisor.control.report import AloneReport, decode
from pgnode.supervisor.traffic.traffic_watch import BytesMoved
from pgnode.wire.stat_names import SEPARATOR as PARTS
from pgnode.wire.stat_names import parse_counter

#: Users that are told of, those that move most.
USERS_MAX = 200

#: Inbounds and outbounds that are told of, those that move most.
TAGS_MAX = 100


@dataclass(frozen=True, slots=True)
class FlowReport:
    """A user, an inbound or an outbound that moved something between the last two readings."""

    name: str = ""
    #: Bytes a second.
    up: float = 0.0
    down: float = 0.0
    #: Bytes since the state folder was made.
    total: int = 0
    #: Addresses that a user is online from.
    addresses: int = 0


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """An API worker, as it reports."""

    #: "rest" or "grpc".
    kind: str = ""
    pid: int = 0
    host: str = ""
    #: Calls that it answered since it began, and those under way.
    calls: int = 0
    under_way: int = 0
    #: Open connections; for gRPC not known.
    connections: int = 0
    memory_bytes: int = 0
    #: The longest silence of its event loop of late.
    lag_seconds: float = 0.0
    #: Of the program, "" where it does not say; and of the bus.
    version: str = ""
    protocol: int = 1
    up_seconds: float = 0.0
    cpu_seconds: float = 0.0
    open_files: int = 0
    #: No supervisor is beside it (``pgnode worker``).
    alone: bool = False


@dataclass(frozen=True, slots=True)
class LiveReport:
    """All of it, rates between the last two readings. Every field has a default, for a supervisor of another version."""

    #: Number of the last reading of the core that is told of, and the seconds between it and the one before; 0 for none yet.
    reading: int = 0
    reading_seconds: float = 0.0
    #: Seconds since the core was read; None where it never was. And why the last attempt failed, "" when it did not.
    read_seconds_ago: float | None = None
    read_error: str = ""
    interval_seconds: float = 0.0
    #: What users moved, bytes a second: by inbounds, where any is counted, else by users.
    up: float = 0.0
    down: float = 0.0
    #: Users who are online, and their addresses.
    online: int = 0
    addresses: int = 0
    users: list[FlowReport] = field(default_factory=list)
    #: Users who moved something, those included that are not told of.
    users_moving: int = 0
    inbounds: list[FlowReport] = field(default_factory=list)
    #: Whether the core counts them; None where that is not known.
    inbounds_counted: bool | None = None
    outbounds: list[FlowReport] = field(default_factory=list)
    #: Calls that all workers answered since the supervisor began, and those with an error.
    calls: int = 0
    errors: int = 0
    workers: list[WorkerReport] = field(default_factory=list)

    def encode(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return asdict(self)

    @classmethod
    def decode(cls, values: object) -> LiveReport:
        """Read what :meth:`encode` made, perhaps of another version: what is missing or odd has its default."""
        return decode(cls, values)


@dataclass(frozen=True, slots=True)
class Flows:
    """What moved between two readings, as rates."""

    #: Kind -> those that moved most, the first of them first.
    by_kind: Mapping[str, list[FlowReport]]
    #: How many users moved something.
    users: int
    #: Bytes a second, all together.
    up: float
    down: float


#: Before the first reading.
NOTHING: Final = Flows({"user": [], "inbound": [], "outbound": []}, 0, 0.0, 0.0)


def flows_of(moved: BytesMoved, total: Callable[[str], int], addresses: Callable[[str], int]) -> Flows:
    """Turn what counters moved into rates.

    Args:
        moved: What moved.
        total: Returns the bytes of a counter since the state folder was made.
        addresses: Returns from how many addresses a user is online.

    Returns:
        The rates.
    """
    # There may be 200,000 counters: each is cut once, and only those that are told of are taken apart.
    by_kind: dict[str, dict[str, list[int]]] = {"user": {}, "inbound": {}, "outbound": {}}
    for counter, count in moved.by_counter.items():
        whose, _, way = counter.rpartition(PARTS)
        of_kind = by_kind.get(whose.partition(PARTS)[0])
        if of_kind is None or not count:
            continue
        both = of_kind.get(whose)
        if both is None:
            both = of_kind[whose] = [0, 0]
        both[way != "uplink"] += count
    found = {}
    for kind, counters in by_kind.items():
        most = heapq.nlargest(
            USERS_MAX if kind == "user" else TAGS_MAX,
            ((up + down, whose, up, down) for whose, (up, down) in counters.items()),
        )
        found[kind] = [
            FlowReport(
                parsed.name,
                round(up / moved.seconds, 1),
                round(down / moved.seconds, 1),
                sum(total(f"{whose}{PARTS}{way}") for way in ("uplink", "downlink")),
                addresses(parsed.name) if kind == "user" else 0,
            )
            for _, whose, up, down in most
            if (parsed := parse_counter(f"{whose}{PARTS}uplink")) is not None
        ]
    together = [sum(both[way] for both in (by_kind["inbound"] or by_kind["user"]).values()) for way in (0, 1)]
    up, down = (round(count / moved.seconds, 1) if moved.seconds else 0.0 for count in together)
    return Flows(found, len(by_kind["user"]), up, down)


def calls_of(counts: Mapping[str, float]) -> tuple[int, int]:
    """Return how many calls were answered, and how many of them with an error, from the workers' counts."""
    calls = errors = 0
    for name, count in counts.items():
        parts = name.split(SEPARATOR)
        if parts[0] == CALLS:
            calls += int(count)
            errors += int(count) if parts[-1] not in (OK, CANCELLED) else 0
    return calls, errors


def workers_of(alive: Iterable[Report]) -> list[WorkerReport]:
    """Return what is told of the workers, REST workers first."""
    found = [
        WorkerReport(
            report.kind,
            report.pid,
            report.host,
            calls_of(report.counts)[0],
            sum(report.in_flight.values()),
            sum(report.connections.values()),
            report.memory_bytes,
            round(report.lag_seconds, 4),
            report.version,
            report.protocol,
            report.up_seconds,
            round(report.counts.get(SEPARATOR.join((CPU_SECONDS, report.kind)), 0.0), 1),
            report.open_files,
            report.alone,
        )
        for report in alive
    ]
    return sorted(found, key=lambda worker: (worker.kind != "rest", worker.host, worker.pid))


def alone_of(alive: Iterable[Report]) -> list[AloneReport]:
    """Return how many workers there are without a supervisor beside them, by host, kind and version."""
    found = Counter(
        (report.host, report.kind, report.version, report.protocol == PROTOCOL) for report in alive if report.alone
    )
    return [AloneReport(*key, count) for key, count in sorted(found.items())]
