"""The metrics that the node's figures are. Pure."""

from __future__ import annotations

import platform
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final

from pgnode import __version__
from pgnode.bus import reports
from pgnode.bus.protocol import PROTOCOL
from pgnode.bus.reports import SEPARATOR, Report
from pgnode.bus.state import State
from pgnode.metrics.catalogue import OTHER_TAG, TAGS_MAX
from pgnode.metrics.instruments import Histogram
from pgnode.metrics.series import Series
from pgnode.supervisor.figures.node_figures import NodeFigures, ProcessFigures, SessionFigures, WorkersFigures
from pgnode.supervisor.sessions.counts import FOUND_BY, LEFT

#: Kind of a worker -> kind of its process.
WORKER_PROCESSES: Final = {"rest": "rest_worker", "grpc": "grpc_worker"}

#: What a start's way is called in the node's status -> and here. What waits for the next core is told beside it.
_WAYS: Final = {
    "same core": "same_core",
    "hot change": "hot_change",
    "new core": "new_core",
    "hot change, failed": "hot_change_failed",
}
_WAITS: Final = ", log waits"


def series_of(figures: NodeFigures) -> Series:
    """Return the metrics of the node.

    Args:
        figures: What is known of it.

    Returns:
        Their values.
    """
    series = Series()
    series.set("supervisor_up", 1)
    _node(series, figures)
    _core(series, figures)
    _users(series, figures)
    _sessions(series, figures.sessions)
    _traffic(series, figures)
    _api(series, figures.workers)
    _processes(series, figures)
    _rest(series, figures)
    return series


def _histograms(series: Series, name: str, histogram: Histogram) -> None:
    for labels, buckets in histogram.items():
        series.set_histogram(name, buckets, *labels)


def _counts(series: Series, name: str, counts: Mapping[tuple[str, str], float]) -> None:
    for labels, value in counts.items():
        series.set(name, value, *labels)


def _node(series: Series, figures: NodeFigures) -> None:
    status = figures.status
    python = platform.python_version()
    series.set("build_info", 1, status.node_version, status.core_version, figures.core.kind, python, status.core_type)
    series.set("start_time_seconds", figures.host.started_at)
    for state in State:
        series.set("state", status.state is state, str(state))
    series.set("wanted_running", figures.wanted)
    series.set("core_up", status.core_ready)
    series.set("degraded", status.degraded)
    series.set("draining", bool(status.draining))
    series.set("config_unknown", bool(status.unknown))
    for task, failures in figures.host.task_failures.items():
        series.set("task_failures", failures, task)
    series.set("restarts_in_place", figures.host.restarts_in_place)


def _core(series: Series, figures: NodeFigures) -> None:
    status, core = figures.status, figures.core
    series.set("core_run", status.core_run)
    for way in _WAYS.values():
        series.set("core_starts", 0, way)
    for way, number in status.starts.items():
        if way in _WAYS:
            series.set("core_starts", number, _WAYS[way])
    _histograms(series, "core_start_duration_seconds", core.start_seconds)
    series.set("core_deaths", core.deaths)
    series.set("core_hangs", status.core_hangs)
    series.set("core_given_up", core.given_up)
    series.set("core_config_waiting", bool(status.waiting))
    series.set("core_config_waits", sum(number for way, number in status.starts.items() if way.endswith(_WAITS)))
    series.set("core_uptime_seconds", core.uptime_seconds)
    series.set("core_goroutines", core.goroutines)
    series.set("core_heap_alloc_bytes", core.heap_bytes)
    series.set("core_sys_bytes", core.sys_bytes)
    series.set("core_gc_pause_seconds", core.gc_pause_seconds)
    _counts(series, "core_calls", core.calls)
    for tag, seconds in core.outbound_delays.items():
        series.set("outbound_delay_seconds", seconds, tag)


def _users(series: Series, figures: NodeFigures) -> None:
    users = figures.users
    series.set("users_desired", users.desired)
    series.set("users_waiting", users.waiting)
    series.set("users_failed", users.failed)
    series.set("users_online", users.online)
    series.set("addresses_online", users.addresses)
    _counts(series, "user_changes", users.changes)
    _histograms(series, "user_change_duration_seconds", users.change_seconds)


def _sessions(series: Series, sessions: SessionFigures) -> None:
    by_number = sorted(sessions.open.items(), key=lambda item: (-item[1], item[0]))
    for inbound, number in by_number[:TAGS_MAX]:
        series.set("connections", number, inbound)
    if rest := by_number[TAGS_MAX:]:
        series.set("connections", sum(number for _, number in rest), OTHER_TAG)
    for how in FOUND_BY:
        series.set("sessions_ended", sessions.ended.get(how, 0), how)
    for why in LEFT:
        series.set("sessions_left", sessions.left.get(why, 0), why)
    series.set("session_failures", sessions.failures)


def _traffic(series: Series, figures: NodeFigures) -> None:
    traffic = figures.traffic
    sums, polled = traffic.sums, traffic.polled
    for labels, moved in sums.tags.items():
        series.set("traffic_bytes", moved, *labels)
    for direction, moved in sums.users.items():
        series.set("user_traffic_bytes", moved, direction)
    for kind in ("user", "inbound", "outbound"):
        series.set("traffic_owed_bytes", sums.owed[kind], kind)
        series.set("traffic_on_loan_bytes", sums.lent[kind], kind)
    series.set("traffic_last_taken_timestamp_seconds", traffic.taken_at)
    for result in ("delivered", "returned", "lost"):
        series.set("loans", traffic.loans.get(result, 0), result)
    series.set("stats_age_seconds", None if polled.age_ms is None else polled.age_ms / 1000)
    series.set("stats_interval_seconds", polled.interval_ms / 1000)
    series.set("stats_counters", polled.counters)
    _histograms(series, "stats_reading_duration_seconds", traffic.reading_seconds)
    series.set("stats_reading_errors", traffic.reading_errors)


