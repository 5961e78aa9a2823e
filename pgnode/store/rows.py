"""Rows of the store: how one entry of each table looks in memory. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

#: Kinds of commands in the table ``taken``: a bulk change of users that was taken in, a change of the routing that was done.
TAKEN_USERS = "users"
TAKEN_ROUTING = "routing"

#: When a user departed.
_AT: Final = struct.Struct(">d")


class LedgerRow(NamedTuple):
    """One counter of the core, as the ledger keeps it."""

    #: Bytes counted, over all core runs.
    total: int
    #: Bytes that callers were given and have received.
    reported: int
    #: What the core's counter said at the last reading, in the run ``run``.
    seen: int
    #: Number of that run.
    run: int


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
        """Read what :meth:`encode` returned.

        Args:
            text: The text.

        Returns:
            The run.

        Raises:
            ValueError: It is damaged.
        """
        number, _, identity = str(text).partition(" ")
        return cls(int(number), identity)


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


class DepartedUser(NamedTuple):
    """A user who lost an account in the core, and whose connections are to be ended."""

    #: When that was last, Unix seconds.
    at: float
    #: The ``User`` messages by which the core had accounts of this user.
    messages: tuple[bytes, ...]
    #: Number of the group that this user is in: who departs between two looks of the cutter is in one group. It only rises.
    generation: int = 0

    def encode(self) -> bytes:
        """Return when, and the messages, each behind its length; not the generation."""
        return b"".join([_AT.pack(self.at), *[len(message).to_bytes(4, "big") + message for message in self.messages]])

    @classmethod
    def decode(cls, packed: bytes, generation: int) -> DepartedUser:
        """Read what was encoded.

        Args:
            packed: What :meth:`encode` returned.
            generation: The generation.

        Returns:
            The user.

        Raises:
            ValueError: It is damaged.
        """
        if len(packed) < _AT.size:
            raise ValueError("a departed user is damaged")
        [at] = _AT.unpack_from(packed)
        messages, place = [], _AT.size
        while place < len(packed):
            end = place + 4 + int.from_bytes(packed[place : place + 4], "big")
            if end > len(packed):
                raise ValueError("a departed user is damaged")
            messages.append(packed[place + 4 : end])
            place = end
        return cls(at, tuple(messages), generation)

    @classmethod
    def of_third_schema(cls, at: float, packed: bytes) -> DepartedUser:
        """Read a row of the table ``departed``: the time is a column of its own there. Raises ValueError."""
        return cls.decode(_AT.pack(at) + packed, 0)


@dataclass(frozen=True, slots=True)
class RejectedUser:
    """A user that was asked for and cannot be applied."""

    email: str
    cause: str
    #: When it was refused first as it is, Unix milliseconds.
    at_ms: int
    #: The ``User`` message that was refused.
    user: bytes
    #: The core itself refused it; otherwise the node found that it cannot work.
    by_core: bool = False
