"""The books of traffic as they are in the store: how a counter's line and a loan look there. Pure.

A line of the hash ``ledger`` belongs to one counter of the core and reads ``<total> <reported> <seen> <run>``, all whole numbers:
bytes counted, bytes reported, what the core's counter said at the last reading, and the number of the core run in which it said
so. The line under RUN_KEY reads ``<number> <identity>`` and names the run that was read last. Versions before 0.4 wrote three
numbers, and of the run its identity alone.

A field of the hash ``loans`` is a part of what was handed out to one caller and not settled yet: :class:`LoanPart`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

#: Where the ledger keeps the identity of the core run; no counter has this name.
RUN_KEY = "run"


class LedgerRow(NamedTuple):
    """One counter's line."""

    #: Bytes counted, over all core runs.
    total: int
    #: Bytes that callers were given and have received.
    reported: int
    #: What the core's counter said at the last reading, in the run ``run``.
    seen: int
    #: Number of that run; None in a line of a version before 0.4.
    run: int | None

    def encode(self) -> str:
        return " ".join(str(part) for part in self if part is not None)

    @classmethod
    def decode(cls, text: str) -> LedgerRow:
        """Raises ValueError."""
        total, reported, seen, *run = (int(part) for part in text.split())
        return cls(total, reported, seen, run[0] if run else None)


def encode_run(number: int, identity: str) -> str:
    return f"{number} {identity}"


def decode_run(text: str) -> tuple[int, str]:
    """(number, identity); a line of a version before 0.4 is run 1."""
    number, _, identity = text.partition(" ")
    return (int(number), identity) if number.isdigit() else (1, text)


@dataclass(frozen=True, slots=True)
class LoanPart:
    """Statistics that were handed out to a caller, until it is known whether they reached it."""

    #: The command that asked for them.
    loan: str
    #: "user", "inbound" or "outbound".
    kind: str
    #: The worker that hands them to the caller.
    worker: str
    #: ``StatResponse``; the answer is the bodies of all parts, one after the other.
    body: bytes

    def encode(self) -> bytes:
        return json.dumps([self.loan, self.kind, self.worker]).encode() + b"\n" + self.body

    @classmethod
    def decode(cls, data: bytes) -> LoanPart:
        """Raises ValueError."""
        head, _, body = data.partition(b"\n")
        loan, kind, worker = json.loads(head)
        return cls(loan, kind, worker, body)
