"""Ends the connections of users who are gone, in the background and a little at a time.

Each change is looked after three times: at once, by the core's lines; some moments later, by addresses, for what no line tells;
and once more for connections whose line came late. Nothing that fails here touches anything else: it is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from pgnode.os_support.fault_points import async_fault_point
from pgnode.os_support.tcp_ends import Connection, Door, Seen
from pgnode.supervisor.host.log_ring import Block, LogRing
from pgnode.supervisor.sessions import by_address
from pgnode.supervisor.sessions.access_lines import Peer
from pgnode.supervisor.sessions.anybody import Anybody, Look
from pgnode.supervisor.sessions.counts import BY_ADDRESS, BY_LINE, SessionCounts
from pgnode.supervisor.sessions.due import Batch, Due
from pgnode.supervisor.sessions.log_search import ends_told, find, told_blocks
from pgnode.supervisor.sessions.online import SLICE, online_from, read_who_is_seen
from pgnode.supervisor.sessions.plan import UNREACHABLE, Hit, doors_of
from pgnode.supervisor.users.decoding import Inbounds
from pgnode.supervisor.users.departures import Departures
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.process.reach import UnreachableError, look_into
from pgnode.xray.process.reach_messages import Question
from pgnode.xray.process.running import RunningCore

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds for which changes gather that are looked after together: so many, or so many times what the last looks took, up to the
#: last value.
GATHER_SECONDS: Final = 0.05
GATHER_RATIO: Final = 4
GATHER_MAX_SECONDS: Final = 0.5

#: Seconds for which they gather at least where others came within the last second: a look at many costs little more than at one.
STREAM_GATHER_SECONDS: Final = 0.25
STREAM_SECONDS: Final = 1.0

#: Seconds after the first look at which the others come.
LATER_SECONDS: Final = (0.4, 2.0)

#: Seconds until what failed is tried again, and how often that is done.
AGAIN_SECONDS: Final = 1.0
AGAIN_MAX: Final = 10

#: Of more users at once than that only those are read who are seen. Reading one takes some 10 µs; finding out who is seen goes
#: through the log at each look, 50 ms for 10,000 lines.
READ_MAX: Final = 5000


class CoreView(Protocol):
    """The core as this sees it."""

    @property
    def running(self) -> RunningCore | None:
        """The process."""

    @property
    def api(self) -> CoreApi | None:
        """Its API."""

    @property
    def run_id(self) -> str:
        """Tells this process from every other."""

    @property
    def ends_told_since(self) -> int | None:
        """From which line on the log says where connections come from; None: it does not."""


@dataclass(slots=True)
class _Task:
    """A batch on its way."""

    batch: Batch
    run: str
    #: Seconds of the loop's clock.
    at: float
    #: How often it was looked after.
    looks: int = 0
    failures: int = 0
    #: Key and tag -> ends that were there right after the change.
    early: dict[tuple[str, str], set[Peer]] = field(default_factory=dict)
    #: What lines said so far: a connection that comes from the same end later is another one.
    hits: set[Hit] = field(default_factory=set)
    left: set[tuple[str, str]] = field(default_factory=set)


class Cutter:
    """Belongs to the supervisor's loop.

    Args:
        departures: Tells whose accounts went.
        core: The core.
        ring: The last lines of the log.
        inbounds: Returns the inbounds of the core whose users the node owns, by tag.
        grace_seconds: Seconds that connections go on after a change.
        call_seconds: Seconds that the core has for one answer.
        moved: Is called when something was ended: its traffic is to be read.
        look: Looks into the core, and ends connections.
        later_seconds: Seconds after each look at which the next one comes.
        again_seconds: Seconds until what failed is tried again.
        read_max: Of more users than so many those alone are read who are seen.
    """

    def __init__(
        self,
        departures: Departures,
        core: CoreView,
        ring: LogRing,
        inbounds: Callable[[], Inbounds],
        *,
        grace_seconds: float = 0.0,
        call_seconds: float = 5.0,
        moved: Callable[[], None] = lambda: None,
        look: Look = look_into,
        later_seconds: Sequence[float] = LATER_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
        read_max: int = READ_MAX,
    ) -> None:
        self._look_into = look
        self._departures = departures
        self._core = core
        self._ring = ring
        self._inbounds = inbounds
        self._grace_seconds = grace_seconds
        self._call_seconds = call_seconds
        self._moved = moved
        self._later_seconds = later_seconds
        self._again_seconds = again_seconds
        self._read_max = read_max
        self._arrived = asyncio.Event()
        self._tasks: list[_Task] = []
        #: Seconds for which changes gather now, at least.
        self._gather_seconds = GATHER_SECONDS
        #: Seconds of the loop's clock: when changes were taken in last.
        self._taken_at = -math.inf
        self._anybody = Anybody(look, call_seconds)
        #: The run of the core that cannot be looked into, which was said.
        self._unreachable = ""
        self.counts = SessionCounts()
        departures.tell(self._arrived.set)

    @classmethod
    def of(
        cls,
        settings: Settings,
        departures: Departures,
        core: CoreView,
        ring: LogRing,
        base: Callable[[], BaseConfig | None],
        *,
        moved: Callable[[], None],
    ) -> Cutter:
        """Make that of a node with these settings; ``base`` returns the config of the core that is there."""
        return cls(
            departures,
            core,
            ring,
            lambda: found.managed_inbounds if (found := base()) is not None else {},
            grace_seconds=settings.cut_sessions_grace_seconds,
            call_seconds=settings.core_call_timeout_seconds,
            moved=moved,
        )

    def __repr__(self) -> str:
        return f"Cutter({len(self._tasks)} batches, {self.counts!r})"

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await self._wait()
            await self._take()
            now = asyncio.get_running_loop().time()
            for task in [task for task in self._tasks if task.at <= now]:
                await self._look_after(task)
            # Of a stream of changes each look has more; all of them together take a part of the time only.
            took = asyncio.get_running_loop().time() - now
            self._gather_seconds = min(max(GATHER_SECONDS, GATHER_RATIO * took), GATHER_MAX_SECONDS)

    async def _wait(self) -> None:
        """Wait for the next thing to do; changes that come one after the other are waited for a moment."""
        loop = asyncio.get_running_loop()
        due = min((task.at for task in self._tasks), default=None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._arrived.wait()
        if self._arrived.is_set():
            seconds = self._gather_seconds
            if loop.time() - self._taken_at < STREAM_SECONDS:
                seconds = max(seconds, STREAM_GATHER_SECONDS)
            await asyncio.sleep(seconds if due is None else max(0.0, min(seconds, due - loop.time())))

    async def _take(self) -> None:
        """Take in what happened."""
        self._arrived.clear()
        # By the time at which it is known whether anybody is connected another core may have taken this one's place.
        taken, run = self._departures.take(), self._core.run_id
        if not taken:
            return
        loop = asyncio.get_running_loop()
        self._taken_at = loop.time()
        inbounds = self._inbounds()
        nobody = not await self._anybody.is_connected(self._core.running, self._core.api, inbounds)
        batch = Batch()
        # Of batches that are on their way: who has an account again?
        keys = {departure.key for departure in taken}
        back = [(task.batch, again) for task in self._tasks if (again := keys & task.batch.departures.keys())]
        are_many = len(taken) + sum(len(task.batch.departures) for task in self._tasks) > self._read_max
        for number, departure in enumerate(taken, 1):
            for before, again in back:
                if departure.key in again and departure.after is not None:
                    before.came_back(departure, inbounds)
            if nobody:
                self._departures.done(departure.key)
            elif are_many:
                batch.keep(departure)
            else:
                batch.add(departure, inbounds)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        if not nobody:
            self._tasks.append(_Task(batch, run, loop.time() + self._grace_seconds))

    async def disconnect(self, key: str, email: str) -> int:
        """End the connections that a user has now, through every inbound; the user may come back.

        Args:
            key: The user.
            email: As the core has it.

        Returns:
            How many were ended that lines of the log are about; others are ended some moments later.
        """
        place, at = self._departures.here(), time.time()
        batch = Batch({(key, tag): Due(key, tag, email, place, at) for tag in self._inbounds()})
        task = _Task(batch, self._core.run_id, asyncio.get_running_loop().time())
        before = self.counts.cut.total()
        if await self._look_after(task):
            self._tasks.append(task)
            self._arrived.set()
        return self.counts.cut.total() - before

    # --- one look ---------------------------------------------------------------------------------------------------

    async def _look_after(self, task: _Task) -> bool:
        """Look after a batch; return whether it is to be looked after once more."""
        running = self._core.running
        loop = asyncio.get_running_loop()
        if running is None or task.run != self._core.run_id:
            # Its connections have gone with the core, and nobody waits for them any more.
            await self._end(task, with_core=True)
            return False
        if not task.batch:
            await self._end(task)
            return False
        try:
            await async_fault_point("sessions.look")
            await self._look(task, running)
        except UnreachableError as error:
            self._say_unreachable(str(error))
            task.left = {(due.key, UNREACHABLE) for due in task.batch.entries.values()}
            await self._end(task)
            return False
        except (OSError, CoreApiError) as error:
            task.failures += 1
            self.counts.failures += 1
            log.warning("connections of users who are gone were not ended, trying again", error=str(error))
            task.at = loop.time() + self._again_seconds
        except Exception:
            # A fault here ends this batch, and nothing else.
            log.exception("connections of users who are gone are left")
            self.counts.failures += 1
            task.failures = AGAIN_MAX
        else:
            if task.looks < len(self._later_seconds):
                task.at = loop.time() + self._later_seconds[task.looks]
                task.looks += 1
                return True
            task.failures = AGAIN_MAX
        if task.failures >= AGAIN_MAX:
            await self._end(task)
        return task.failures < AGAIN_MAX

    async def _end(self, task: _Task, *, with_core: bool = False) -> None:
        if task in self._tasks:
            self._tasks.remove(task)
        self.counts.leave(task.left, time.time())
        for number, (key, count) in enumerate(() if with_core else task.batch.departures.items(), 1):
            self._departures.done(key, count)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def _say_unreachable(self, why: str) -> None:
        if self._unreachable != self._core.run_id:
            self._unreachable = self._core.run_id
            log.warning("connections of users who are gone go on until they end by themselves", reason=why)

    async def _look(self, task: _Task, running: RunningCore) -> None:
        """Find connections and end them. Raises UnreachableError, OSError, CoreApiError."""
        inbounds, blocks = self._inbounds(), self.told_blocks()
        await read_who_is_seen(task.batch, self._core.api, blocks, inbounds, self._call_seconds)
        dues = list(task.batch.entries.values())
        if not dues:
            return
        for due in dues:
            # Somebody is about to come back whose new connections may be in the log before that is settled.
            if due.until is None:
                due.until = self._departures.coming(due.key)
        doors = doors_of(inbounds.values())
        by_line = await find(blocks, dues, inbounds)
        task.left |= by_line.left
        hits = by_line.hits - task.hits
        # Whoever has an account again: which connections were there right after that?
        listed = task.looks == 0 and any(due.until for due in dues)
        seen = await self._cut(running, doors, hits, BY_LINE, listed=listed)
        task.hits |= hits
        if listed and self._core.ends_told_since is not None:
            self._note_early(task, dues, doors, seen)
        if task.looks == 1:
            await self._look_at_addresses(task, running, dues, inbounds, doors)

    @staticmethod
    def _note_early(task: _Task, dues: Iterable[Due], doors: Mapping[str, Door], seen: Seen) -> None:
        tags = list(doors)
        ends: dict[str, set[Peer]] = {}
        for place, connection in seen.found:
            ends.setdefault(tags[place], set()).add((connection.peer, connection.peer_port))
        for due in dues:
            if due.until:
                task.early[due.key, due.tag] = ends.get(due.tag, set())

    async def _cut(
        self, running: RunningCore, doors: Mapping[str, Door], hits: Collection[Hit], how: str, *, listed: bool = False
    ) -> Seen:
        """End connections. Raises UnreachableError, OSError."""
        if not doors or not (hits or listed):
            return Seen()
        places = {tag: place for place, tag in enumerate(doors)}
        targets = [(*hit.peer, places[hit.tag]) for hit in hits if hit.tag in places]
        seen = await self._look_into(running, Question(list(doors.values()), targets, listed))
        if seen.cut:
            self.counts.cut[how] += len(seen.cut)
            users = {hit.key for hit in hits}
            log.info("ended connections of users who are gone", connections=len(seen.cut), users=len(users))
            self._moved()
        return seen

    # --- what no line tells -----------------------------------------------------------------------------------------

    async def _look_at_addresses(
        self,
        task: _Task,
        running: RunningCore,
        dues: Sequence[Due],
        inbounds: Inbounds,
        doors: Mapping[str, Door],
    ) -> None:
        """End what no line tells. Raises UnreachableError, OSError, CoreApiError."""
        api = self._core.api
        if api is None:
            return
        online = await online_from(api, {due.email for due in dues}, self._call_seconds)
        if not online:
            return
        task.left |= by_address.left_online(dues, online, {tag: spec.kinds for tag, spec in inbounds.items()})
        seen = await self._cut(running, doors, (), BY_ADDRESS, listed=True)
        tags = list(doors)
        addresses = set(by_address.others_by_address(online))
        open_ones = [(tags[place], one) for place, one in seen.found if one.peer in addresses]
        told = await ends_told(self.told_blocks(), {(one.peer, one.peer_port) for _, one in open_ones})
        if any((one.peer, one.peer_port) not in told for _, one in open_ones):
            everybody = await api.stats.online(self._call_seconds)
            found = by_address.judge(dues, everybody, open_ones, told, since=task.early)
            task.left |= found.left
            await self._cut(running, doors, found.hits, BY_ADDRESS)

    def told_blocks(self) -> list[Block]:
        """Return the blocks of the log that say where connections come from, the oldest first: with all that is printed now."""
        self._departures.here()
        return told_blocks(self._ring, self._core.ends_told_since)

    # --- what operators see -----------------------------------------------------------------------------------------

    async def connections(self) -> list[tuple[str, Connection]]:
        """Return all connections to the inbounds, by tag. Raises UnreachableError, OSError."""
        running, doors = self._core.running, doors_of(self._inbounds().values())
        if running is None or not doors:
            return []
        seen = await self._look_into(running, Question(list(doors.values()), (), listed=True))
        tags = list(doors)
        return [(tags[place], connection) for place, connection in seen.found]
