"""What was found out about a node, for tests of what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pgnode.cli.seen import Facts, SeenCertificate, SeenCore, SeenDisk, SeenStore, SeenWorker
from pgnode.store.state import StoreSummary
from pgnode.supervisor.control.report import BusReport, CoreReport, NodeReport, PanelReport, ProcessReport, UsersReport

NOW = 1_800_000_000.0
REPORT = NodeReport(
    version="0.6.0",
    pid=812,
    up_seconds=273_600,
    state="running",
    core=CoreReport("embedded (library)", "26.10.10", 900, 7_500, 7),
    users=UsersReport(3, 3),
    panel=PanelReport(2.0),
    bus=BusReport("embedded", 0.3),
    addresses=["REST 0.0.0.0:62050"],
    processes=[ProcessReport("gunicorn", 5), ProcessReport("gRPC worker 1", 6), ProcessReport("valkey", 7)],
)
FACTS = Facts(
    at=NOW,
    state_dir="/var/lib/pgnode",
    why="",
    pid=812,
    report=REPORT,
    silence="",
    hangs=False,
    up_seconds=10.0,
    core=SeenCore(900, "embedded", 7_500),
    workers=[SeenWorker(kind, pid, 1.0, 0, 0.0, 5) for kind, pid in (("rest", 51), ("rest", 52), ("grpc", 6))],
    store=SeenStore(
        "/var/lib/pgnode/state.db", 4_200_000, NOW - 3, StoreSummary(3, 0, active=True, restoring=0, core_run=7)
    ),
    disk=SeenDisk(40_000_000_000, 12_000_000_000, 1_000_000),
    certificate=SeenCertificate("/var/lib/pgnode/tls/cert.pem", NOW + 1e8, ["localhost"], self_signed=True),
    api=["REST 0.0.0.0:62050"],
)


def said(**changes: Any) -> Facts:
    """The facts of a node whose supervisor says something else."""
    return replace(FACTS, report=replace(REPORT, **changes))
