"""Makes the answers: what the supervisor knows now, from memory. Only the bus is asked for a sign of life."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import structlog

from pgnode import __version__
from pgnode.bus.connection import BUS_ERRORS
from pgnode.os_support.clock import Clock
from pgnode.os_support.log_levels import LEVELS, rank
from pgnode.settings import shown_url
from pgnode.settings.shown import api_addresses, shown_settings
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.drain_orders import drain_report
from pgnode.supervisor.control.progress import Progress
from pgnode.supervisor.control.report import (
    AloneReport,
    BusReport,
    CoreReport,
    NodeReport,
    PanelReport,
    ProcessReport,
    UsersReport,
    WarningReport,
)
from pgnode.supervisor.control.server import Answer
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.host.certificate import CertificateWatch
from pgnode.supervisor.host.node_log import NodeLog
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.lifecycle.states import State
from pgnode.supervisor.persistence.committer import StateCommitter
from pgnode.supervisor.sessions.connections import count_connections
from pgnode.supervisor.users.drift import user_drift

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: What was said with a question.
Values = Mapping[str, Any]

#: Seconds that the bus has to give a sign of life.
PING_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Known:
    """Whom there is to ask."""

    settings: Settings
    node: Node
    core: CoreController
    committer: StateCommitter
    certificate: CertificateWatch
    pump: LogPump
    node_log: NodeLog
    progress: Progress
    #: Gives a sign of life of the bus. Raises BUS_ERRORS.
    ping: Callable[[], Awaitable[object]]
    #: Processes by their names in the log, None for one that does not run; and how often each was started again.
    pids: Callable[[], Mapping[str, int | None]]
    restarts: Mapping[str, int]
    #: How often each task failed.
    task_failures: Mapping[str, int]
    #: When a command came last over the bus, in seconds on the monotonic clock; None before the first one.
    last_command_at: Callable[[], float | None]
    restarts_in_place: int = 0
    #: How many more workers were asked for than the settings say, by kind.
    added_workers: Callable[[], Mapping[str, int]] = dict
    #: Workers without a supervisor beside them.
    alone: Callable[[], list[AloneReport]] = list


class Answers:
    """Belongs to the supervisor's loop.

    Args:
        known: Whom there is to ask.
        clock: Tells when it is.
        ping_seconds: Seconds that the bus has to give a sign of life.
    """

    def __init__(self, known: Known, clock: Clock | None = None, *, ping_seconds: float = PING_SECONDS) -> None:
        self._known = known
        self._clock = clock if clock is not None else Clock()
        self._began_at = self._clock.now()
        self._ping_seconds = ping_seconds

    def __repr__(self) -> str:
        return f"Answers({self._known.progress!r})"

    @property
    def by_question(self) -> Mapping[str, Answer]:
        """Who answers what."""
        return {
            messages.STATUS: self.status,
            messages.USERS: self.users,
            messages.SETTINGS: self.settings,
            messages.LOGS: self.logs,
            messages.LOG_LEVEL: self.log_level,
        }

    async def status(self, _values: Values) -> dict[str, Any]:
        """Say how the node is."""
        bus = await self._bus()
        connections = await count_connections(self._known.core.running, self._known.node.core_base)
        return self.report(bus, connections).encode()

    async def users(self, _values: Values) -> dict[str, Any]:
        """Say whom the core does not have as desired."""
        known = self._known
        return {
            "state": str(known.node.state),
            "panel_away": known.node.life.panel_away,
            **user_drift(known.node.users.table).encode(),
        }

    async def settings(self, _values: Values) -> dict[str, Any]:
        """Say with which settings it runs, secrets hidden."""
        return shown_settings(self._known.settings)

    async def logs(self, values: Values) -> dict[str, Any]:
        """Say the last lines of the log: those after the line ``after`` where that one is of the lines called ``name``."""
        lines = self._known.node_log.lines
        after = values.get("after") if values.get("name") == lines.name else 0
        found = lines.after(after if isinstance(after, int) else 0)
        # Encoded elsewhere: these are thousands at most.
        encoded = await asyncio.to_thread(lambda: [line.encode() for line in found])
        return {"name": lines.name, "lines": encoded}

    async def log_level(self, values: Values) -> dict[str, Any]:
        """Say which lines of the node's own are printed; put the level ``level`` in force before, for ``seconds``."""
        level, wanted, seconds = self._known.node_log.level, values.get("level"), values.get("seconds")
        if wanted is not None:
            if wanted not in LEVELS:
                raise messages.RefusedError(f"there is no level {wanted!r:.40}: it is {', '.join(LEVELS)}")
            if seconds is not None and not (isinstance(seconds, (int, float)) and seconds > 0):
                raise messages.RefusedError(f"{seconds!r:.40} is no number of seconds above 0")
            graver = rank(wanted) > rank(level.level)
            if not graver:
                level.change(wanted, seconds)
            # While the more talkative level is in force.
            limit = {} if seconds is None else {"seconds": seconds}
            log.info("the level of the log is changed", to=wanted, usual=level.usual, **limit)
            if graver:
                level.change(wanted, seconds)
        return {"level": level.level, "usual": level.usual, "until": level.until}

    async def _bus(self) -> BusReport:
        url = self._known.settings.redis_url
        address = shown_url(url) if url is not None else "embedded"
        began = self._clock.now()
        try:
            async with asyncio.timeout(self._ping_seconds):
                await self._known.ping()
        except TimeoutError:
            return BusReport(address, None, f"it did not answer within {self._ping_seconds:g} s")
        except BUS_ERRORS as error:
            return BusReport(address, None, str(error) or type(error).__name__)
        return BusReport(address, round((self._clock.now() - began) * 1000, 2))

    def report(self, bus: BusReport, connections: Mapping[str, int] = MappingProxyType({})) -> NodeReport:
        """Put together what is in memory.

        Args:
            bus: What the bus said.
            connections: How many are open, by inbound.

        Returns:
            How the node is.
        """
        known, now, life = self._known, self._clock.now(), self._known.node.life
        last = known.last_command_at()
        return NodeReport(
            version=__version__,
            pid=os.getpid(),
            up_seconds=round(now - self._began_at, 1),
            restarts_in_place=known.restarts_in_place,
            phase=str(known.progress.phase),
            step=known.progress.step,
            state=str(life.state),
            unknown=life.unknown,
            core=self._core(now),
            users=self._users(),
            connections=dict(connections),
            drain=drain_report(known.node),
            panel=PanelReport(
                last_command_seconds_ago=None if last is None else round(now - last, 1),
                keep_alive_seconds=known.node.keep_alive_seconds,
                away=life.panel_away,
            ),
            bus=bus,
            store_error=known.committer.error,
            certificate_error=known.certificate.refused,
            addresses=api_addresses(known.settings),
            cert_file=str(known.settings.cert_file),
            processes=[
                ProcessReport(name, pid or 0, known.restarts.get(name, 0)) for name, pid in known.pids().items()
            ],
            rest_workers=known.settings.web_concurrency,
            alone=known.alone(),
            added_workers=dict(known.added_workers()),
            task_failures=dict(known.task_failures),
            log_lines_dropped=known.pump.sender.dropped,
            log_level=known.node_log.level.level,
            usual_log_level=known.node_log.level.usual,
            warnings=[
                WarningReport(found.at, found.level, found.text, found.times)
                for found in known.node_log.warnings.last()
            ],
        )

    def _core(self, now: float) -> CoreReport:
        core, life, status = self._known.core, self._known.node.life, self._known.node.status()
        running = core.running
        return CoreReport(
            name=str(core.core),
            version=core.known_version,
            backend=status.core_type,
            pid=running.pid if running is not None else 0,
            up_seconds=round(max(0.0, running.up_seconds), 1) if running is not None else None,
            run=life.core_run,
            deaths=life.deaths,
            hangs=life.hangs,
            last_end=life.last_end,
            last_end_seconds_ago=round(now - life.last_end_at, 1) if life.last_end else None,
            given_up=life.given_up,
            next_try_seconds=round(max(0.0, life.next_try_at - now), 1) if life.state is State.FAILED else None,
            api_error=life.api_error,
            waiting=status.waiting,
            starts=dict(status.starts),
        )

    def _users(self) -> UsersReport:
        users = self._known.node.users
        drift = user_drift(users.table)
        applied = len(users.table) - len(drift.to_add) if self._known.core.running is not None else 0
        return UsersReport(len(users.table), applied, len(drift.to_remove), len(users.rejected))
