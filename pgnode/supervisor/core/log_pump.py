"""Reads the core's output and passes it on: to the log stream, to log files, to the tail for errors.

Reading never waits: the core's pipe is emptied however slow the readers of the log are. Lines that the bus does not take are
kept up to a bound, then dropped and counted. The node's own lines go the same way, so that viewers see both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import Keys
from pgnode.bus.log_stream import put_lines
from pgnode.os_support.log_text import obeyed_by_terminals, printable_bytes
from pgnode.supervisor.core.log_files import append_lines
from pgnode.xray.config.log_section import ID_MARK, is_access_line, without_ids

log = structlog.get_logger(__name__)

#: Bytes read from the core at once.
READ_BYTES = 256 * 1024

#: Bytes of the longest line; what is longer is cut: it is no log line.
LINE_MAX_BYTES = 16 * 1024

#: Lines that wait for the bus at most.
WAITING_MAX = 20_000

#: Lines sent in one round trip.
SEND_MAX = 4_000

#: Seconds until lines that were not taken are sent again.
RETRY_SECONDS = 0.5


class LogPump:
    """Reads from one core at a time. Belongs to the supervisor's event loop.

    Args:
        redis: The bus.
        keys: Its keys.
        keep_lines: Lines that the stream keeps for viewers who come later.
        tail_lines: Lines kept for the error of a failed start.
        retry_seconds: Seconds until lines that were not taken are sent again.
        rest: The beginning of the first line of the first core that is watched: the supervisor before has read it.
        keep: Called with each line of the core that is passed on.
        file_max_bytes: The size at which a log file is set aside and another one begun; 0: it grows.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        keep_lines: int,
        tail_lines: int,
        retry_seconds: float = RETRY_SECONDS,
        rest: bytes = b"",
        keep: Callable[[str], None] = lambda _line: None,
        file_max_bytes: int = 0,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._keep_lines = keep_lines
        self._retry_seconds = retry_seconds
        self._waiting: deque[bytes] = deque()
        #: Lines that were dropped, and of which viewers were not told yet.
        self.dropped = 0
        #: Lines that were dropped since this object was made.
        self.dropped_in_all = 0
        self._wake = asyncio.Event()
        self._fd: int | None = None
        self._partial = b""
        self._first_rest = rest
        self._keep = keep
        self._file_max_bytes = file_max_bytes
        self._access_path: Path | None = None
        self._error_path: Path | None = None
        self._file_lines: dict[Path, list[bytes]] = {}
        #: File that does not take lines -> how many were dropped.
        self._not_written: dict[Path, int] = {}
        self._wants: Callable[[bytes], bool] = _all
        #: The core's last lines, for the error of a failed start.
        self.tail: deque[str] = deque(maxlen=tail_lines)

    def write_files(self, access_path: str | None, error_path: str | None) -> None:
        """Write the log files that a panel's config names; the core does not. None: no such file."""
        self._access_path = Path(access_path) if access_path else None
        self._error_path = Path(error_path) if error_path else None
        kept = (self._access_path, self._error_path)
        self._not_written = {path: count for path, count in self._not_written.items() if path in kept}

    def select(self, wants: Callable[[bytes], bool]) -> None:
        """Pass on those lines of the core alone for which ``wants`` says so."""
        self._wants = wants

    def watch(self, fd: int) -> None:
        """Read the core's output from this (non-blocking) descriptor from now on."""
        self.unwatch()
        self._fd = fd
        self._partial, self._first_rest = self._first_rest, b""
        asyncio.get_running_loop().add_reader(fd, self._readable)

    def unwatch(self) -> None:
        """Read what is left, and nothing more; the descriptor stays open."""
        if self._fd is not None:
            self._drain()
            asyncio.get_running_loop().remove_reader(self._fd)
            self._fd = None

    @property
    def rest(self) -> bytes:
        """The beginning of a line of which the end has not come yet."""
        return self._partial

    def node_line(self, line: str) -> None:
        """Pass on a line of the node's own log."""
        self._put(line.encode())

    async def run(self) -> None:
        """Pass lines on until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.pass_on()

    async def pass_on(self) -> None:
        """Pass on what waits; returns when nothing does."""
        if self._file_lines:
            batches, self._file_lines = self._file_lines, {}
            self._tell(batches, await asyncio.to_thread(_append, batches, self._file_max_bytes))
        while self._waiting:
            lines = [self._waiting.popleft() for _ in range(min(SEND_MAX, len(self._waiting)))]
            if self.dropped:
                lines.insert(0, f"[{self.dropped} log lines dropped: the bus did not take them]".encode())
                self.dropped = 0
            pipe = self._redis.pipeline(transaction=False)
            put_lines(pipe, self._keys, lines, self._keep_lines)
            try:
                await pipe.execute()
            except BUS_ERRORS:
                self._waiting.extendleft(reversed(lines))
                self._trim()
                await asyncio.sleep(self._retry_seconds)

    def _tell(self, batches: dict[Path, list[bytes]], failed: dict[Path, str]) -> None:
        """Say once of each file that it does not take lines, and how many were dropped when it does again."""
        for path, lines in batches.items():
            if path in failed:
                if path not in self._not_written:
                    log.warning("log file not written, its lines are dropped", path=str(path), error=failed[path])
                self._not_written[path] = self._not_written.get(path, 0) + len(lines)
            elif path in self._not_written:
                log.info("log file is written again", path=str(path), dropped=self._not_written.pop(path))

    def _readable(self) -> None:
        """One read per call of the loop, so that a chatty core does not hold up anything else."""
        assert self._fd is not None
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("core output not readable", error=str(error))
            self.unwatch()
            return
        if data:
            self._feed(data)
        else:
            # The core has ended; a readable end of file would wake the loop for ever.
            asyncio.get_running_loop().remove_reader(self._fd)

    def _drain(self) -> None:
        assert self._fd is not None
        with contextlib.suppress(BlockingIOError, OSError):
            for _ in range(64):
                data = os.read(self._fd, READ_BYTES)
                if not data:
                    break
                self._feed(data)

    def _feed(self, data: bytes) -> None:
        data = self._partial + data
        # Users choose names of hosts that stand in these lines, and operators look at them on a terminal.
        obeyed = obeyed_by_terminals(data)
        with_ids = ID_MARK in data
        lines = data.split(b"\n")
        self._partial = lines.pop()
        if len(self._partial) > LINE_MAX_BYTES:
            lines.append(self._partial)
            self._partial = b""
        for raw in lines:
            line = raw[:LINE_MAX_BYTES].rstrip(b"\r")
            if obeyed:
                line = printable_bytes(line)
            if with_ids:
                line = without_ids(line)
            if line:
                text = line.decode(errors="replace")
                self.tail.append(text)
                if self._wants(line):
                    self._keep(text)
                    self._to_file(line)
                    self._put(line)

    def _to_file(self, line: bytes) -> None:
        path = self._access_path if is_access_line(line) else self._error_path
        if path is not None:
            self._file_lines.setdefault(path, []).append(line)

    def _put(self, line: bytes) -> None:
        self._waiting.append(line)
        self._trim()
        self._wake.set()

    def _trim(self) -> None:
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popleft()
            self.dropped += 1
            self.dropped_in_all += 1


def _all(_line: bytes) -> bool:
    return True


def _append(batches: dict[Path, list[bytes]], max_bytes: int) -> dict[Path, str]:
    """Write lines to their files; returns which files do not take them, and why."""
    failed = {}
    for path, lines in batches.items():
        try:
            append_lines(path, lines, max_bytes)
        except OSError as error:
            failed[path] = error.strerror or str(error)
    return failed
