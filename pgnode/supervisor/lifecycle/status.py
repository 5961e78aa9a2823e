"""What workers are told of the node: its state, and a new core's first figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode import __version__
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import BACKEND, STATE, NodeStatus
from pgnode.errors import StartFailedError
from pgnode.metrics.instruments import Histogram
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.core_stats import core_stats
from pgnode.supervisor.lifecycle.node_life import NodeLife
from pgnode.supervisor.lifecycle.states import State
from pgnode.wire import service_pb2 as pb
from pgnode.wire.node_version import told_version

log = structlog.get_logger(__name__)


class StatusBoard:
    """Belongs to the supervisor's loop.

    Args:
        life: The state of the node.
        core: The core's process.
        redis: Takes snapshots.
        snapshots: Writes them.
        waiting: Says what was asked for and waits for the next start of the core; "" for nothing.
        draining: Says why nobody new should be sent to this node; "" where that is not so.
        taking_over: Whether workers go on by what the supervisor before said, until it is known what became of its core.
    """

    def __init__(
        self,
        life: NodeLife,
        core: CoreController,
        redis: Redis,
        snapshots: SnapshotWriter,
        *,
        waiting: Callable[[], str],
        draining: Callable[[], str],
        taking_over: bool = False,
    ) -> None:
        self._taking_over = taking_over
        self._draining = draining
        self._waiting = waiting
        self._life = life
        self._core = core
        self._redis = redis
        self._snapshots = snapshots
        #: How often each start strategy was used since this supervisor began.
        self._starts: Counter[str] = Counter()
        #: How long starts took that succeeded, by strategy.
        self.start_seconds = Histogram()
        #: What workers were told last.
        self._told: NodeStatus | None = None
        #: Core run whose first figures were published.
        self._introduced_run = 0

    def __repr__(self) -> str:
        return f"StatusBoard({self._told!r})"

    def count_start(self, way: str) -> None:
        """Note which strategy a start used."""
        self._starts[way] += 1

    async def learn_version(self) -> None:
        """Ask the core that the next start would run for its version."""
        try:
            await self._core.version()
        except StartFailedError as error:
            log.warning("the core's version is not known", error=error.text)

    def status(self) -> NodeStatus:
        """Return the state as workers need it."""
        now = self._life.now
        return NodeStatus(
            state=now.state,
            core_ready=now.core_serves,
            core_version=self._core.known_version,
            node_version=__version__,
            core_api_error=now.api_error,
            core_run=now.core_run,
            keep_alive_seconds=self._life.keep_alive_seconds,
            degraded=now.panel_away,
            starts=dict(self._starts),
            waiting=self._waiting(),
            core_hangs=now.hangs,
            unknown=now.unknown,
            draining=self._draining(),
            core_type=self._life.core_type,
        )

    def base_info(self) -> pb.BaseInfoResponse:
        """Return what a start is answered with."""
        running = self._life.state is State.RUNNING
        return pb.BaseInfoResponse(
            started=running,
            core_version=self._core.known_version,
            node_version=told_version(__version__),
            version=__version__,
            core_type=self._life.core_type,
            running=running,
        )

    async def introduce(self, *, bus_is_new: bool) -> None:
        """Tell the workers before any of them is started.

        Args:
            bus_is_new: The bus holds nothing that the supervisor before said.
        """
        self._taking_over = self._taking_over and not bus_is_new
        await self.publish()

    async def publish(self) -> None:
        """Tell the workers now. Best effort: every commit of a change tells them, too."""
        if self._keeps_quiet():
            return
        pipe = self._redis.pipeline(transaction=True)
        self._put(pipe)
        try:
            await pipe.execute()
        except BUS_ERRORS as error:
            log.warning("state not published", error=str(error))

    def tell(self, pipe: Pipeline) -> None:
        """Add the state to a transaction if workers do not know it yet. After a change of users alone they do."""
        if self.status() != self._told and not self._keeps_quiet():
            self._put(pipe)
        run = self._life.now.core_run
        if self._core.running is not None and self._introduced_run != run:
            self._introduced_run = run
            # Whoever was told that the core runs must find its figures.
            self._snapshots.put(pipe, BACKEND, core_stats(self._core.initial_stats).SerializeToString())

    def _keeps_quiet(self) -> bool:
        """Whether workers are not told now; ends when it is known whether a core runs."""
        self._taking_over = self._taking_over and not self._life.now.is_known
        return self._taking_over

    def _put(self, pipe: Pipeline) -> None:
        self._told = self.status()
        self._snapshots.put(pipe, STATE, self._told.encode())
