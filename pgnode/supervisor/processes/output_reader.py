"""Reads what a child prints, line by line, from a descriptor that can be handed over to the next supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

#: Bytes read at once.
READ_BYTES = 64 * 1024

#: A line that is longer is left out.
LINE_MAX_BYTES = 1024 * 1024


class OutputReader:
    """Reads until the end of the output. Belongs to the running event loop.

    Args:
        descriptor: The reading end of a pipe; closed at its end.
        take: Is given each line.
        rest: The beginning of the first line, which was read before.
    """

    def __init__(self, descriptor: int, take: Callable[[bytes], None], rest: bytes = b"") -> None:
        self._descriptor = descriptor
        self._take = take
        self._rest = rest
        #: The line that is being read is too long.
        self._skips = False
        #: Set when there is nothing more.
        self.ended = asyncio.Event()
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def __repr__(self) -> str:
        return f"OutputReader({self._descriptor}{', ended' if self.ended.is_set() else ''})"

    def release(self) -> tuple[int, bytes]:
        """Read no more.

        Returns:
            The descriptor, which stays open (-1 when the output has ended), and the beginning of a line.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
        self.ended.set()
        return descriptor, self._rest

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if self._rest:
                self._take(self._rest)
                self._rest = b""
            os.close(self.release()[0])
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if self._skips or len(line) > LINE_MAX_BYTES:
                self._skips = False
            else:
                self._take(line)
        if len(self._rest) > LINE_MAX_BYTES:
            self._skips = True
            self._rest = b""
