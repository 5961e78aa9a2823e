"""What counts and hands out traffic, put together: constructors only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from redis.asyncio import Redis

from pgnode.bus.keys import Keys
from pgnode.bus.presence import workers_alive
from pgnode.store.changes import Journal
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.traffic.figures import TrafficFigures
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.supervisor.traffic.lately_online import LatelyOnline
from pgnode.supervisor.traffic.payouts import Payouts
from pgnode.supervisor.traffic.retention import Retention
from pgnode.supervisor.traffic.storing import TrafficStoring
from pgnode.xray.client.api import CoreApi

if TYPE_CHECKING:
    from pgnode.settings import Settings


class CoreView(Protocol):
    """The core as its counters are read."""

    @property
    def api(self) -> CoreApi | None:
        """The API of the process that runs."""

    @property
    def run_id(self) -> str:
        """Tells this process from every other."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is counted and handed out."""

    figures: TrafficFigures
    storing: TrafficStoring
    collector: TrafficCollector
    payouts: Payouts
    retention: Retention
    inbounds: InboundStats


def assemble_traffic(
    settings: Settings,
    core: CoreView,
    journal: Journal,
    redis: Redis,
    keys: Keys,
    *,
    commit: Callable[[], Awaitable[object]],
    tags: Callable[[], Sequence[tuple[str, str]]],
    wanted: Callable[[str], bool],
    lately: LatelyOnline,
) -> Traffic:
    """Put it together.

    Args:
        settings: How often the core is read, and whether inbounds are counted.
        core: Whose counters are read.
        journal: Where changes for the store go.
        redis: Tells which workers are there.
        keys: The node's keys.
        commit: Stores what the journal holds of the traffic.
        tags: Returns (kind, tag) of the running config's inbounds and outbounds.
        wanted: Whether a user of that e-mail is desired.
        lately: Keeps who counts as online for a while after its last connection.

    Returns:
        The parts.
    """
    figures, inbounds = TrafficFigures(journal), InboundStats(settings.inbound_stats, journal)
    storing = TrafficStoring(figures, commit)
    collector = TrafficCollector(
        figures,
        storing,
        tags,
        interval_seconds=settings.stats_update_interval_seconds,
        inbounds=inbounds,
        lately=lately,
    )
    payouts = Payouts(
        figures,
        journal,
        read=lambda: collector.poll(core.api, core.run_id, exact=True),
        alive=lambda workers: workers_alive(redis, keys, workers),
        commit=commit,
    )
    retention = Retention(figures, wanted=wanted, delivered=lambda: payouts.delivered)
    return Traffic(figures, storing, collector, payouts, retention, inbounds)
