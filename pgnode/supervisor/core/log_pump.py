"""Reads the core's output, and passes it on in blocks: into memory, over the bus, and to log files.

Reading never waits: the core's pipe is emptied however slow the readers of the log are. It is emptied in large reads with a
pause after each, so that a core that writes a line at a time does not wake the supervisor for each of them. The node's own
lines go the same way, so that viewers see both.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.os_support.line_blocks import count_lines
from pgnode.supervisor.core.log_blocks import LineCutter, clean
from pgnode.supervisor.core.log_sender import Counted, LogSender
from pgnode.supervisor.core.log_writer import LogWriter
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.processes.inheritance import Inheritance

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Bytes of one read; and reads for which nothing else is done, at most.
READ_BYTES = 64 * 1024
READS_MAX = 32

#: Bytes that the core's pipe is to hold, where the system allows that, and where it says nothing.
PIPE_BYTES = 1024 * 1024
USUAL_PIPE_BYTES = 64 * 1024

#: How much a core may write in a second before its pipe is full: that is how long the pause after a read may be.
BYTES_PER_SECOND = 4 * 1024 * 1024


class LogPump:
    """Reads from one core at a time. Belongs to the supervisor's event loop.

    Args:
        ring: Keeps the last lines.
        sender: Passes lines on to viewers.
        writer: Writes the log files.
        tail_lines: Lines kept for the error of a failed start.
        rest: The beginning of the first line of the first core that is watched: the supervisor before has read it.
        keep: Called with lines of the core that are passed on, with a line feed between two; None: nobody wants them.
        now: Says the time, Unix seconds.
    """

    def __init__(
        self,
        ring: LogRing,
        sender: LogSender,
        writer: LogWriter,
        *,
        tail_lines: int,
        rest: bytes = b"",
        keep: Callable[[bytes], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ring = ring
        self.sender = sender
        self.writer = writer
        self._tail_lines = tail_lines
        self._keep = keep
        self._now = now
        self._fd: int | None = None
        self._pause_seconds = 0.0
        self._looking: asyncio.TimerHandle | None = None
        self._first_rest = rest
        self._cutter = LineCutter()
        self._sieve: Callable[[bytes], bytes] | None = None
        #: The core's last lines, whether they are passed on or not.
        self._tail: deque[tuple[int, bytes]] = deque()
        self._tail_count = 0

    @classmethod
    def of(cls, settings: Settings, ring: LogRing, left: Inheritance, show: Callable[[bytes], None]) -> LogPump:
        """Make that of a node with these settings.

        Args:
            settings: The node's settings.
            ring: Keeps the last lines.
            left: What the supervisor before left.
            show: Prints lines of the core among the node's own, where that is wanted.

        Returns:
            The pump.
        """
        bus, keys = PipelinedRedis(settings.bus_url), Keys(settings.bus_prefix)
        return cls(
            ring,
            LogSender(bus, keys, ring, Counted.left(left.log_counted)),
            LogWriter(settings.log_file_max_mib * 1024 * 1024),
            tail_lines=settings.startup_log_tail_size,
            rest=left.core_rest.encode("latin-1"),
            keep=show if settings.core_log == "stderr" else None,
        )

    def __repr__(self) -> str:
        return f"LogPump({'idle' if self._fd is None else self._fd}, {self._ring!r}, {self.sender!r})"

    def write_files(self, access_path: str | None, error_path: str | None) -> None:
        """Write the log files that a panel's config names; the core does not. None: no such file."""
        self.writer.name_files(access_path, error_path)

    def select(self, sieve: Callable[[bytes], bytes] | None) -> None:
        """Pass on those lines of the core alone that ``sieve`` leaves of a block; None: all that it prints."""
        self._sieve = sieve

    def watch(self, fd: int) -> None:
        """Read the core's output from this (non-blocking) descriptor from now on."""
        self.unwatch()
        self._fd = fd
        self._cutter, self._first_rest = LineCutter(self._first_rest), b""
        self._pause_seconds = _widened(fd) / BYTES_PER_SECOND
        asyncio.get_running_loop().add_reader(fd, self._readable)

    def unwatch(self) -> None:
        """Read what is left, and nothing more; the descriptor stays open."""
        if self._fd is not None:
            self._read()
            self._stop()
            self._fd = None

    def place(self) -> int:
        """Read what the core has printed so far; return the number of the next line."""
        if self._fd is not None:
            self._read()
        return self._ring.next_number

    @property
    def ring(self) -> LogRing:
        """The last lines."""
        return self._ring

    @property
    def rest(self) -> bytes:
        """The beginning of a line of which the end has not come yet."""
        return self._cutter.rest

    @property
    def tail(self) -> list[str]:
        """The core's last lines, for the error of a failed start."""
        lines = [line for _, block in self._tail for line in block.split(b"\n")]
        return [line.decode(errors="replace") for line in lines[-self._tail_lines :]]

    def clear_tail(self) -> None:
        """Forget the last lines: they are of another core."""
        self._tail.clear()
        self._tail_count = 0

    def node_line(self, line: str) -> None:
        """Pass on a line of the node's own log."""
        data = line.encode()
        self._ring.put(data, self._now(), 1, of_core=False)
        self.sender.keep_own(data)
        self.sender.put(data, 1)

    async def pass_on(self) -> None:
        """Pass on what waits, as far as that is possible now."""
        await self.writer.pass_on()
        await self.sender.pass_on()

    def close(self) -> None:
        """Disconnect from the bus."""
        self.sender.close()

    def _readable(self) -> None:
        """Read, and look again after a pause: what a core writes meanwhile wakes nobody."""
        assert self._fd is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fd)
        if self._read():
            self._looking = loop.call_later(self._pause_seconds, self._look)

    def _look(self) -> None:
        """Read what has come in the pause; where that is nothing, wait for the next line."""
        self._looking = None
        assert self._fd is not None
        loop = asyncio.get_running_loop()
        found = self._read()
        if found:
            self._looking = loop.call_later(self._pause_seconds, self._look)
        elif found is not None:
            loop.add_reader(self._fd, self._readable)

    def _read(self) -> int | None:
        """Read what is there; returns how many bytes, None where nothing will ever come."""
        assert self._fd is not None
        total = 0
        try:
            for _ in range(READS_MAX):
                data = os.read(self._fd, READ_BYTES)
                if not data:
                    # The core has ended; a readable end of file would wake the loop for ever.
                    return None
                total += len(data)
                self._feed(data)
                if len(data) < READ_BYTES:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            log.warning("core output not readable", error=str(error))
            return None
        return total

    def _stop(self) -> None:
        assert self._fd is not None
        asyncio.get_running_loop().remove_reader(self._fd)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _feed(self, data: bytes) -> None:
        whole = self._cutter.feed(data)
        if whole is None:
            return
        block, count = clean(whole)
        if not count:
            return
        self._note(block, count)
        if self._sieve is not None:
            block = self._sieve(block)
            count = count_lines(block)
        if count:
            self._ring.put(block, self._now(), count)
            self.sender.put(block, count)
            self.writer.put(block)
            if self._keep is not None:
                self._keep(block)

    def _note(self, block: bytes, count: int) -> None:
        """Keep blocks of the core that hold its last lines, whether they are asked for or not."""
        self._tail.append((count, block))
        self._tail_count += count
        while self._tail_count - self._tail[0][0] >= self._tail_lines:
            self._tail_count -= self._tail.popleft()[0]


def _widened(fd: int) -> int:
    """Let a pipe hold more, where that is allowed; returns how many bytes it holds."""
    with contextlib.suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    with contextlib.suppress(OSError):
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    return USUAL_PIPE_BYTES
