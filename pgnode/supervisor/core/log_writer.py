"""Writes the log files that a config names, in batches and in another thread: a slow or full disk holds up nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import structlog

from pgnode.supervisor.core.log_files import append_lines
from pgnode.xray.config.log_section import access_lines

log = structlog.get_logger(__name__)

#: Seconds between two batches, unless so many bytes wait.
BATCH_SECONDS = 0.5
BATCH_BYTES = 1024 * 1024

#: Bytes that wait for files at most.
WAITING_BYTES = 32 * 1024 * 1024


class LogWriter:
    """Belongs to the supervisor's loop; :meth:`pass_on` is called by one task at a time.

    Args:
        max_bytes: The size at which a file is set aside and another one begun; 0: it grows.
        batch_seconds: Seconds between two batches.
        waiting_bytes: Bytes that wait at most.
    """

    def __init__(
        self, max_bytes: int, *, batch_seconds: float = BATCH_SECONDS, waiting_bytes: int = WAITING_BYTES
    ) -> None:
        self._max_bytes = max_bytes
        self._batch_seconds = batch_seconds
        self._waiting_max = waiting_bytes
        self._access_path: Path | None = None
        self._error_path: Path | None = None
        self._waiting: dict[Path, list[bytes]] = {}
        self._bytes = 0
        #: File that does not take lines -> how many were dropped.
        self._not_written: dict[Path, int] = {}
        self._wake = asyncio.Event()
        self._at_once = asyncio.Event()

    def __repr__(self) -> str:
        return f"LogWriter({self._access_path}, {self._error_path})"

    def name_files(self, access_path: str | None, error_path: str | None) -> None:
        """Write these files from now on. None: no such file."""
        self._access_path = Path(access_path) if access_path else None
        self._error_path = Path(error_path) if error_path else None
        kept = (self._access_path, self._error_path)
        self._not_written = {path: count for path, count in self._not_written.items() if path in kept}

    def put(self, data: bytes) -> None:
        """Write lines, where there is a file for them.

        Args:
            data: The lines, with a line feed between two.
        """
        access_path, error_path = self._access_path, self._error_path
        if access_path == error_path:
            self._queue(access_path, data)
            return
        access, others = access_lines(data)
        self._queue(access_path, access)
        self._queue(error_path, others)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._batch_seconds):
                    await self._at_once.wait()
            await self.pass_on()

    async def pass_on(self) -> None:
        """Write what waits."""
        self._wake.clear()
        self._at_once.clear()
        batches, self._waiting, self._bytes = self._waiting, {}, 0
        if batches:
            self._tell(batches, await asyncio.to_thread(_append, batches, self._max_bytes))

    def _queue(self, path: Path | None, data: bytes) -> None:
        if path is None or not data:
            return
        if self._bytes + len(data) > self._waiting_max:
            self._drop(path, data, f"the disk does not take them in time: more than {self._waiting_max:,} bytes wait")
            return
        self._waiting.setdefault(path, []).append(data)
        self._bytes += len(data)
        self._wake.set()
        if self._bytes >= BATCH_BYTES:
            self._at_once.set()

    def _tell(self, batches: dict[Path, list[bytes]], failed: dict[Path, str]) -> None:
        """Say once of each file that it does not take lines, and how many were dropped when it does again."""
        for path, parts in batches.items():
            if path in failed:
                self._drop(path, b"\n".join(parts), failed[path])
            elif path in self._not_written:
                log.info("log file is written again", path=str(path), dropped=self._not_written.pop(path))

    def _drop(self, path: Path, data: bytes, why: str) -> None:
        if path not in self._not_written:
            log.warning("log file not written, its lines are dropped", path=str(path), error=why)
        self._not_written[path] = self._not_written.get(path, 0) + data.count(b"\n") + 1


def _append(batches: dict[Path, list[bytes]], max_bytes: int) -> dict[Path, str]:
    """Write lines to their files; returns which files do not take them, and why."""
    failed = {}
    for path, parts in batches.items():
        try:
            append_lines(path, b"\n".join(parts), max_bytes)
        except OSError as error:
            failed[path] = error.strerror or str(error)
    return failed
