"""What the supervisor does again and again: health, counters, figures, the machine's load.

Each loop is the work of one task (:mod:`pgnode.supervisor.tasks`). All calls in them have deadlines, and a core that hangs or a
bus that is away holds none of them up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import structlog

from pgnode.bus.snapshots import BACKEND, POLLED, SYSTEM
from pgnode.bus.state import WITH_CORE, State
from pgnode.os_support.beats import pause_to_beat
from pgnode.supervisor.core.core_stats import read_core_stats
from pgnode.supervisor.host.system_stats import SystemSampler
from pgnode.supervisor.persistence.snapshot_publisher import SnapshotPublisher
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.traffic.figures import SNAPSHOTS
from pgnode.supervisor.traffic.retention import Retention
from pgnode.supervisor.traffic.storing import TrafficStoring
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError

log = structlog.get_logger(__name__)

#: Seconds between two readings of the core's own figures, which are also how the node learns that its API hangs.
HEALTH_SECONDS = 2.0

#: Seconds between two samples of the machine's load.
SYSTEM_SECONDS = 2.0

#: Pause between two publications of statistics: at least so many seconds, and so many times what the last one took; but not for
#: longer than the last value, since it may have waited for a bus that hung.
FIGURES_PAUSE_SECONDS = 0.05
FIGURES_PAUSE_RATIO = 5
FIGURES_PAUSE_MAX_SECONDS = 2.0

#: Seconds after which workers start without the first figures.
FIRST_FIGURES_SECONDS = 5.0

#: Seconds between two searches for users who were removed and are owed nothing.
FORGET_SECONDS = 30.0


class CoreView(Protocol):
    """The core as loops see it."""

    @property
    def api(self) -> CoreApi | None:
        """The API of the process that runs."""

    @property
    def run_id(self) -> str:
        """Tells this process from every other."""


class NodeView(Protocol):
    """The node as loops see it."""

    @property
    def state(self) -> State:
        """Its state now."""

    async def core_api_answered(self, error: str) -> None:
        """Tell the node what asking the core's API led to: "" when it answered."""


class News(Protocol):
    """What is set when statistics are to be published."""

    @property
    def news(self) -> asyncio.Event:
        """There are others than those published."""

    @property
    def urgent(self) -> asyncio.Event:
        """Somebody waits for them."""


class HealthLoop:
    """Reads the core's own figures, publishes them, and tells the node whether the core answers.

    Args:
        core: The core.
        node: Is told.
        publisher: Publishes the figures.
        deadline_seconds: Seconds that the core has to answer.
        interval_seconds: Seconds between two readings.
    """

    def __init__(
        self,
        core: CoreView,
        node: NodeView,
        publisher: SnapshotPublisher,
        *,
        deadline_seconds: float,
        interval_seconds: float = HEALTH_SECONDS,
    ) -> None:
        self._core = core
        self._node = node
        self._publisher = publisher
        self._deadline_seconds = deadline_seconds
        self._interval_seconds = interval_seconds
        #: The core's figures, and the run that they are of; None before the first.
        self.latest: tuple[str, pb.BackendStatsResponse] | None = None

    def __repr__(self) -> str:
        return f"HealthLoop(every {self._interval_seconds:g} s)"

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            api = self._core.api
            if self._node.state is State.RUNNING and api is not None:
                await self._ask(api)
            await pause_to_beat(self._interval_seconds)

    async def _ask(self, api: CoreApi) -> None:
        run = self._core.run_id
        try:
            stats = await read_core_stats(api, self._deadline_seconds)
        except CoreApiError as error:
            # A core that was ended meanwhile does not answer, and need not.
            if api is self._core.api and self._node.state is State.RUNNING:
                await self._node.core_api_answered(str(error))
        else:
            self.latest = run, stats
            await self._publisher.publish({BACKEND: stats.SerializeToString()})
            await self._node.core_api_answered("")


