"""All metrics of the node: their names, labels and meanings. Pure. The table in docs/metrics.md is made of these.

What may stand in a label is bounded: words of the node's own, names of its methods and codes of its errors, and tags of
inbounds and outbounds up to a number. Never an e-mail, an address, a pid, a path or the text of an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Before each name.
PREFIX: Final = "pgnode_"

#: Tags of one kind that are told by name; the rest is told together, under :data:`OTHER_TAG`.
TAGS_MAX: Final = 64
OTHER_TAG: Final = "other"

#: Kinds of processes.
PROCESS_KINDS: Final = ("supervisor", "gunicorn", "rest_worker", "grpc_worker", "core", "valkey")

Type = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a metric."""

    name: str
    #: What may stand in it, for readers.
    values: str


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with all its labels."""

    #: Without :data:`PREFIX`, and without the ``_total`` of a counter.
    name: str
    type: Type
    #: One sentence.
    meaning: str
    labels: tuple[Label, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as it is written, but for the endings of a histogram's series."""
        return f"{PREFIX}{self.name}{'_total' if self.type == 'counter' else ''}"

    @property
    def series_names(self) -> tuple[str, ...]:
        """The names of its series."""
        if self.type == "histogram":
            return tuple(f"{self.full_name}{end}" for end in ("_bucket", "_count", "_sum"))
        return (self.full_name,)


_FACE = Label("face", "rest, grpc, maintenance, monitor")
_KIND = Label("kind", "rest, grpc")
_TRAFFIC = Label("kind", "user, inbound, outbound")
_PROCESS = Label("process", ", ".join(PROCESS_KINDS))
_CHANGE = Label("kind", "sync_user, sync_users, sync_chunked")
_DIRECTION = Label("direction", "uplink, downlink")
_WAY = Label("way", "same_core, hot_change, new_core")


def _gauge(name: str, meaning: str, *labels: Label) -> Family:
    return Family(name, "gauge", meaning, labels)


def _counter(name: str, meaning: str, *labels: Label) -> Family:
    return Family(name, "counter", meaning, labels)


def _histogram(name: str, meaning: str, *labels: Label) -> Family:
    return Family(name, "histogram", meaning, labels)


