"""Rows of the store: how one entry of each table looks in memory. Pure."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import NamedTuple

#: Where versions before 0.6 kept the run among the ledger's rows; no counter has this name.
RUN_KEY = "run"


class LedgerRow(NamedTuple):
    """One counter of the core, as the ledger keeps it."""

    #: Bytes counted, over all core runs.
    total: int
    #: Bytes that callers were given and have received.
    reported: int
    #: What the core's counter said at the last reading, in the run ``run``.
    seen: int
    #: Number of that run; None in a row of a version before 0.4.
    run: int | None

    def encode(self) -> str:
        """Return the row as text, ``<total> <reported> <seen> <run>``, as versions before 0.6 stored it."""
        return " ".join(str(part) for part in self if part is not None)

    @classmethod
    def decode(cls, text: str) -> LedgerRow:
        """Read what :meth:`encode` returned; three numbers are a row of a version before 0.4.

        Raises:
            ValueError: It is not such a row.
        """
        total, reported, seen, *run = (int(part) for part in text.split())
        return cls(total, reported, seen, run[0] if run else None)


class LedgerRun(NamedTuple):
    """The core run that the ledger read last."""

    #: Rises with every core run; a counter of another run has seen nothing of this one.
    number: int
    #: Tells one core process from the next.
    identity: str

    def encode(self) -> str:
        """Return it as text, ``<number> <identity>``."""
        return f"{self.number} {self.identity}"

    @classmethod
    def decode(cls, text: str) -> LedgerRun:
        """Read what :meth:`encode` returned; versions before 0.4 stored the identity alone, which is run 1."""
        number, _, identity = text.partition(" ")
        return cls(int(number), identity) if number.isdigit() else cls(1, text)


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
        """Return the part as versions before 0.6 stored it."""
        return json.dumps([self.loan, self.kind, self.worker]).encode() + b"\n" + self.body

    @classmethod
    def decode(cls, data: bytes) -> LoanPart:
        """Read what :meth:`encode` returned.

        Raises:
            ValueError: It is not such a part.
        """
        head, _, body = data.partition(b"\n")
        loan, kind, worker = json.loads(head)
        return cls(loan, kind, worker, body)


@dataclass(frozen=True, slots=True)
class RejectedUser:
    """A user that was asked for and cannot be had."""

    email: str
    cause: str
    #: When it was refused first as it is, Unix milliseconds.
    at_ms: int
    #: The ``User`` message that was refused.
    user: bytes
    #: The core itself refused it; else the node found that it cannot work.
    by_core: bool = False

    def encode(self) -> str:
        """Return the user as JSON, as versions before 0.6 stored it."""
        fields = {"email": self.email, "cause": self.cause, "at_ms": self.at_ms, "by_core": self.by_core}
        return json.dumps({**fields, "user": base64.b64encode(self.user).decode()})

    @classmethod
    def decode(cls, text: str | bytes) -> RejectedUser:
        """Read what :meth:`encode` returned.

        Raises:
            ValueError: It is no JSON, or a field has another type.
            KeyError: A field is missing.
            TypeError: A field has another type.
        """
        fields = json.loads(text)
        user = base64.b64decode(fields["user"])
        return cls(fields["email"], fields["cause"], int(fields["at_ms"]), user, bool(fields["by_core"]))