class CounterLoop:
    """Reads the core's counters, stores what moved, and forgets users who were removed.

    Args:
        core: The core.
        node: Its state says whether there is a core to read.
        traffic: Reads the counters, and counts them in the ledger.
        storing: Stores what moved.
        retention: Forgets.
        generation: Tells when the desired users were last changed.
        interval_seconds: Seconds between two readings.
        forget_seconds: Seconds between two searches for users who were removed.
    """

    def __init__(
        self,
        core: CoreView,
        node: NodeView,
        traffic: TrafficCollector,
        storing: TrafficStoring,
        retention: Retention,
        *,
        generation: Callable[[], int],
        interval_seconds: float,
        forget_seconds: float = FORGET_SECONDS,
    ) -> None:
        self._core = core
        self._node = node
        self._traffic = traffic
        self._storing = storing
        self._retention = retention
        self._generation = generation
        self._forget_seconds = forget_seconds
        self._interval_seconds = interval_seconds

    def __repr__(self) -> str:
        return f"CounterLoop(every {self._interval_seconds:g} s)"

    async def run(self) -> None:
        """Go on until cancelled."""
        loop = asyncio.get_running_loop()
        forgotten_at = loop.time()
        while True:
            api = self._core.api
            if self._node.state in WITH_CORE and api is not None:
                error = await self._traffic.poll(api, self._core.run_id, scheduled=True)
                if error:
                    log.debug("counters not read", error=error)
                elif loop.time() - forgotten_at >= self._forget_seconds:
                    forgotten_at = loop.time()
                    await self._retention.forget_removed(self._generation())
            await self._storing.store_if_due()
            await wait_for_turn(self._interval_seconds, self._traffic.due)


class FiguresLoop:
    """Publishes statistics when they are news. A large set takes its time, so the pauses grow with it.

    Args:
        traffic: Makes the statistics.
        figures: Says when there are others than those published, and when somebody waits for them.
        publisher: Publishes them.
        now_ms: Milliseconds on the bus's clock.
    """

    def __init__(
        self, traffic: TrafficCollector, figures: News, publisher: SnapshotPublisher, now_ms: Callable[[], float]
    ) -> None:
        self._traffic = traffic
        self._figures = figures
        self._publisher = publisher
        self._now_ms = now_ms

    def __repr__(self) -> str:
        return "FiguresLoop()"

    async def publish_first(self, timeout_seconds: float = FIRST_FIGURES_SECONDS) -> None:
        """Publish before workers start: they would serve what an earlier supervisor wrote.

        Args:
            timeout_seconds: Seconds after which workers start without the first figures.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not await self._publish():  # noqa: ASYNC110 - the bus tells nobody that it is back
                    await asyncio.sleep(FIGURES_PAUSE_SECONDS)

    async def run(self) -> None:
        """Go on until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._figures.news.wait()
            self._figures.news.clear()
            self._figures.urgent.clear()
            begun = loop.time()
            await self._publish()
            await wait_for_turn(figures_pause(loop.time() - begun), self._figures.urgent)

    async def publish_age(self) -> None:
        """Publish how old the figures are, and which of them show what was handed out: those come later."""
        await self._publisher.publish({}, self._polled)

    async def _publish(self) -> bool:
        return await self._publisher.publish(await self._traffic.blocks(), self._polled)

    def _polled(self) -> dict[str, bytes]:
        since = self._publisher.revisions(SNAPSHOTS.values())
        return {POLLED: self._traffic.polled(self._now_ms(), since, of_blocks=True).encode()}


class SystemLoop:
    """Samples and publishes the machine's load.

    Args:
        publisher: Publishes it.
        sampler: Measures it.
        interval_seconds: Seconds between two samples.
    """

    def __init__(
        self,
        publisher: SnapshotPublisher,
        sampler: SystemSampler,
        *,
        interval_seconds: float = SYSTEM_SECONDS,
    ) -> None:
        self._publisher = publisher
        self._sampler = sampler
        self._interval_seconds = interval_seconds

    def __repr__(self) -> str:
        return f"SystemLoop(every {self._interval_seconds:g} s)"

    async def publish(self) -> None:
        """Publish the load since the last sample."""
        stats = await asyncio.to_thread(self._sampler.sample)
        await self._publisher.publish({SYSTEM: stats.SerializeToString()})

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await pause_to_beat(self._interval_seconds)
            await self.publish()


def figures_pause(took_seconds: float) -> float:
    """Choose the pause until statistics are published again.

    Args:
        took_seconds: How long the last time took.

    Returns:
        Seconds.
    """
    return min(max(FIGURES_PAUSE_SECONDS, FIGURES_PAUSE_RATIO * took_seconds), FIGURES_PAUSE_MAX_SECONDS)


async def wait_for_turn(seconds: float, wake: asyncio.Event) -> None:
    """Wait for the next turn of a loop.

    Args:
        seconds: Seconds until then.
        wake: Set by whoever wants it earlier; cleared here.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
    wake.clear()
