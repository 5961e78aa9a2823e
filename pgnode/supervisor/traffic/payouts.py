"""Handing out what is owed: on loan, until the worker tells whether it arrived (:mod:`pgnode.supervisor.traffic.loans`).

A loan is stored before it is handed out. The counters' rows may be stored later (:mod:`pgnode.store.lent_bytes`).
Its end is stored before it is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

import structlog
from google.protobuf.message import DecodeError

from pgnode.bus.commands import Command, Reply, parse_settlement
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import BLOB_BYTES
from pgnode.errors import CoreUnavailableError, InvalidRequestError
from pgnode.os_support.beats import pause_to_beat
from pgnode.os_support.heap import HeapTrimmer
from pgnode.store.changes import Journal
from pgnode.store.lent_bytes import counters_of
from pgnode.store.rows import LoanPart
from pgnode.store.state import StoredState
from pgnode.supervisor.traffic.figures import TrafficFigures
from pgnode.supervisor.traffic.loans import Loan, Loans
from pgnode.supervisor.traffic.response_encoding import encode_stats
from pgnode.supervisor.traffic.stats_index import STAT_TYPES, EncodedStats
from pgnode.wire import service_pb2 as pb

log = structlog.get_logger(__name__)

#: Counters in one part of a loan. A part is handed out, or settled and stored, in one piece: some 20 ms.
PART_COUNTERS = 5_000

#: While all statistics of a kind are handed out, no snapshot of them is made. Seconds for which that lasts at most: until they
#: are on loan, and from then on until the loan ends.
TAKING_SECONDS = 2.0
SETTLING_SECONDS = 1.0

#: Seconds that a reading with ``reset`` waits for what is on loan to somebody else.
WAIT_SECONDS = 6.0

#: Settled loans kept in the store: a command that took one may be delivered to the next supervisor once more.
SETTLED_STORED = 256

#: Seconds between two checks of the workers that carry loans: while somebody waits, and otherwise.
POLL_SECONDS = (0.4, 2.0)


class Payouts:
    """Belongs to the supervisor's loop.

    Args:
        figures: What is owed.
        journal: Where loans and their ends are noted, for the store.
        read: Reads the core's counters now; returns why that was not possible, "" when it was.
        alive: Returns which of some workers are there; raises BUS_ERRORS.
        commit: Stores what the journal holds of the traffic.
        wait_seconds: Seconds that a reading waits for what is on loan to somebody else.
        poll_seconds: Seconds between two checks of the workers: while somebody waits, and otherwise.
        part_counters: Counters in one part of a loan.
    """

    def __init__(
        self,
        figures: TrafficFigures,
        journal: Journal,
        *,
        read: Callable[[], Awaitable[str]],
        alive: Callable[[Sequence[str]], Awaitable[set[str]]],
        commit: Callable[[], Awaitable[object]],
        wait_seconds: float = WAIT_SECONDS,
        poll_seconds: tuple[float, float] = POLL_SECONDS,
        part_counters: int = PART_COUNTERS,
    ) -> None:
        self._figures = figures
        self._journal = journal
        self._read = read
        self._alive = alive
        self._commit = commit
        self._wait_seconds = wait_seconds
        self._poll_seconds = poll_seconds
        self._part_counters = part_counters
        self._loans = Loans()
        #: Ids of loans of which the store knows that they ended, oldest first.
        self._settled_stored: deque[str] = deque()
        self._memory = HeapTrimmer()
        #: Set and replaced whenever a loan ends.
        self._loan_ended = asyncio.Event()
        self._waiting = 0
        self._delivered = 0
        #: What became of loans: how many were "delivered", "returned" or "lost".
        self.ended: Counter[str] = Counter()
        #: Unix seconds at which one was delivered last; None before the first.
        self.delivered_at: float | None = None

    def __repr__(self) -> str:
        return f"Payouts({self._loans!r})"

    @property
    def delivered(self) -> int:
        """How many answers arrived; rises with each."""
        return self._delivered

    async def restore(self, stored: StoredState) -> None:
        """Take over the loans that an earlier supervisor stored, after its counters. A damaged one is forgotten."""
        loans = dict(stored.loans)
        for name, part in stored.loans.items():
            try:
                counters = counters_of(part)
            except (DecodeError, TypeError) as error:
                log.error(
                    "a stored loan is damaged: what the store has counted of it stays owed",
                    loan=str(name),
                    error=str(error),
                )
                del loans[name]
                self._journal.loans[name] = None
                continue
            self._figures.ledger.restore(stored.run, {}, {name: counters})
            await asyncio.sleep(0)
        self._settled_stored.extend(stored.settled)
        self._loans.restore(loans, stored.settled, asyncio.get_running_loop().time())

    async def take(self, command: Command) -> Reply:
        """Answer a reading with ``reset``: what is owed is on loan from now on. A command that comes again gets the same.

        Args:
            command: Its body is a ``StatRequest``.

        Returns:
            A ``StatResponse``, in parts where it is large.

        Raises:
            CoreUnavailableError: The core's counters cannot be read.
            InvalidRequestError: There are no such statistics.
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
        if named:
            return await self._take(command, kind, request.name)
        self._figures.hold(kind, TAKING_SECONDS)
        try:
            return await self._take(command, kind)
        finally:
            if self._loans.get(command.id) is not None:
                self._figures.hold(kind, SETTLING_SECONDS)
            else:
                self._figures.release(kind)

    async def _take(self, command: Command, kind: str, name: str | None = None) -> Reply:
        """Hand out what is owed of a kind, or of one name."""
        error = await self._read()
        if error:
            raise CoreUnavailableError(f"failed to get stats: {error}")
        encoded = self._figures.encoded[kind]
        await self._wait_for_loans(kind, encoded.counters_of(name) if name is not None else None)
        if self._loans.was_settled(command.id):  # its caller has gone meanwhile
            return Reply()
        loan = Loan(command.id, kind, command.worker, asyncio.get_running_loop().time())
        self._loans.add(loan)
        if name is not None:
            self._lend(loan, encoded.counters_of(name))
        elif not await self._lend_all(loan, encoded):
            return Reply()
        if not loan.parts:
            self._loans.settled(loan.id)
            return Reply()
        self._figures.news.set()
        return _reply(loan)

    async def settle(self, command: Command) -> Reply:
        """Note what became of an answer; to be told again changes nothing."""
        loan, delivered = parse_settlement(command.body)
        await self._end_loan(loan, delivered=delivered)
        return Reply()

    async def watch_loans(self) -> None:
        """Find workers that died, and have what they carried owed again; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await pause_to_beat(self._poll_seconds[0 if self._waiting else 1])
            if not self._loans:
                continue
            try:
                alive = await self._alive(self._loans.workers())
            except BUS_ERRORS:
                continue
            for loan in self._loans.looked(loop.time(), alive, wanted=self._waiting > 0):
                log.warning("statistics were not delivered, owed again", worker=loan.worker, loan=loan.id)
                await self._end_loan(loan.id, delivered=False, lost=True)
                await self._commit()

    async def _lend_all(self, loan: Loan, encoded: EncodedStats) -> bool:
        """Lend everything that is owed, in parts; return False where the loan was ended meanwhile."""
        while True:
            counters = encoded.take_owing(self._part_counters)
            self._lend(loan, counters)
            if len(counters) < self._part_counters:
                return True
            await asyncio.sleep(0)
            if self._loans.get(loan.id) is not loan:
                return False

    def _lend(self, loan: Loan, counters: Sequence[str]) -> None:
        """Add a part with what is owed of these counters."""
        name = f"{loan.id}:{len(loan.parts)}"
        lent = self._figures.lend(name, loan.kind, counters)
        if lent:
            loan.parts[name] = encode_stats(lent)
            self._journal.loans[name] = LoanPart(loan.id, loan.kind, loan.worker, loan.parts[name])
            # With the core run in which it was counted. The rows are stored later: 200,000 of them would delay the answer.
            self._journal.run = self._figures.ledger.last_run

    async def _wait_for_loans(self, kind: str, counters: Sequence[str] | None) -> None:
        """Wait until nothing of what is asked for is on loan, up to a limit."""
        ledger = self._figures.ledger

        def free() -> bool:
            if counters is None:
                return not self._loans.of_kind(kind)
            return not any((entry := ledger.get(counter)) is not None and entry.lent for counter in counters)

        if free():
            return
        self._waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_seconds):
                    while not free():
                        await self._loan_ended.wait()
        finally:
            self._waiting -= 1

    async def _end_loan(self, loan_id: str, *, delivered: bool, lost: bool = False) -> None:
        loan = self._settled(loan_id, delivered=delivered)
        if loan is None:
            return
        self._delivered += delivered
        self.ended["delivered" if delivered else "lost" if lost else "returned"] += 1
        if delivered:
            self.delivered_at = time.time()
        if len(loan.parts) > 1:
            self._memory.soon()
        for number, name in enumerate(loan.parts):
            if number:
                await asyncio.sleep(0)
            lent = self._figures.ledger.settle(name, delivered=delivered)
            self._journal.loans[name] = None
            self._figures.note(counter for counter, _ in lent)
            if not delivered:
                self._figures.touch(counter for counter, _ in lent)
        ended, self._loan_ended = self._loan_ended, asyncio.Event()
        ended.set()
        self._figures.release(loan.kind)
        self._figures.news.set()

    def _settled(self, loan_id: str, *, delivered: bool) -> Loan | None:
        """Note the end of a loan, also of one that is not known (yet); return it."""
        self._journal.settled[loan_id] = delivered
        self._settled_stored.append(loan_id)
        if len(self._settled_stored) > SETTLED_STORED:
            self._journal.settled[self._settled_stored.popleft()] = None
        return self._loans.settled(loan_id)


def _reply(loan: Loan) -> Reply:
    bodies = list(loan.parts.values())
    if len(bodies) == 1 and len(bodies[0]) <= BLOB_BYTES:
        return Reply(body=bodies[0], lent=0)
    return Reply(lent=len(bodies), parts=bodies)
