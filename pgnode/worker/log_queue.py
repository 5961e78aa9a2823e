"""What waits for one viewer of the log: bounded, the oldest lines go first, and the viewer is told how many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from pgnode.os_support.line_blocks import count_lines, pieces

#: Lines and bytes that wait for one viewer at most. All viewers of a worker share them: a line is there once.
QUEUE_LINES = 100_000
QUEUE_BYTES = 8 * 1024 * 1024

#: Bytes of lines that a viewer is given at once, unless it is a single line: each viewer that does not read holds as many.
PIECE_BYTES = 16 * 1024

#: Id of an entry of the stream, and lines of it with a line feed between two.
Lines = tuple[str, bytes]

#: Lines, and how many they are.
Piece = tuple[bytes, int]


def pieces_of(data: bytes) -> list[Piece]:
    """Cut lines into pieces for viewers.

    Args:
        data: Lines, with a line feed between two; nothing is no line.

    Returns:
        The pieces.
    """
    return [(piece, count_lines(piece)) for piece in pieces(data, PIECE_BYTES)] if data else []


class LogQueue:
    """Belongs to one event loop.

    Args:
        max_lines: Lines that wait at most.
        max_bytes: Bytes of them, at most.
    """

    def __init__(self, max_lines: int = QUEUE_LINES, max_bytes: int = QUEUE_BYTES) -> None:
        self._max_lines, self._max_bytes = max_lines, max_bytes
        self._waiting: deque[tuple[str, bytes, int]] = deque()
        self._lines = self._bytes = 0
        self._dropped = 0
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"LogQueue({self._lines} lines)"

    def put(self, entry_id: str, found: Sequence[Piece]) -> None:
        """Let lines wait; the oldest go where there are too many.

        Args:
            entry_id: The entry that they are from.
            found: The lines.
        """
        for data, count in found:
            self._waiting.append((entry_id, data, count))
            self._lines += count
            self._bytes += len(data)
        while self._lines > self._max_lines or self._bytes > self._max_bytes:
            self._dropped += self._next()[2]
        if found:
            self._wake.set()

    async def lines(self, heartbeat_seconds: float) -> AsyncIterator[Lines | None]:
        """Yield what waits, without end.

        Args:
            heartbeat_seconds: Seconds without a line.

        Yields:
            Lines; None when there was none for so long.
        """
        while True:
            try:
                async with asyncio.timeout(heartbeat_seconds):
                    await self._wake.wait()
            except TimeoutError:
                yield None
                continue
            self._wake.clear()
            while self._waiting or self._dropped:
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    entry_id = self._waiting[0][0] if self._waiting else "0-0"
                    yield entry_id, b"[%d lines dropped: this viewer reads too slowly]" % dropped
                    continue
                entry_id, data, _ = self._next()
                yield entry_id, data

    def _next(self) -> tuple[str, bytes, int]:
        entry = self._waiting.popleft()
        self._lines -= entry[2]
        self._bytes -= len(entry[1])
        return entry
