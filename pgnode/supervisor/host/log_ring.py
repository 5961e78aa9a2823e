"""The last lines of the log in the supervisor's memory, as the bytes that came: of the core, and of the node itself. Pure.

Lines are kept in blocks (:mod:`pgnode.os_support.line_blocks`), as they were read, and taken apart only for who wants to see
them. Each line has a number; numbers rise, and some are those of lines that are kept elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pgnode.os_support.line_blocks import count_lines, pieces, without_first

#: Bytes of one block, at most, unless it is a single line.
BLOCK_BYTES: Final = 64 * 1024

#: Bytes of a line, on average, for which there is room; and bytes in all, however many lines are wanted.
LINE_BYTES: Final = 512
MAX_BYTES: Final = 64 * 1024 * 1024

#: Lines that come within so many seconds may share a block of so many bytes: a block has one time for all of them.
SHARED_SECONDS: Final = 0.2
SHARED_BYTES: Final = 4 * 1024


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines, one after the other."""

    #: Of the first line; those after it have the numbers after it.
    number: int
    count: int
    #: When they came, Unix seconds.
    at: float
    #: Whether the core wrote them; else the node itself.
    of_core: bool
    #: The lines, with a line feed between two.
    raw: bytes

    @property
    def end(self) -> int:
        """The number after that of the last line."""
        return self.number + self.count

    def lines(self) -> list[bytes]:
        """Take it apart."""
        return self.raw.split(b"\n")

    def without(self, count: int) -> Block:
        """Return it without its first lines, of which there are fewer than it has."""
        return Block(self.number + count, self.count - count, self.at, self.of_core, without_first(self.raw, count))


class LogRing:
    """Belongs to one event loop.

    Args:
        max_lines: Lines that are kept.
        max_bytes: Bytes of them, at most; None: as many as that many lines may have.
    """

    def __init__(self, max_lines: int, max_bytes: int | None = None) -> None:
        self._max_lines = max_lines
        self._max_bytes = min(MAX_BYTES, max_lines * LINE_BYTES) if max_bytes is None else max_bytes
        self._blocks: deque[Block] = deque()
        self._lines = self._bytes = 0
        self._next = 1

    def __repr__(self) -> str:
        return f"LogRing({self._lines} lines, {self._bytes} bytes)"

    def __len__(self) -> int:
        return self._lines

    @property
    def next_number(self) -> int:
        """The number of the next line."""
        return self._next

    @property
    def since(self) -> float | None:
        """When the oldest line came that is kept, give or take a moment, Unix seconds; None where there is none."""
        return self._blocks[0].at if self._blocks else None

    def take_number(self) -> int:
        """Return the number of a line that is kept elsewhere."""
        number, self._next = self._next, self._next + 1
        return number

    def skip_to(self, number: int) -> None:
        """Let the next line have this number, or a later one where it was used."""
        self._next = max(self._next, number)

    def put(self, data: bytes, at: float, count: int, *, of_core: bool = True) -> None:
        """Keep lines.

        Args:
            data: The lines, with a line feed between two.
            at: When they came, Unix seconds.
            count: How many they are.
            of_core: Whether the core wrote them.
        """
        for piece in pieces(data, BLOCK_BYTES):
            lines = count if len(piece) == len(data) else count_lines(piece)
            block = Block(self._next, lines, at, of_core, piece)
            self._next = block.end
            self._lines += block.count
            self._bytes += len(piece)
            last = self._blocks[-1] if self._blocks else None
            if last is not None and _may_share(last, block):
                joined = last.raw + b"\n" + piece
                self._blocks[-1] = Block(last.number, last.count + block.count, last.at, of_core, joined)
                self._bytes += 1
            else:
                self._blocks.append(block)
        self._trim()

    def newest_first(self) -> Iterator[Block]:
        """Yield the blocks, from the newest on."""
        return reversed(self._blocks)

    def oldest_first(self) -> Iterator[Block]:
        """Yield the blocks, from the oldest on."""
        return iter(self._blocks)

    def last(self, count: int) -> list[bytes]:
        """Return the last lines, of the core and of the node, in order.

        Args:
            count: How many at most.

        Returns:
            The lines.
        """
        found: list[bytes] = []
        for block in self.newest_first():
            missing = count - len(found)
            if missing <= 0:
                break
            found[:0] = block.lines()[-missing:]
        return found

    def _trim(self) -> None:
        blocks = self._blocks
        while self._lines > self._max_lines or self._bytes > self._max_bytes:
            first = blocks.popleft()
            self._bytes -= len(first.raw)
            over = self._lines - self._max_lines
            if self._bytes + len(first.raw) <= self._max_bytes and over < first.count:
                kept = first.without(over)
                blocks.appendleft(kept)
                self._bytes += len(kept.raw)
                self._lines -= over
            else:
                self._lines -= first.count


def _may_share(last: Block, block: Block) -> bool:
    return (
        last.of_core is block.of_core
        and last.end == block.number
        and 0 <= block.at - last.at < SHARED_SECONDS
        and len(last.raw) + len(block.raw) < SHARED_BYTES
    )
