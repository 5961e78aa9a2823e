"""Reads the core's counters into the ledger; the poll policy decides how many of them each time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import structlog

from pgnode.bus.snapshots import NO_REVISION, ONLINE, Polled
from pgnode.metrics.instruments import Histogram
from pgnode.supervisor.traffic.attribution import TrafficAttribution
from pgnode.supervisor.traffic.counter_reader import CounterReader, Counters
from pgnode.supervisor.traffic.figures import TrafficFigures
from pgnode.supervisor.traffic.inbound_stats import InboundStats
from pgnode.supervisor.traffic.lately_online import LatelyOnline
from pgnode.supervisor.traffic.poll_policy import PollPolicy, Reading, Watermarks
from pgnode.supervisor.traffic.storing import TrafficStoring
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError

log = structlog.get_logger(__name__)

#: Seconds that the core has for one answer. All counters of 100,000 users take it 0.3 s.
POLL_SECONDS = 5.0

#: Tags whose counters are asked by name before each reading; with more of them the reading itself is cheaper.
WATERMARKS_MAX = 64


class TrafficCollector:
    """Belongs to the supervisor's loop. Callers who ask at the same time share one reading of the core.

    Args:
        figures: Counts what was read.
        storing: Stores them.
        tags: Returns (kind, tag) of the running config's inbounds and outbounds, "" where one has none.
        interval_seconds: Seconds between two readings, for whoever reads the statistics.
        inbounds: Is told whether the core counts inbounds.
        policy: Decides how much to read.
        lately: Keeps who counts as online for a while after its last connection.
    """

    def __init__(
        self,
        figures: TrafficFigures,
        storing: TrafficStoring,
        tags: Callable[[], Sequence[tuple[str, str]]],
        *,
        interval_seconds: float,
        inbounds: InboundStats,
        policy: PollPolicy | None = None,
        lately: LatelyOnline | None = None,
    ) -> None:
        self._inbounds = inbounds
        self._figures = figures
        self._storing = storing
        self._tags = tags
        self._interval_seconds = interval_seconds
        self._policy = policy if policy is not None else PollPolicy()
        self._attribution = TrafficAttribution()
        self._reader = CounterReader(POLL_SECONDS, lately)
        self._reading: asyncio.Task[str] | None = None
        self._reading_of: CoreApi | None = None
        #: How many were begun.
        self._begun = 0
        self._run_of_readings = ""
        #: A core whose counters count as reported as soon as they can be read, and who is told then.
        self._written_off: tuple[str, Callable[[], None]] | None = None
        #: Set when the core is to be read now.
        self.due = asyncio.Event()
        #: When the last reading began, in seconds of the loop's clock.
        self._polled_at: float | None = None
        #: The same, of the reading that the blocks show which were made last.
        self._shown_at: float | None = None
        self._poll_error = ""
        self._took_seconds = 0.0
        #: How long readings took, by what was read, and how many failed.
        self.reading_seconds = Histogram()
        self.reading_errors = 0

    def __repr__(self) -> str:
        return f"TrafficCollector({self._policy!r}, {self._attribution!r})"

    async def poll(self, api: CoreApi | None, run: str, *, scheduled: bool = False, exact: bool = False) -> str:
        """Read what moved.

        Args:
            api: The core; None where none runs.
            run: Tells its process from every other.
            scheduled: The reading comes in the node's own interval; for any other reading a caller waits.
            exact: Everything that was counted until now is to be read: a reading that has begun already does not do.

        Returns:
            Why that was not possible, "" when it was.
        """
        if api is None:
            return "no core runs"
        before = self._begun
        while (reading := self._reading) is not None and not reading.done():
            if self._reading_of is api and (not exact or self._begun > before):
                return await asyncio.shield(reading)
            await asyncio.wait({reading})
        if exact and self._begun > before and self._reading_of is api and reading is not None:
            return reading.result()  # somebody else's, from its beginning to its end
        return await asyncio.shield(self._begin(api, run, scheduled=scheduled, exact=exact))

    async def look(self, api: CoreApi | None, run: str) -> str:
        """Read what moved, unless that was done a moment ago. For a worker whose callers find the figures too old.

        Args:
            api: The core; None where none runs.
            run: Tells its process from every other.

        Returns:
            Why that was not possible, "" when it was.
        """
        now = asyncio.get_running_loop().time()
        if self._polled_at is not None and now - self._polled_at < self.polled().fresh_seconds / 2:
            return ""
        return await self.poll(api, run)

    def core_ready(self) -> None:
        """Note that a new core serves: it is read at once, and the previous core's error is forgotten."""
        self._poll_error = ""
        self._figures.news.set()
        self.due.set()

    async def store_now(self) -> None:
        """Store everything that was counted."""
        await self._storing.store_now()

    async def write_off(self, api: CoreApi | None, run: str, done: Callable[[], None] = lambda: None) -> None:
        """Take every counter of a core that was found without its books for reported, for most of it was.

        Where the core cannot be read now, that is done by the first reading which succeeds, before anything of it is owed.

        Args:
            api: The core; None where none runs.
            run: Tells its process from every other.
            done: Called when it is done, or the core has gone.
        """
        self._written_off = (run, done) if api is not None else None
        await self.last_poll(api, run)
        if api is None:
            done()

    async def last_poll(self, api: CoreApi | None, run: str) -> None:
        """Read every counter of a core that is about to end, and store that.

        Args:
            api: The core; None where none runs.
            run: Tells its process from every other.
        """
        if api is None:
            return
        if self._reading is not None:
            await asyncio.wait({self._reading})
        error = await asyncio.shield(self._begin(api, run, scheduled=True, exact=True, whole=True))
        if error:
            log.warning("counters not read before the core's end", error=error)
        await self._storing.store_now()

    def polled(
        self, store_ms: float = 0.0, since: Mapping[str, int] = MappingProxyType({}), *, of_blocks: bool = False
    ) -> Polled:
        """Tell how old the figures are, and what the last reading was like.

        Args:
            store_ms: Milliseconds on the bus's clock, now.
            since: The revision that a snapshot has to have at least, by its name.
            of_blocks: Whether the age is that of the blocks which were made last; a reading may have ended since they were begun.

        Returns:
            What the snapshot ``polled`` says.
        """
        now = asyncio.get_running_loop().time()
        read_at = self._shown_at if of_blocks else self._polled_at
        return Polled(
            age_ms=None if read_at is None else int((now - read_at) * 1000),
            interval_ms=int(self._interval_seconds * 1000),
            error=self._poll_error,
            counters=len(self._figures.ledger),
            took_ms=int(self._took_seconds * 1000),
            sent_at_ms=int(store_ms),
            since={**since, **dict.fromkeys(self._figures.void, NO_REVISION)},
            inbounds_counted=self._inbounds.counted,
        )

    @property
    def online(self) -> tuple[int, int]:
        """How many users were online at the last reading, and from how many addresses."""
        return self._reader.online

    def addresses_of(self, email: str) -> int:
        """Return from how many addresses a user was online at the last reading."""
        return self._reader.addresses_of(email)

    async def online_addresses(self) -> dict[str, int]:
        """Return from how many addresses each user was online at the last reading, by e-mail."""
        return await asyncio.to_thread(self._reader.online_addresses)

    async def blocks(self) -> dict[str, bytes]:
        """Return snapshot name -> body: who is online, and the statistics that changed since the last call."""
        read_at = self._polled_at
        made = {ONLINE: await self._reader.online_block(), **await self._figures.blocks()}
        if not self._figures.is_holding():
            # Else there are figures of an earlier reading among those that are shown.
            self._shown_at = read_at
        return made

    def _begin(self, api: CoreApi, run: str, *, scheduled: bool, exact: bool, whole: bool = False) -> asyncio.Task[str]:
        self._reading_of = api
        self._begun += 1
        self._reading = asyncio.create_task(self._read(api, run, scheduled=scheduled, exact=exact, whole=whole))
        return self._reading

    async def _read(self, api: CoreApi, run: str, *, scheduled: bool, exact: bool, whole: bool) -> str:
        """Make a reading and count it; return why that was not possible, "" when it was."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if run != self._run_of_readings:
            self._reader.begin()
            self._attribution.begin()
            self._run_of_readings = run
            self._inbounds.core_found(counted=None)
        try:
            await self._write_off_first(api, run)
            marked = await self._read_watermarks(api, run)
            marks = self._marks(marked)
            reading = self._policy.choose(
                begun,
                run,
                marks,
                self._reader.counters,
                scheduled=scheduled,
                lacking=self._lacking,
                exact=exact,
                all_marked=self._inbounds.counted is not False,
            )
            if whole:
                reading = Reading.WHOLE
            # Users who go offline after this are read by the next whole reading.
            if reading is not Reading.SKIP or (not exact and self._reader.somebody_online):
                await self._read_online(api, run)
                if reading is Reading.ONLINE:
                    # Once more, so that it has all that was moved before users were read.
                    await self._read_watermarks(api, run)
                    self._attribution.compare()
                    if self._policy.whole_due(begun, lacking=self._lacking) or (exact and self._lacking):
                        reading = Reading.WHOLE
            if reading is Reading.WHOLE:
                counters = await self._reader.all(api)
                self._note_inbounds(counters)
                await self._figures.count(run, counters)
                self._attribution.begin()
        except CoreApiError as error:
            self._poll_error = str(error)
            self.reading_errors += 1
            self._figures.news.set()
            return self._poll_error
        now = loop.time()
        self._policy.done(now, run, marks, reading, now - begun, lacking=self._lacking)
        self._figures.watch.reading_done(begun - self._polled_at if self._polled_at is not None else None)
        self._polled_at, self._poll_error, self._took_seconds = begun, "", loop.time() - begun
        self.reading_seconds.observe(self._took_seconds, reading.name.lower())
        self._figures.news.set()
        return ""

    async def _write_off_first(self, api: CoreApi, run: str) -> None:
        """Read a core whose counters count as reported, before anything else of it is read. Raises CoreApiError."""
        if self._written_off is None:
            return
        written_off, done = self._written_off
        if run == written_off:
            await self._figures.count(run, await self._reader.all(api))
            self._figures.touch(self._figures.ledger.write_off())
        self._written_off = None
        done()

    async def _read_online(self, api: CoreApi, run: str) -> None:
        """Read and count what users moved who are online, or were at the last reading."""
        online, left = await self._reader.online_users(api)
        self._attribution.users_moved(self._figures.ledger.ahead(run, online))
        await self._figures.count(run, online)
        if left:
            self._attribution.users_left_out()

    async def _read_watermarks(self, api: CoreApi, run: str) -> Counters:
        """Read and count what outbounds moved, and inbounds that are counted, by name; nothing where there are too many."""
        kinds = ("outbound",) if self._inbounds.counted is False else ("inbound", "outbound")
        tags = [(kind, tag) for kind, tag in self._tags() if tag and kind in kinds]
        if len(tags) > WATERMARKS_MAX:
            return []
        names = [
            f"{kind}>>>{tag}>>>traffic>>>{direction}" for kind, tag in tags for direction in ("uplink", "downlink")
        ]
        marked = await self._reader.by_name(api, names)
        self._note_inbounds(marked)
        self._attribution.outbounds_moved(
            self._figures.ledger.ahead(run, (mark for mark in marked if mark[0].startswith("outbound")))
        )
        await self._figures.count(run, marked)
        return marked

    def _marks(self, marked: Counters) -> Watermarks:
        """Return the watermarks; None where users may move something that none of them counts."""
        untagged = self._inbounds.counted is False and ("outbound", "") in self._tags()
        return None if untagged else tuple(value for _, value in marked) or None

    def _note_inbounds(self, first: Counters) -> None:
        """Find out whether the core counts inbounds, by the first counters of it that were read."""
        if self._inbounds.counted is None and any(kind == "inbound" and tag for kind, tag in self._tags()):
            counted = any(name.startswith("inbound>>>") for name, _ in first)
            self._inbounds.core_found(counted=counted)
            self._figures.encoded["inbound"].show_only_owed(not counted)

    @property
    def _lacking(self) -> bool:
        """Whether more moved than the users who were read explain, or may have: not every outbound is counted by name."""
        tags = self._tags()
        return self._attribution.lacking or len(tags) > WATERMARKS_MAX or ("outbound", "") in tags