FAMILIES: Final[tuple[Family, ...]] = (
    # The node
    _gauge(
        "supervisor_up",
        "Whether the supervisor answered this scrape within 2 s; when it did not, there is little else than this.",
    ),
    _gauge(
        "build_info",
        "Versions; always 1.",
        Label("version", "of pgnode"),
        Label("core_version", "of the core"),
        Label("core", "embedded, executable"),
        Label("python", "of Python"),
        Label("backend", "xray, wireguard: what the panel asked for last"),
    ),
    _gauge("start_time_seconds", "When the supervisor began, Unix time. Counters count from then on."),
    _gauge(
        "state",
        "1 for the state that the node is in, 0 for the others.",
        Label("state", "restoring, idle, starting, running, recovering, failed, lingering, stopping"),
    ),
    _gauge("wanted_running", "Whether a core has to run."),
    _gauge("core_up", "Whether a core runs and its API answered at the last look."),
    _gauge("degraded", "Whether the panel has been silent for longer than its keep_alive."),
    _gauge("draining", "Whether the node is being drained, or inbounds are not back after a drain."),
    _gauge(
        "config_unknown", "Whether it is not known what has to run: the stored config was set aside, or cannot be read."
    ),
    _counter(
        "task_failures",
        "Tasks of the supervisor, and of workers, that failed and were begun again.",
        Label("task", "see architecture.md; of workers: rest worker, grpc worker"),
    ),
    _gauge("restarts_in_place", "How often the supervisor was restarted in place since it was started by somebody."),
    # The core
    _gauge("core_run", "Number of the core run since the state folder was made."),
    _counter(
        "core_starts",
        "Starts by the way in which they were carried out; a hot change that failed became a new core.",
        Label("way", "same_core, hot_change, new_core, hot_change_failed"),
    ),
    _histogram("core_start_duration_seconds", "From taking a start to its answer, of starts that succeeded.", _WAY),
    _counter("core_deaths", "Cores that ended by themselves, and those that were ended since they hung."),
    _counter("core_hangs", "Cores that were ended since they hung."),
    _counter(
        "core_given_up",
        "Times that the core did not stay up and was given up, until the next try 1 to 10 minutes later.",
    ),
    _gauge("core_config_waiting", "Whether a part of the config (more lines of the log) waits for the next core."),
    _counter("core_config_waits", "Starts after which a part of the config waited for the next core."),
    _gauge("core_uptime_seconds", "Of the running core."),
    _gauge("core_goroutines", "Of the running core."),
    _gauge("core_heap_alloc_bytes", "Heap in use by the core."),
    _gauge("core_sys_bytes", "Memory that the core's runtime has from the system."),
    _counter("core_gc_pause_seconds", "Time for which the core's collector held up everything."),
    _counter(
        "core_calls",
        "Changes of users made in the core, one by one or as whole inbounds.",
        Label("op", "add, remove, swap"),
        Label("result", "ok, refused, unanswered"),
    ),
    _gauge(
        "outbound_delay_seconds",
        "What the core's observatory measured last of outbounds that answer; missing without an observatory.",
        Label("tag", f"{TAGS_MAX} at most"),
    ),
    # Users
    _gauge("users_desired", "Users that are to be served."),
    _gauge(
        "users_waiting", "Desired users that the core does not have as desired, and removed ones that it still has."
    ),
    _gauge("users_failed", "Users that were rejected."),
    _gauge("users_online", "Users with an open connection."),
    _gauge("addresses_online", "Addresses that they come from."),
    _gauge(
        "connections",
        "Users' open connections over TCP, as the kernel counts them; inbounds without a port of TCP are left out.",
        Label("inbound", f"{TAGS_MAX} tags, then {OTHER_TAG}"),
    ),
    _counter(
        "sessions_ended",
        "Connections that were ended since their user is gone, by what they were found by.",
        Label("found", "line, address"),
    ),
    _counter(
        "sessions_left",
        "Changes of users after which some connection was left that should have ended.",
        Label("reason", "shared, proxied, udp, address, unknown, unreachable"),
    ),
    _counter("session_failures", "Attempts to end connections that failed."),
    _counter("user_changes", "Calls that change users.", _CHANGE, Label("result", "ok, refused, failed")),
    _histogram(
        "user_change_duration_seconds", "From the bus to the answer: the core and the store have it then.", _CHANGE
    ),
    # Traffic
    _counter(
        "traffic_bytes",
        "Counted since the supervisor began; of inbounds where the core counts them (INBOUND_STATS).",
        Label("kind", "inbound, outbound"),
        Label("tag", f"{TAGS_MAX} of each kind, then {OTHER_TAG}"),
        _DIRECTION,
    ),
    _counter("user_traffic_bytes", "The same of all users together.", _DIRECTION),
    _gauge("traffic_owed_bytes", "Counted and not known to have reached a caller that reads with reset.", _TRAFFIC),
    _gauge("traffic_on_loan_bytes", "The part of that which is on its way to a caller.", _TRAFFIC),
    _gauge("traffic_last_taken_timestamp_seconds", "When a reading with reset was delivered last."),
    _counter("loans", "Readings with reset by what became of them.", Label("result", "delivered, returned, lost")),
    _gauge("stats_age_seconds", "Since the core's counters were read."),
    _gauge("stats_interval_seconds", "Between two readings."),
    _gauge("stats_counters", "Counters that the node keeps."),
    _histogram("stats_reading_duration_seconds", "Of the core's counters.", Label("reading", "skip, online, whole")),
    _counter("stats_reading_errors", "Readings that failed."),
    # The API
    _counter(
        "api_requests",
        "Calls that ended.",
        _FACE,
        Label("method", "as in api.md, or other"),
        Label("code", "OK, CANCELLED, or the code of an error"),
    ),
    _histogram(
        "api_request_duration_seconds",
        "From the headers to the last byte handed over; streams of the log are left out.",
        _FACE,
        Label("group", "read, take, change, start, maintain"),
    ),
    _gauge("api_requests_in_flight", "Under way now.", _FACE),
    _gauge("api_connections", "Open connections of callers.", _FACE),
    _counter("api_unauthenticated", "Calls without the right key.", _FACE),
    _counter(
        "api_wrong_key_limited", "Of these, those over WRONG_KEY_LIMIT: each cost its caller the connection.", _FACE
    ),
    _counter(
        "api_not_allowed",
        "Connections that were closed since ALLOWED_CALLERS does not name their callers; those that the kernel kept away are not "
        "counted.",
        _KIND,
    ),
    _counter("api_key_uses", "Calls by the key that they brought.", Label("key", "current, previous, metrics")),
    _counter("api_cut_off", "Connections that were ended for the conduct of their callers."),
    _gauge("api_log_viewers", "Callers that watch the log."),
    _gauge("last_call_timestamp_seconds", "When somebody with the key called last."),
    # Processes
    _gauge("workers", "Workers that are alive, on all hosts.", _KIND),
    _gauge(
        "workers_by_version",
        "Workers that are alive, on all hosts, by their version beside the supervisor's.",
        _KIND,
        Label("version", "same, other; refused: one that speaks another protocol of the bus, and serves nobody"),
    ),
    _gauge("worker_hosts", "Hosts with workers that are alive."),
    _gauge("workers_wanted", "Workers of this host that there should be, by the settings.", _KIND),
    _counter(
        "worker_restarts",
        "Workers that are no more: ended in order, or without a word.",
        _KIND,
        Label("reason", "ended, died"),
    ),
    _counter(
        "process_restarts",
        "Processes that the supervisor started again.",
        Label("process", "gunicorn, grpc_worker, valkey"),
    ),
    _gauge(
        "loop_lag_seconds",
        "Longest silence of an event loop in the last 15 s.",
        Label("process", "supervisor, rest_worker, grpc_worker"),
    ),
    _counter("process_cpu_seconds", "All of a kind; those that ended stay counted.", _PROCESS),
    _gauge("process_resident_memory_bytes", "All of a kind.", _PROCESS),
    _gauge("process_open_fds", "Open files of the one of a kind that has most of its limit in use.", _PROCESS),
    _gauge("process_max_fds", "Its limit.", _PROCESS),
    _counter(
        "open_files_exhausted", "Times at which a worker could take no more connections, for want of files.", _KIND
    ),
    _gauge("memory_limit_bytes", "Memory of the machine, or of the control group."),
    # Bus, store, and the rest
    _gauge("bus_commands_waiting", "Commands on the bus that were not answered yet."),
    _gauge("bus_round_trip_seconds", "A PING of the bus, now."),
    _gauge("bus_memory_bytes", "Memory of the Redis or Valkey that is the bus."),
    _counter("bus_refills", "Times at which the bus had lost snapshots, which were written again."),
    _counter("store_failures", "Transactions that the store did not take, and that were done again."),
    _gauge("store_size_bytes", "Size of the store's file."),
    _counter("log_lines_dropped", "Lines of the log that the bus did not take."),
    _gauge("certificate_expiry_timestamp_seconds", "Until when the API's certificate is valid."),
    _counter(
        "maintenance_jobs",
        "Maintenance jobs that ended.",
        Label("job", "core_update, geofiles, hard_reset, update, new_core"),
        Label("result", "ok, failed"),
    ),
    _gauge("geofile_timestamp_seconds", "When it was written.", Label("file", "geoip, geosite")),
)

#: Each of them by its name without :data:`PREFIX` and ``_total``.
BY_NAME: Final = {family.name: family for family in FAMILIES}
