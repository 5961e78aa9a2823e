"""Which lines of the log stream are news, and how many are missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pgnode.bus.log_batches import LogBatch
from pgnode.os_support.line_blocks import count_lines, without_first


class LogOrder:
    """What one reader has had of the stream."""

    def __init__(self) -> None:
        self._source = ""
        #: The number of the next line.
        self._next = 0

    def __repr__(self) -> str:
        return f"LogOrder({self._source} {self._next})"

    def take(self, batch: LogBatch) -> Iterator[bytes]:
        """Take an entry.

        Args:
            batch: What it holds.

        Yields:
            Lines that are news, and before them what is to be said of those that are missing.
        """
        number, data = batch.number, b"" if batch.token else batch.block
        missing = ""
        if self._source == batch.source:
            if number > self._next:
                missing = f"[{number - self._next} lines lost: the bus did not take them, or this worker was too slow]"
            else:
                # Perhaps some were sent again: nobody knew whether the bus had them.
                data, number = without_first(data, self._next - number), self._next
        elif self._source:
            missing = "[another supervisor goes on: lines of that moment may be missing]"
        self._source, self._next = batch.source, number + count_lines(data)
        if missing:
            yield missing.encode()
        if data:
            yield data
