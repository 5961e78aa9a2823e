"""What was handed out to callers and is not known to have arrived: who carries it, and since when. Pure.

A loan ends when its worker tells what became of the answer. A worker that died tells nothing: then the answer counts as lost and
is owed again. So nothing is lost. The price is that an answer which arrived in the very moment in which its worker was killed,
before it could say so, is given out once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pgnode.store.rows import LoanPart

#: Checks in a row at which a worker has to be missing until it counts as dead: the bus may have been away.
MISSING_LOOKS = 3

#: Seconds until a dead worker's loan is owed again although nobody waits for it.
DEAD_SECONDS = 20.0

#: Seconds after which a loan is owed again although its worker lives: far beyond every limit of a worker.
OVERDUE_SECONDS = 300.0

#: Settled loans remembered, so that a command delivered twice takes nothing a second time.
_SETTLED_KEPT = 4096


@dataclass(slots=True)
class Loan:
    """One answer on its way to a caller."""

    id: str
    kind: str
    worker: str
    #: Monotonic seconds.
    since: float
    #: Names of its parts in ledger and store, and their ``StatResponse`` bytes.
    parts: dict[str, bytes] = field(default_factory=dict)
    #: Checks at which the worker was missing, and the time of the first one.
    missing: int = 0
    missing_since: float = 0.0


class Loans:
    """All open loans, and the last ones that ended."""

    def __init__(self) -> None:
        self._open: dict[str, Loan] = {}
        self._settled: set[str] = set()
        self._settled_order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"Loans({len(self._open)} open)"

    def get(self, loan: str) -> Loan | None:
        """Return an open loan, None where there is none of this id."""
        return self._open.get(loan)

    def was_settled(self, loan: str) -> bool:
        """Return whether a loan has ended lately."""
        return loan in self._settled

    def add(self, loan: Loan) -> None:
        """Open a loan."""
        self._open[loan.id] = loan

    def settled(self, loan: str) -> Loan | None:
        """End a loan.

        Args:
            loan: Its id.

        Returns:
            The loan; None if there was none. Its end is remembered either way: its end may be reported before the loan is
            opened.
        """
        self._remember(loan)
        return self._open.pop(loan, None)

    def _remember(self, loan: str) -> None:
        if loan not in self._settled:
            self._settled.add(loan)
            self._settled_order.append(loan)
            if len(self._settled_order) > _SETTLED_KEPT:
                self._settled.discard(self._settled_order.popleft())

    def of_kind(self, kind: str) -> list[Loan]:
        """Return the open loans of users', inbounds' or outbounds' statistics."""
        return [loan for loan in self._open.values() if loan.kind == kind]

    def workers(self) -> list[str]:
        """Return the workers that carry a loan."""
        return sorted({loan.worker for loan in self._open.values()})

    def restore(self, stored: Mapping[str, LoanPart], settled: Iterable[str], now: float) -> None:
        """Take over what an earlier supervisor stored.

        Args:
            stored: Name -> part of an open loan.
            settled: Ids of loans that ended, the oldest first.
            now: Seconds on a clock that nobody sets.
        """
        for loan_id in settled:
            self._remember(loan_id)
        for name, part in stored.items():
            loan = self._open.setdefault(part.loan, Loan(part.loan, part.kind, part.worker, now))
            loan.parts[name] = part.body

    def looked(self, now: float, alive: Iterable[str], *, wanted: bool) -> list[Loan]:
        """Take note of which workers are there.

        Args:
            now: Seconds on a clock that nobody sets.
            alive: The workers.
            wanted: Somebody waits for what may be on loan.

        Returns:
            The loans that count as lost by now.
        """
        there = set(alive)
        lost = []
        for loan in self._open.values():
            if loan.worker in there:
                loan.missing = 0
            else:
                loan.missing += 1
                if loan.missing == 1:
                    loan.missing_since = now
            dead = loan.missing >= MISSING_LOOKS and (wanted or now - loan.missing_since >= DEAD_SECONDS)
            if dead or now - loan.since >= OVERDUE_SECONDS:
                lost.append(loan)
        return lost
