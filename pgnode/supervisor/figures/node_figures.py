"""What there is to tell of the node in numbers, at one moment. Pure: whoever gathers it is another module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgnode.bus.reports import Report
from pgnode.bus.snapshots import NodeStatus, Polled
from pgnode.metrics.instruments import Histogram
from pgnode.supervisor.figures.worker_sums import Sums
from pgnode.supervisor.traffic.traffic_sums import TrafficSums


@dataclass(frozen=True, slots=True)
class CoreFigures:
    """The core: how often it was started, how it is, and what was changed in it."""

    #: "embedded" or "executable".
    kind: str
    deaths: int
    #: How often it was given up for a while.
    given_up: int
    start_seconds: Histogram
    #: Changes of users in it, by operation and result.
    calls: Mapping[tuple[str, str], int]
    gc_pause_seconds: float
    #: What its observatory measured: tag of an outbound -> seconds.
    outbound_delays: Mapping[str, float] = field(default_factory=dict)
    #: The rest is of the running core, None where none has told it.
    uptime_seconds: int | None = None
    goroutines: int | None = None
    heap_bytes: int | None = None
    sys_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UserFigures:
    """Users, and the calls that change them."""

    desired: int
    waiting: int
    failed: int
    online: int
    addresses: int
    #: Calls by kind and result.
    changes: Mapping[tuple[str, str], int]
    change_seconds: Histogram


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """Users' connections, and what became of those whose users are gone."""

    #: Inbound -> how many are open.
    open: Mapping[str, int]
    #: By what they were found -> how many were ended.
    ended: Mapping[str, int]
    #: Why -> how often some were left.
    left: Mapping[str, int]
    failures: int


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """What was counted, and what became of it."""

    sums: TrafficSums
    polled: Polled
    loans: Mapping[str, int]
    #: Unix seconds; None before the first.
    taken_at: float | None
    reading_seconds: Histogram
    reading_errors: int


@dataclass(frozen=True, slots=True)
class WorkersFigures:
    """The workers, as they report."""

    sums: Sums
    alive: list[Report]
    #: Workers of this host that there should be, by kind.
    wanted: Mapping[str, int]
    #: Unix seconds at which somebody with the key called last; None where nobody did.
    last_call_at: float | None


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """All processes of a kind."""

    cpu_seconds: float
    memory_bytes: int
    #: Of the one with most of its limit in use.
    open_files: int
    max_files: int


@dataclass(frozen=True, slots=True)
class HostFigures:
    """The processes that the supervisor has, and itself; not the workers."""

    processes: Mapping[str, ProcessFigures]
    memory_limit_bytes: int | None
    #: Children that were started again, by name.
    child_restarts: Mapping[str, int]
    #: Tasks that failed, by name.
    task_failures: Mapping[str, int]
    lag_seconds: float
    restarts_in_place: int
    #: Unix seconds.
    started_at: float


@dataclass(frozen=True, slots=True)
class BusFigures:
    """Redis; None where it did not answer."""

    refills: int
    commands_waiting: int | None = None
    round_trip_seconds: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class NodeFigures:
    """All of it."""

    status: NodeStatus
    #: A core has to run.
    wanted: bool
    core: CoreFigures
    users: UserFigures
    sessions: SessionFigures
    traffic: TrafficFigures
    workers: WorkersFigures
    host: HostFigures
    bus: BusFigures
    #: Why the store does not take changes; "" where it does.
    store_error: str
    store_failures: int
    store_bytes: int | None
    log_lines_dropped: int
    #: Unix seconds at which the certificate ends.
    certificate_until: float | None
    #: Maintenance jobs by kind and result.
    jobs: Mapping[tuple[str, str], int]
    #: Geo file -> Unix seconds at which it was written.
    geofiles: Mapping[str, float]