def _api(series: Series, workers: WorkersFigures) -> None:
    in_flight, connections = Counter[str](), Counter[str]()
    for report in workers.alive:
        in_flight.update(report.in_flight)
        connections.update(report.connections)
    for face, number in in_flight.items():
        series.set("api_requests_in_flight", number, face)
    for face, number in connections.items():
        series.set("api_connections", number, face)
    series.set("api_log_viewers", sum(report.log_viewers for report in workers.alive))
    series.set("last_call_timestamp_seconds", workers.last_call_at)
    series.set("api_cut_off", workers.sums.counts.get(reports.CUT_OFF, 0))
    for name, value in workers.sums.counts.items():
        match name.split(SEPARATOR):
            case reports.CALLS, face, method, code:
                series.set("api_requests", value, face, method, code)
            case reports.UNAUTHENTICATED, face:
                series.set("api_unauthenticated", value, face)
            case reports.LIMITED, face:
                series.set("api_wrong_key_limited", value, face)
            case reports.NOT_ALLOWED, kind:
                series.set("api_not_allowed", value, kind)
            case reports.KEY_USES, key:
                series.set("api_key_uses", value, key)
    for name, buckets in workers.sums.times.items():
        match name.split(SEPARATOR):
            case reports.TIMES, face, group:
                series.set_histogram("api_request_duration_seconds", buckets, face, group)


def _processes(series: Series, figures: NodeFigures) -> None:
    workers, host = figures.workers, figures.host
    alive = Counter(report.kind for report in workers.alive)
    for kind in (*workers.wanted, *(kind for kind in WORKER_PROCESSES if kind not in workers.wanted and alive[kind])):
        series.set("workers", alive[kind], kind)
        series.set("workers_wanted", workers.wanted.get(kind, 0), kind)
        for reason in ("ended", "died"):
            series.set("worker_restarts", workers.sums.gone[kind, reason], kind, reason)
    for kind in WORKER_PROCESSES:
        versions = Counter(_version(report) for report in workers.alive if report.kind == kind)
        for version in ("same", "other", "refused"):
            series.set("workers_by_version", versions[version], kind, version)
    series.set("worker_hosts", len({report.host for report in workers.alive}))
    restarts = Counter[str]()
    for child, number in host.child_restarts.items():
        restarts["grpc_worker" if child.startswith("gRPC") else child] += number
    for process in ("gunicorn", "grpc_worker", "valkey"):
        series.set("process_restarts", restarts[process], process)
    lags: defaultdict[str, float] = defaultdict(float, supervisor=host.lag_seconds)
    for report in workers.alive:
        process = WORKER_PROCESSES.get(report.kind, report.kind)
        lags[process] = max(lags[process], report.lag_seconds)
    for process, lag in lags.items():
        series.set("loop_lag_seconds", lag, process)
    for process, used in {**host.processes, **_of_workers(workers)}.items():
        series.set("process_cpu_seconds", used.cpu_seconds, process)
        series.set("process_resident_memory_bytes", used.memory_bytes, process)
        series.set("process_open_fds", used.open_files, process)
        series.set("process_max_fds", used.max_files, process)
    for kind in workers.wanted:
        exhausted = workers.sums.counts.get(f"{reports.FILES_EXHAUSTED}{SEPARATOR}{kind}", 0)
        series.set("open_files_exhausted", exhausted, kind)
        failures = workers.sums.counts.get(f"{reports.TASK_FAILURES}{SEPARATOR}{kind}", 0)
        series.set("task_failures", failures, f"{kind} worker")
    series.set("memory_limit_bytes", host.memory_limit_bytes)


def _version(report: Report) -> str:
    """Say how a worker's version is beside this one's."""
    if report.protocol != PROTOCOL:
        return "refused"
    return "same" if report.version == __version__ else "other"


def _of_workers(workers: WorkersFigures) -> dict[str, ProcessFigures]:
    """Return what the workers' processes take, by kind of process."""
    found = {}
    for kind, process in WORKER_PROCESSES.items():
        cpu_seconds = workers.sums.counts.get(f"{reports.CPU_SECONDS}{SEPARATOR}{kind}")
        if cpu_seconds is None:
            continue
        alive = [report for report in workers.alive if report.kind == kind]
        fullest = max(alive, key=lambda report: report.open_files / max(1, report.max_files), default=Report(0, kind))
        found[process] = ProcessFigures(
            cpu_seconds=cpu_seconds,
            memory_bytes=sum(report.memory_bytes for report in alive),
            open_files=fullest.open_files,
            max_files=fullest.max_files,
        )
    return found


def _rest(series: Series, figures: NodeFigures) -> None:
    bus = figures.bus
    series.set("bus_commands_waiting", bus.commands_waiting)
    series.set("bus_round_trip_seconds", bus.round_trip_seconds)
    series.set("bus_memory_bytes", bus.memory_bytes)
    series.set("bus_refills", bus.refills)
    series.set("store_failures", figures.store_failures)
    series.set("store_size_bytes", figures.store_bytes)
    series.set("log_lines_dropped", figures.log_lines_dropped)
    series.set("certificate_expiry_timestamp_seconds", figures.certificate_until)
    _counts(series, "maintenance_jobs", figures.jobs)
    for name, written in figures.geofiles.items():
        series.set("geofile_timestamp_seconds", written, name)
