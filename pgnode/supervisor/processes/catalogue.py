"""The processes of a node: who keeps each of them up, and what happens to it when the supervisor is killed.

The table in docs/architecture.md is made from this one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One kind of process."""

    name: str
    number: str
    duty: str
    kept_up_by: str
    #: What becomes of it when the supervisor is killed.
    without_supervisor: str


PROCESSES = (
    ProcessSpec(
        "supervisor",
        "1",
        "owns all state, and the core",
        "whoever runs the node: systemd, Docker, an operator",
        "the next one takes the core over, and ends what else is left",
    ),
    ProcessSpec(
        "Xray core",
        "1 when started",
        "users' traffic",
        "supervisor: growing pauses, then single tries, 10 minutes apart at most",
        "goes on",
    ),
    ProcessSpec(
        "Valkey",
        "1 without REDIS_URL",
        "the bus between supervisor and workers",
        "supervisor: growing pauses, never given up",
        "ends",
    ),
    ProcessSpec(
        "Gunicorn's master",
        "1, but with SERVICE_PROTOCOL=none",
        "keeps the REST workers up",
        "supervisor: growing pauses, never given up",
        "ends, and its workers with it",
    ),
    ProcessSpec(
        "REST worker",
        "WEB_CONCURRENCY",
        "the API over REST, the maintenance API",
        "Gunicorn's master; killed when it hangs for 15 s",
        "ends",
    ),
    ProcessSpec(
        "gRPC worker",
        "GRPC_WORKERS with gRPC",
        "the API over gRPC",
        "supervisor: growing pauses, never given up; killed when it misses eight heartbeats",
        "ends when its line is closed",
    ),
    ProcessSpec(
        "runner, scratch core, trial",
        "now and then",
        "a core that is being prepared, asked or tried",
        "nobody: short-lived",
        "ends with its pipe",
    ),
)
