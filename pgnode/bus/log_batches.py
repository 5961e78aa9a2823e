"""What workers and the supervisor say to each other about the log. Pure.

A worker says again and again that it has viewers (:class:`Watch`, a command). One with a new viewer names a token: the
supervisor then puts the last lines into the stream, under this token, as the place at which the viewer joins. What comes before
that entry is not for the viewer, and what comes after it is. Lines are numbered, so that a reader knows how many it has lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pgnode.os_support.line_blocks import count_lines

#: Bytes of lines in one entry, at most, unless it is a single line.
ENTRY_BYTES: Final = 128 * 1024

#: For how long the supervisor believes a worker that has viewers, and how often that one says so.
LEASE_SECONDS: Final = 12.0
RENEW_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What a worker says about its viewers."""

    #: Of what this worker says; it rises.
    number: int
    #: Whether it has any.
    on: bool
    #: Tells the new ones where they join; "" for none.
    token: str = ""
    #: Lines that they get first.
    replay: int = 0

    def encode(self) -> bytes:
        """Return the body of the command."""
        return f"{self.number} {int(self.on)} {self.replay} {self.token}".encode()

    @classmethod
    def decode(cls, body: bytes) -> Watch:
        """Read what :meth:`encode` made. Raises ValueError."""
        number, on, replay, token = body.decode().split(" ")
        return cls(int(number), on == "1", token, int(replay))


@dataclass(frozen=True, slots=True)
class LogBatch:
    """What one entry of the stream holds."""

    #: Who numbers the lines: one after the other as long as it is the same.
    source: str
    #: The number of the first line, or of the next one where a viewer joins.
    number: int
    #: The lines, with a line feed between two; nothing is no line.
    block: bytes
    #: The token of the viewers who join here, for whom these lines are, whatever their numbers; "" where they are for all.
    token: str = ""

    @property
    def count(self) -> int:
        """How many lines there are."""
        return count_lines(self.block)

    def fields(self) -> dict[str, bytes | str | int]:
        """Return the fields of its entry."""
        joins = {"token": self.token} if self.token else {}
        return {"source": self.source, "number": self.number, "lines": self.block, **joins}

    @classmethod
    def of(cls, fields: Mapping[bytes, bytes]) -> LogBatch:
        """Read what :meth:`fields` made. Raises KeyError, ValueError."""
        return cls(
            fields[b"source"].decode(),
            int(fields[b"number"]),
            fields[b"lines"],
            fields.get(b"token", b"").decode(),
        )
