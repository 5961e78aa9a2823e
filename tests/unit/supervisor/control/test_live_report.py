"""Rates and workers, as they are told to who looks."""

from __future__ import annotations

import json
from dataclasses import replace

from pgnode.bus.protocol import PROTOCOL
from pgnode.bus.reports import Report
from pgnode.supervisor.control.live_report import (
    TAGS_MAX,
    USERS_MAX,
    FlowReport,
    LiveReport,
    WorkerReport,
    alone_of,
    calls_of,
    flows_of,
    workers_of,
)
from pgnode.supervisor.control.report import AloneReport
from pgnode.supervisor.traffic.traffic_watch import BytesMoved


def counter(kind: str, name: str, way: str = "downlink") -> str:
    return f"{kind}>>>{name}>>>traffic>>>{way}"


def test_it_comes_as_it_was_sent() -> None:
    report = LiveReport(
        reading=3, read_seconds_ago=1.5, users=[FlowReport("alice", 1.0, 2.0, 3, 1)], workers=[WorkerReport("rest", 5)]
    )
    assert LiveReport.decode(json.loads(json.dumps(report.encode()))) == report
    assert LiveReport.decode({"users": {}, "reading": "x", "workers": [{"pid": 3}], "more": 1}) == LiveReport(
        workers=[WorkerReport(pid=3)]
    )
    assert LiveReport.decode(None) == LiveReport()


def test_what_moved_becomes_rates() -> None:
    moved = BytesMoved(
        1,
        2.0,
        {
            counter("user", "alice"): 100,
            counter("user", "alice", "uplink"): 10,
            counter("user", "bob"): 400,
            counter("user", "idle"): 0,
            counter("inbound", "VLESS"): 600,
            counter("outbound", "DIRECT", "uplink"): 8,
            "nonsense": 5,
        },
    )
    flows = flows_of(moved, len, lambda email: 2 if email == "bob" else 0)
    assert [(flow.name, flow.up, flow.down, flow.addresses) for flow in flows.by_kind["user"]] == [
        ("bob", 0.0, 200.0, 2),
        ("alice", 5.0, 50.0, 0),
    ]
    assert flows.by_kind["user"][0].total == len(counter("user", "bob")) + len(counter("user", "bob", "uplink"))
    assert [flow.name for flow in flows.by_kind["outbound"]] == ["DIRECT"]
    assert (flows.users, flows.up, flows.down) == (2, 0.0, 300.0), "by inbounds"
    by_users = flows_of(BytesMoved(1, 2.0, {counter("user", "alice"): 100}), lambda _name: 0, lambda _email: 0)
    assert (by_users.up, by_users.down) == (0.0, 50.0)
    nothing = flows_of(BytesMoved(), lambda _name: 0, lambda _email: 0)
    assert (nothing.users, nothing.up, nothing.by_kind["user"]) == (0, 0.0, [])


def test_those_that_move_most_are_told_of() -> None:
    moved = BytesMoved(1, 1.0, {counter(kind, str(n)): n + 1 for kind in ("user", "inbound") for n in range(1000)})
    flows = flows_of(moved, lambda _name: 0, lambda _email: 0)
    assert [len(flows.by_kind[kind]) for kind in ("user", "inbound", "outbound")] == [USERS_MAX, TAGS_MAX, 0]
    assert (flows.by_kind["user"][0].name, flows.users) == ("999", 1000)


def test_workers_are_told_of_rest_first() -> None:
    counts = {"calls/rest/GetStats/OK": 5.0, "calls/rest/Start/INTERNAL": 2.0, "calls/rest/GetLogs/CANCELLED": 1.0}
    assert calls_of({**counts, "key/current": 9.0}) == (8, 2)
    grpc = Report(1, "grpc", pid=9, host="b")
    rest = Report(
        1, "rest", counts, {}, {"rest": 2}, {"rest": 14}, pid=7, host="a", memory_bytes=5, lag_seconds=0.00212
    )
    assert workers_of([grpc, rest]) == [
        WorkerReport("rest", 7, "a", 8, 2, 14, 5, 0.0021),
        WorkerReport("grpc", 9, "b"),
    ]


def test_workers_without_a_supervisor_beside_them_are_counted_by_host_and_version() -> None:
    east = Report(1, "rest", pid=7, host="east", version="1.0", alone=True)
    alive = [replace(east, pid=8), east, replace(east, protocol=PROTOCOL + 1), replace(east, host="here", alone=False)]
    assert alone_of(alive) == [
        AloneReport("east", "rest", "1.0", False, 1),
        AloneReport("east", "rest", "1.0", True, 2),
    ]
