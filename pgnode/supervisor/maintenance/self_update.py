"""The job ``update``: runs the operator's UPDATE_COMMAND, without a shell and without anything that the caller sent.

Its output goes to a file, so a command that restarts this node is not ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path

import structlog

from pgnode.errors import DeadlineExceededError, UnsupportedError, UpdateFailedError
from pgnode.os_support.pidfd import Pidfd
from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Bytes of the command's output that are answered: its end.
OUTPUT_BYTES = 8 * 1024


class SelfUpdate:
    """Belongs to the supervisor's loop; one call at a time.

    Args:
        settings: The command, its time limit, and the folder for its output.
    """

    def __init__(self, settings: Settings) -> None:
        self._command = shlex.split(settings.update_command or "")
        self._limit_seconds = settings.maintenance_timeout_seconds
        self._output = settings.run_dir / "update.log"

    def __repr__(self) -> str:
        return f"SelfUpdate({self._command[:1]})"

    async def run(self, _request: dict[str, str]) -> str:
        """Do the job.

        Args:
            _request: Not used.

        Returns:
            The command's output.

        Raises:
            UnsupportedError: There is no command.
            UpdateFailedError: It cannot be run, or failed.
            DeadlineExceededError: It took too long and was killed.
        """
        if not self._command:
            raise UnsupportedError(
                "no UPDATE_COMMAND is set: update this node in its folder with `git pull` and `make install`, then run "
                "`pgnode restart`; or set UPDATE_COMMAND to a command that does so"
            )
        log.info("running UPDATE_COMMAND", program=self._command[0], output=str(self._output))
        try:
            process = await asyncio.to_thread(self._spawn)
        except OSError as error:
            raise UpdateFailedError(
                f"UPDATE_COMMAND cannot be run: {error.strerror} ({self._command[0]}); correct UPDATE_COMMAND"
            ) from None
        with Pidfd(process.pid) as descriptor:
            ended = await self._ended_in_time(descriptor)
        if not ended:
            process.poll()
            raise DeadlineExceededError(
                f"UPDATE_COMMAND did not end within {self._limit_seconds:g} s and was killed: {await self._tail()}"
            )
        code = process.poll()
        tail = await self._tail()
        if code != 0:
            raise UpdateFailedError(f"UPDATE_COMMAND ended with exit code {code}: {tail or 'it printed nothing'}")
        return tail or "UPDATE_COMMAND is done; it printed nothing"

    async def _ended_in_time(self, process: Pidfd) -> bool:
        """Wait for the command's end; return False when the time was up and it was killed."""
        try:
            async with asyncio.timeout(self._limit_seconds):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            return False
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Not asyncio's: that would end the command together with the event loop.
        with self._output.open("wb") as output:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    async def _tail(self) -> str:
        return await asyncio.to_thread(_end_of, self._output)


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - OUTPUT_BYTES))
        return file.read().decode(errors="replace").strip()
