"""Traffic: reads the core's counters into the ledger, hands out what is owed, makes the snapshots of statistics.

What is handed out is on loan until the worker tells whether it arrived (:mod:`pgnode.supervisor.traffic.loans`). A loan is stored
before it is handed out, and its end before that is acknowledged, with everything that was counted until then.

What a living core counted is in the core as well: a supervisor that was killed finds it there again. So readings are stored only
once in STORE_SECONDS, and before a core is ended, when it has died, and at the end. Where core and supervisor are killed at the
same moment, or the power fails, what users moved in the last STORE_SECONDS, one reading and the second that the disk may be
behind is lost: half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

import structlog

from pgnode.bus.commands import Command, Reply, parse_settlement
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import BLOB_BYTES
from pgnode.bus.snapshots import ONLINE, STATS_INBOUNDS, STATS_OUTBOUNDS, STATS_USERS, Polled
from pgnode.errors import CoreUnavailableError, InvalidRequestError
from pgnode.store.changes import Journal
from pgnode.store.rows import LoanPart
from pgnode.store.state import StoredState
from pgnode.supervisor.host.heap import HeapTrimmer
from pgnode.supervisor.traffic.attribution import TrafficAttribution
from pgnode.supervisor.traffic.counter_reader import CounterReader, Counters
from pgnode.supervisor.traffic.ledger import Ledger
from pgnode.supervisor.traffic.loans import Loan, Loans
from pgnode.supervisor.traffic.poll_policy import PollPolicy, Reading, Watermarks
from pgnode.supervisor.traffic.stats_index import KINDS, STAT_TYPES, EncodedStats, counters_in, stats_answer
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError

log = structlog.get_logger(__name__)

SNAPSHOT_OF = {"user": STATS_USERS, "inbound": STATS_INBOUNDS, "outbound": STATS_OUTBOUNDS}

#: The whole of the counters of 100,000 users takes the core 0.3 s.
POLL_SECONDS = 5.0

#: Tags whose counters are asked by name before each reading; with more of them the reading itself is cheaper.
MARKS_MAX = 64

#: Counters booked, or encoded, before the event loop gets its turn: some 10 ms.
SLICE = 5_000

#: Counters in one part of a loan. A part is handed out, or settled and stored, in one piece: some 20 ms.
PART_COUNTERS = 5_000

#: Seconds that a reading with ``reset`` waits for what is on loan to somebody else.
WAIT_SECONDS = 6.0

#: Settled loans kept in the store: a command that took one may be delivered to the next supervisor once more.
SETTLED_STORED = 256

#: Seconds between two commits of what a living core counted.
STORE_SECONDS = 30.0

#: Seconds between two looks at the workers that carry loans: while somebody waits, and else.
LOOK_SECONDS = (0.4, 2.0)


class TrafficCollector:
    """Belongs to the supervisor's loop. Any number of askers share one reading of the core."""

    def __init__(
        self, journal: Journal, alive: Callable[[Sequence[str]], Awaitable[set[str]]], *, interval_seconds: float
    ) -> None:
        """Begin with empty books.

        Args:
            journal: Where changes for the store go.
            alive: Which of some workers are there; raises BUS_ERRORS.
            interval_seconds: Between two readings of the core, for whoever reads the statistics.
        """
        self._journal = journal
        self._alive = alive
        self._interval_seconds = interval_seconds
        self.ledger = Ledger()
        self._books = {kind: EncodedStats(kind, self.ledger) for kind in KINDS}
        self._loans = Loans()
        #: Ids of loans of which the store knows that they ended, oldest first.
        self._settled_stored: deque[str] = deque()
        self._pace = PollPolicy()
        self._explained = TrafficAttribution()
        self._readings = CounterReader(POLL_SECONDS)
        self._reading: asyncio.Task[str] | None = None
        self._reading_of: CoreApi | None = None
        self._memory = HeapTrimmer()
        #: Set when the core is to be read now.
        self.due = asyncio.Event()
        self._run_of_readings = ""
        #: Set and replaced whenever a loan ends.
        self._loan_ended = asyncio.Event()
        self._waiting = 0
        #: Set when snapshots are older than what is known.
        self.news = asyncio.Event()
        #: Stores what the journal holds of the traffic.
        self.commit: Callable[[], Awaitable[object]] = _nothing
        #: Monotonic seconds.
        self._stored_at = float("-inf")
        #: Tags of the running config's inbounds and outbounds: (kind, tag), "" where one has none.
        self.tags: Callable[[], Sequence[tuple[str, str]]] = lambda: ()
        #: Whether a user of this e-mail is desired.
        self.wanted: Callable[[str], bool] = lambda _email: True
        #: Answers that arrived.
        self._delivered = 0
        #: What the last look for removed users knew.
        self._forgotten_at: tuple[int, int, int] | None = None
        self._polled_at: float | None = None
        self._poll_error = ""
        self._took_seconds = 0.0

    def __repr__(self) -> str:
        return f"TrafficCollector({self.ledger!r}, {self._loans!r}, {self._pace!r})"

    async def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor stored; nothing else may be asked of this object meanwhile."""
        rows, run = iter(stored.counters.items()), stored.run
        while chunk := dict(islice(rows, SLICE)):
            self.ledger.restore(run, chunk, {})
            self._touch(chunk)
            await asyncio.sleep(0)
        for name, part in stored.loans.items():
            self.ledger.restore(run, {}, {name: counters_in(part.kind, part.body)})
            await asyncio.sleep(0)
        self._settled_stored.extend(stored.settled)
        self._loans.restore(stored.loans, stored.settled, asyncio.get_running_loop().time())

    # --- reading the core ---------------------------------------------------------------------------------------

    async def poll(self, api: CoreApi | None, run: str, *, scheduled: bool = False) -> str:
        """Read what moved in core run ``run``; returns why that was not possible, "" when it was."""
        if api is None:
            return "no core runs"
        while self._reading is not None and not self._reading.done() and self._reading_of is not api:
            await asyncio.wait({self._reading})  # of a core that has ended
        if self._reading is None or self._reading.done():
            self._begin(api, run, scheduled=scheduled, whole=False)
        assert self._reading is not None
        return await asyncio.shield(self._reading)

    def _begin(self, api: CoreApi, run: str, *, scheduled: bool, whole: bool) -> None:
        self._reading_of = api
        self._reading = asyncio.create_task(self._read(api, run, scheduled=scheduled, whole=whole))

    def core_ready(self) -> None:
        """A core serves from now on: it is read at once, and what could not be read of the one before is over."""
        self._poll_error = ""
        self.news.set()
        self.due.set()

    async def last_poll(self, api: CoreApi | None, run: str) -> None:
        """Read every counter of a core that is about to end, and store that."""
        if api is None:
            return
        if self._reading is not None:
            await asyncio.wait({self._reading})
        self._begin(api, run, scheduled=True, whole=True)
        assert self._reading is not None
        error = await asyncio.shield(self._reading)
        if error:
            log.warning("the core's counters could not be read before its end", error=error)
        await self.store_now()

    async def _read(self, api: CoreApi, run: str, *, scheduled: bool, whole: bool) -> str:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            if run != self._run_of_readings:
                self._readings.begin()
                self._explained.begin()
                self._run_of_readings = run
            marked = await self._read_marks(api, run)
            marks: Watermarks = tuple(value for _, value in marked) or None
            counters = self._readings.counters
            reading = self._pace.choose(begun, run, marks, counters, scheduled=scheduled, lacking=self._lacking)
            if whole:
                reading = Reading.WHOLE
            # Whoever goes offline after this is read by the whole reading that follows it.
            if reading is not Reading.NOTHING or (scheduled and self._readings.somebody_online):
                online, left = await self._readings.online(api)
                self._explained.users_moved(self.ledger.ahead(run, online))
                await self._book(run, online)
                if left:
                    self._explained.users_left_out()
                if reading is Reading.ONLINE:
                    # Once more: what was moved before users were read is to be in it.
                    await self._read_marks(api, run)
                    self._explained.compare()
                    if self._pace.whole_due(begun, lacking=self._lacking):
                        reading = Reading.WHOLE
            if reading is Reading.WHOLE:
                await self._book(run, await self._readings.whole(api))
                self._explained.begin()
        except CoreApiError as error:
            self._poll_error = str(error)
            self.news.set()
            return self._poll_error
        now = loop.time()
        self._pace.done(now, run, marks, reading, now - begun, lacking=self._lacking)
        self._polled_at, self._poll_error, self._took_seconds = begun, "", loop.time() - begun
        self.news.set()
        return ""

    async def _read_marks(self, api: CoreApi, run: str) -> Counters:
        """Read and book what inbounds and outbounds moved, by name; nothing where there are too many."""
        tags = [(kind, tag) for kind, tag in self.tags() if tag]
        if len(tags) > MARKS_MAX:
            return []
        names = [
            f"{kind}>>>{tag}>>>traffic>>>{direction}" for kind, tag in tags for direction in ("uplink", "downlink")
        ]
        marked = await self._readings.marks(api, names)
        self._explained.outbounds_moved(
            self.ledger.ahead(run, (mark for mark in marked if mark[0].startswith("outbound")))
        )
        await self._book(run, marked)
        return marked

    @property
    def _lacking(self) -> bool:
        """More moved than is accounted for; or that is not known, since not every outbound is counted by name."""
        tags = self.tags()
        return self._explained.lacking or len(tags) > MARKS_MAX or ("outbound", "") in tags

    async def _book(self, run: str, counters: Counters) -> None:
        for at in range(0, len(counters), SLICE):
            self._touch(self.ledger.read(run, counters[at : at + SLICE]))
            if len(counters) > SLICE:
                await asyncio.sleep(0)

    def _touch(self, counters: Iterable[str]) -> None:
        by_kind: dict[str, list[str]] = {}
        for counter in counters:
            by_kind.setdefault(counter.partition(">>>")[0], []).append(counter)
        for kind, of_kind in by_kind.items():
            if kind in self._books:
                self._books[kind].touch(of_kind)

    # --- handing out --------------------------------------------------------------------------------------------

    async def take(self, command: Command, api: CoreApi | None, run: str) -> Reply:
        """``StatResponse`` for a ``StatRequest`` with ``reset``: what is owed, on loan from now on.

        A command that comes again gets the same. Raises CoreUnavailable- and InvalidRequestError.
        """
        held = self._loans.get(command.id)
        if held is not None:
            return _reply(held)
        if self._loans.was_settled(command.id):
            return Reply()
        request = pb.StatRequest.FromString(command.body)
        if request.type not in STAT_TYPES:
            raise InvalidRequestError(f"unknown stat type {request.type}")
        kind, named = STAT_TYPES[request.type]
        error = await self.poll(api, run)
        if error:
            raise CoreUnavailableError(f"failed to get stats: {error}")
        book = self._books[kind]
        await self._wait_for_loans(kind, book.counters_of(request.name) if named else None)
        if self._loans.was_settled(command.id):  # its caller has gone meanwhile
            return Reply()
        loan = Loan(command.id, kind, command.worker, asyncio.get_running_loop().time())
        self._loans.add(loan)
        while True:
            counters = list(book.counters_of(request.name)) if named else book.owing(PART_COUNTERS)
            name = f"{loan.id}:{len(loan.parts)}"
            lent = self.ledger.lend(name, counters)
            if lent:
                loan.parts[name] = stats_answer(lent)
                book.lent([counter for counter, _ in lent])
                self._journal.loans[name] = LoanPart(loan.id, kind, loan.worker, loan.parts[name])
            if named or len(counters) < PART_COUNTERS:
                break
            await asyncio.sleep(0)
            if self._loans.get(loan.id) is not loan:
                return Reply()
        if not loan.parts:
            self._loans.settled(loan.id)
            return Reply()
        self._note_counters()
        self.news.set()
        return _reply(loan)

    async def _wait_for_loans(self, kind: str, counters: Sequence[str] | None) -> None:
        """Until nothing of what is asked for is on loan, for a while."""

        def free() -> bool:
            if counters is None:
                return not self._loans.of_kind(kind)
            return not any((entry := self.ledger.get(counter)) is not None and entry.lent for counter in counters)

        if free():
            return
        self._waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS):
                    while not free():
                        await self._loan_ended.wait()
        finally:
            self._waiting -= 1

    async def settle(self, command: Command) -> Reply:
        """A worker tells what became of an answer; telling it again changes nothing."""
        loan, delivered = parse_settlement(command.body)
        await self._end_loan(loan, delivered=delivered)
        return Reply()

    async def _end_loan(self, loan_id: str, *, delivered: bool) -> None:
        loan = self._settled(loan_id, delivered=delivered)
        if loan is None:
            return
        self._delivered += delivered
        if len(loan.parts) > 1:
            self._memory.soon()
        for number, name in enumerate(loan.parts):
            if number:
                await asyncio.sleep(0)
            lent = self.ledger.settle(name, delivered=delivered)
            self._journal.loans[name] = None
            self._note_counters()
            if not delivered:
                self._touch(counter for counter, _ in lent)
        ended, self._loan_ended = self._loan_ended, asyncio.Event()
        ended.set()
        self.news.set()

    def _settled(self, loan_id: str, *, delivered: bool) -> Loan | None:
        self._journal.settled[loan_id] = delivered
        self._settled_stored.append(loan_id)
        if len(self._settled_stored) > SETTLED_STORED:
            self._journal.settled[self._settled_stored.popleft()] = None
        return self._loans.settled(loan_id)

    async def watch_loans(self) -> None:
        """Give back what workers that died were carrying; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS[0] if self._waiting else LOOK_SECONDS[1])
            if not self._loans:
                continue
            try:
                alive = await self._alive(self._loans.workers())
            except BUS_ERRORS:
                continue
            for loan in self._loans.looked(loop.time(), alive, wanted=self._waiting > 0):
                log.warning("an answer with statistics got lost, it is owed again", worker=loan.worker, loan=loan.id)
                await self._end_loan(loan.id, delivered=False)
                await self.commit()

    # --- users who are not there any more -----------------------------------------------------------------------

    async def forget_removed(self, generation: int) -> None:
        """Leave out users that were removed and are owed nothing; the books keep what the running core still counts.

        ``generation`` is that of the desired users; without a change there is nothing to look for.
        """
        state = (generation, self.ledger.run, self._delivered)
        if state == self._forgotten_at:
            return
        self._forgotten_at = state
        book = self._books["user"]
        for number, name in enumerate(book.names()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if self.wanted(name):
                continue
            counters = book.counters_of(name)
            if any((entry := self.ledger.get(counter)) is not None and entry.owed for counter in counters):
                continue
            book.drop(name)
        unlisted = [name for name in self.ledger.names() if name.startswith("user>>>")]
        for at in range(0, len(unlisted), SLICE):
            self.ledger.forget(unlisted[at : at + SLICE], lambda counter: self.wanted(_email(counter)))
            await asyncio.sleep(0)
        self.news.set()

    # --- the store ----------------------------------------------------------------------------------------------

    def _note_counters(self) -> None:
        """What was counted, for the next commit."""
        if rows := self.ledger.take_unstored():
            self._journal.counters.update(rows)
            self._journal.run = self.ledger.last_run

    async def store_now(self) -> None:
        """Store everything that was counted."""
        self._stored_at = asyncio.get_running_loop().time()
        self._note_counters()
        await self.commit()

    async def store_if_due(self) -> None:
        """Store what was counted, unless it was stored a moment ago and the core still has it."""
        if asyncio.get_running_loop().time() - self._stored_at >= STORE_SECONDS:
            await self.store_now()

    # --- snapshots ----------------------------------------------------------------------------------------------

    def polled(self, store_ms: float = 0.0) -> Polled:
        """``store_ms`` is the store's clock, now."""
        now = asyncio.get_running_loop().time()
        return Polled(
            age_ms=None if self._polled_at is None else int((now - self._polled_at) * 1000),
            interval_ms=int(self._interval_seconds * 1000),
            error=self._poll_error,
            counters=len(self.ledger),
            took_ms=int(self._took_seconds * 1000),
            sent_at_ms=int(store_ms),
        )

    async def blocks(self) -> dict[str, bytes]:
        """Snapshot name -> body, of the kinds that changed since the last call, and who is online."""
        made = {ONLINE: await self._readings.online_block()}
        for kind, book in self._books.items():
            if not book.changed:
                continue
            while not book.encode(SLICE // 2):  # noqa: ASYNC110 - the loop gets its turn between two slices of work
                await asyncio.sleep(0)
            made[SNAPSHOT_OF[kind]] = await asyncio.to_thread(book.block())
        return made


async def _nothing() -> None:
    return


def _reply(loan: Loan) -> Reply:
    bodies = list(loan.parts.values())
    if len(bodies) == 1 and len(bodies[0]) <= BLOB_BYTES:
        return Reply(body=bodies[0], lent=0)
    return Reply(lent=len(bodies), parts=bodies)


def _email(counter: str) -> str:
    """The e-mail in the name of a user's counter."""
    return counter.partition(">>>")[2].rsplit(">>>", 2)[0]
