"""The metrics that figures become."""

from __future__ import annotations

from dataclasses import replace

from pgnode.bus.reports import Report
from pgnode.bus.snapshots import NodeStatus, Polled
from pgnode.bus.state import State
from pgnode.metrics.catalogue import BY_NAME, FAMILIES, OTHER_TAG, PROCESS_KINDS, TAGS_MAX
from pgnode.metrics.exposition import render
from pgnode.metrics.instruments import Histogram, no_buckets
from pgnode.supervisor.figures.node_figures import (
    BusFigures,
    CoreFigures,
    HostFigures,
    NodeFigures,
    ProcessFigures,
    SessionFigures,
    TrafficFigures,
    UserFigures,
    WorkersFigures,
)
from pgnode.supervisor.figures.series import series_of
from pgnode.supervisor.figures.worker_sums import Sums
from pgnode.supervisor.traffic.traffic_sums import TrafficSums


def observed(*labels: str) -> Histogram:
    histogram = Histogram()
    histogram.observe(0.2, *labels)
    return histogram


def everything() -> NodeFigures:
    """A node of which everything is known."""
    sums = TrafficSums()
    sums.users_moved(10, 20)
    sums.tag_moved("inbound>>>VLESS>>>traffic>>>uplink", 7)
    workers = Sums(
        {
            "calls/rest/GetStats/OK": 5,
            "unauthenticated/rest": 2,
            "limited/rest": 1,
            "not_allowed/grpc": 3,
            "key/current": 5,
            "cut_off": 1,
            "files_exhausted/rest": 3,
            "task_failures/grpc": 2,
            "cpu/rest": 1.5,
            "cpu/grpc": 0.5,
            "odd": 1,
            "odd/and/more/than/that": 1,
        },
        {"times/rest/read": no_buckets(), "odd": no_buckets()},
    )
    workers.gone["rest", "died"] = 4
    alive = [
        Report(1, "rest", in_flight={"rest": 1}, connections={"rest": 2}, open_files=9, max_files=10, memory_bytes=1),
        Report(1, "rest", in_flight={"rest": 2}, connections={"rest": 3}, open_files=20, max_files=100, memory_bytes=2),
    ]
    alive = [*alive, Report(1, "grpc", in_flight={"grpc": 1}, log_viewers=4, lag_seconds=0.25)]
    return NodeFigures(
        status=NodeStatus(
            State.RUNNING,
            True,
            "26.10.10",
            "1.0",
            "",
            7,
            starts={"same core": 2, "new core": 1, "new core, log waits": 1, "hot change, failed": 3},
            waiting="log level",
            core_hangs=1,
        ),
        wanted=True,
        core=CoreFigures(
            "embedded", 2, 1, observed("new_core"), {("add", "ok"): 9}, 0.01, {"DIRECT": 0.012}, 60, 30, 1000, 2000
        ),
        users=UserFigures(10, 1, 2, 3, 4, {("sync_user", "ok"): 8}, observed("sync_user")),
        sessions=SessionFigures({"VLESS": 7, "VMess": 0}, {"line": 5}, {"udp": 1}, 2),
        traffic=TrafficFigures(sums, Polled(1500, 5000, "", counters=12), {"lost": 1}, 1000.0, observed("whole"), 6),
        workers=WorkersFigures(workers, alive, {"rest": 2, "grpc": 1}, 900.0),
        host=HostFigures(
            {kind: ProcessFigures(1.0, 2, 3, 4) for kind in ("supervisor", "gunicorn", "core", "valkey")},
            10**9,
            {"gRPC worker 1": 1, "gRPC worker 2": 1, "valkey": 3},
            {"commands": 0, "logs": 1},
            0.1,
            1,
            500.0,
        ),
        bus=BusFigures(1, 2, 0.001, 5000),
        store_error="",
        store_failures=1,
        store_bytes=4096,
        log_lines_dropped=11,
        certificate_until=2000.0,
        jobs={("geofiles", "ok"): 1},
        geofiles={"geoip": 100.0},
    )


def test_every_metric_of_the_catalogue_is_told_with_all_its_labels() -> None:
    series = series_of(everything())
    told = {name: list(found) for name, found in series.values.items()}
    told |= {name: list(found) for name, found in series.histograms.items()}
    assert set(told) == set(BY_NAME)
    for family in FAMILIES:
        assert {len(labels) for labels in told[family.name]} == {len(family.labels)}, family.name
    render(series, "")


def test_workers_and_calls() -> None:
    values = series_of(everything()).values
    assert values["api_requests"] == {("rest", "GetStats", "OK"): 5}
    assert values["api_requests_in_flight"] == {("rest",): 3, ("grpc",): 1}
    assert values["api_connections"] == {("rest",): 5}
    assert values["workers"] == {("rest",): 2, ("grpc",): 1}
    assert values["worker_restarts"]["rest", "died"] == 4
    assert values["process_restarts"] == {("gunicorn",): 0, ("grpc_worker",): 2, ("valkey",): 3}
    assert values["loop_lag_seconds"] == {("supervisor",): 0.1, ("rest_worker",): 0, ("grpc_worker",): 0.25}


def test_connections() -> None:
    figures = everything()
    values = series_of(figures).values
    assert values["connections"] == {("VLESS",): 7, ("VMess",): 0}
    assert values["sessions_ended"] == {("line",): 5, ("address",): 0}
    assert values["sessions_left"]["udp",] == 1
    many = replace(figures.sessions, open={f"tag{number}": number for number in range(TAGS_MAX + 2)})
    told = series_of(replace(figures, sessions=many)).values["connections"]
    assert told[OTHER_TAG,] == 1
    assert len(told) == TAGS_MAX + 1


def test_processes() -> None:
    values = series_of(everything()).values
    assert {labels[0] for labels in values["process_cpu_seconds"]} == set(PROCESS_KINDS)
    assert values["process_resident_memory_bytes"]["rest_worker",] == 3
    assert (values["process_open_fds"]["rest_worker",], values["process_max_fds"]["rest_worker",]) == (9, 10)


def test_starts() -> None:
    values = series_of(everything()).values
    assert values["core_starts"] == {
        ("same_core",): 2,
        ("hot_change",): 0,
        ("new_core",): 1,
        ("hot_change_failed",): 3,
    }
    assert values["core_config_waits"] == {(): 1}
    assert values["state"]["running",] == 1
    assert sum(values["state"].values()) == 1
