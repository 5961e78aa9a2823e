"""The tasks of a supervisor: which there are, and what happens when one ends that should not.

:data:`TASKS` is the one table. The tasks are made from it, and so is the table in docs/architecture.md.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog

from pgnode.errors import OperatorError, TaskFailedError
from pgnode.os_support.clock import Clock
from pgnode.supervisor.processes.restart_policy import GiveUp, RestartPolicy

log = structlog.get_logger(__name__)

#: Failures of a vital task within a minute with which it is no use to begin it once more.
FAILURES_MAX = 4

#: The work of a task; it goes on until it is cancelled.
Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task that runs for as long as the node does."""

    name: str
    #: What it is for, in half a sentence.
    duty: str
    #: The node is no use without it: when it fails again and again, the supervisor is restarted in place.
    vital: bool = False


COMMANDS = TaskSpec("commands", "takes commands from the bus and sorts them; never does any", vital=True)
CHANGES = TaskSpec("changes", "does starts, stops and user changes in order, in groups", vital=True)
QUERIES = TaskSpec("queries", "answers what only reads, or settles loans; never waits behind a change", vital=True)
STATISTICS = TaskSpec(
    "statistics", "reads the core's counters into the ledger, and stores them now and then", vital=True
)
FIGURES = TaskSpec("figures", "publishes statistics when they are news", vital=True)
LOANS = TaskSpec("loans", "finds workers that died before they delivered statistics; these are owed again")
OWNERSHIP = TaskSpec("ownership", "holds this node's prefix in an external Redis, and says when another node has it")
SNAPSHOTS = TaskSpec(
    "snapshots", "publishes again what a bus has lost that was restarted, emptied or replaced", vital=True
)
HEALTH = TaskSpec("health", "reads the core's own figures, and so learns whether its API answers")
HANGS = TaskSpec("hangs", "ends a core that gives no sign of life for CORE_HANG_SECONDS; another one takes its place")
BUS = TaskSpec("bus", "finds out that the bus answers others, but not this supervisor, which then restarts in place")
SYSTEM = TaskSpec("system", "publishes the machine's load")
PANEL = TaskSpec("panel", "watches whether the panel still calls, where its start named a time for that")
SESSIONS = TaskSpec("sessions", "ends the connections of users who were removed, or whose account changed")
LOGS = TaskSpec("logs", "passes the core's and the node's lines on to the log stream, while somebody watches")
LOG_FILES = TaskSpec("log files", "writes the log files that the config names")
CERTIFICATE = TaskSpec("certificate", "gives workers a new certificate, when it can be used")
GUNICORN = TaskSpec("gunicorn", "restarts Gunicorn's master when it ends; the master does so with its workers")
GRPC_WORKERS = TaskSpec("gRPC workers", "restarts gRPC workers that end or hang")
REPORTS = TaskSpec("reports", "adds up what workers report of themselves, and looks at the node's processes")
INTRODUCTION = TaskSpec(
    "introduction",
    "tells workers its version, the protocol of the bus and, in an external Redis, digests of the API keys",
)
METRICS = TaskSpec("metrics", "serves metrics and health on METRICS_PORT, also while no worker answers")
VALKEY = TaskSpec("valkey", "restarts the embedded Valkey when it ends")
ORPHANS = TaskSpec(
    "orphans", "reaps what others left to the node where it is process 1, in a container without an init"
)
DRAIN = TaskSpec("drain", "ends a drain when its time is over, and tries again what the core did not do for it")
SERVICE = TaskSpec("service manager", "tells systemd that the node lives and how it is; begins first and ends last")
CONTROL = TaskSpec("control", "answers the operator's commands; begins first and ends last, and needs no bus")

TASKS = (
    COMMANDS,
    CHANGES,
    QUERIES,
    STATISTICS,
    FIGURES,
    OWNERSHIP,
    SNAPSHOTS,
    LOANS,
    HEALTH,
    HANGS,
    DRAIN,
    BUS,
    SYSTEM,
    PANEL,
    SESSIONS,
    LOGS,
    LOG_FILES,
    CERTIFICATE,
    GUNICORN,
    GRPC_WORKERS,
    VALKEY,
    ORPHANS,
    CONTROL,
    SERVICE,
    REPORTS,
    INTRODUCTION,
    METRICS,
)


class TaskRunner:
    """Keeps work going: what fails unexpectedly begins again after a pause, and the node goes on.

    Args:
        clock: Time and chance; tests replace it.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else Clock()
        #: How often each task failed, by name.
        self.failures: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"TaskRunner({dict(self.failures)})"

    def start(self, tasks: Mapping[TaskSpec, Work]) -> list[asyncio.Task[None]]:
        """Start tasks.

        Args:
            tasks: What each of them does.

        Returns:
            The tasks. One that ends has met an OperatorError, which no new attempt would mend.
        """
        return [asyncio.create_task(self.keep_going(spec, work), name=spec.name) for spec, work in tasks.items()]

    async def keep_going(self, spec: TaskSpec, work: Work) -> None:
        """Do work until cancelled; begin it again when it fails.

        Args:
            spec: The task.
            work: What it does.

        Raises:
            OperatorError: It cannot go on before an operator has done something.
            TaskFailedError: It is vital, and fails again and again.
        """
        policy = RestartPolicy(max_deaths=FAILURES_MAX if spec.vital else None)
        while True:
            try:
                await work()
                log.error("task ended", task=spec.name)
            except OperatorError:
                raise
            except Exception:
                log.exception("task failed", task=spec.name)
            self.failures[spec.name] += 1
            decision = policy.died(self._clock.now(), None, self._clock.chance())
            if isinstance(decision, GiveUp):
                raise TaskFailedError(f"the task {spec.name} fails again and again: see the node's log")
            # Never at once: work that fails without waiting would keep the event loop busy.
            await self._clock.sleep(max(policy.first_pause_seconds, decision.delay_seconds))
