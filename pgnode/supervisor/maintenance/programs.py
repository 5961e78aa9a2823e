"""Programs that a maintenance job runs: without a shell, with a time limit, and not ended together with this node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgnode.errors import DeadlineExceededError
from pgnode.os_support.pidfd import Pidfd

#: Bytes of a program's output that are kept: its end.
OUTPUT_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    #: The end of what it printed.
    output: str


async def run_program(
    command: Sequence[str],
    output: Path,
    limit_seconds: float,
    *,
    name: str = "",
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program to its end. What it prints goes to a file, so that it goes on where this process ends before it.

    Args:
        command: The program and its words.
        output: The file.
        limit_seconds: Seconds that it may take.
        name: What it is called in errors; "" for the program itself.
        environment: Its environment; None for this process's.

    Returns:
        How it ended.

    Raises:
        OSError: It cannot be run.
        DeadlineExceededError: It took too long and was killed, with all that it started.
    """

    def spawn() -> subprocess.Popen[bytes]:
        # Not asyncio's: that would end the program together with the event loop.
        with output.open("wb") as file:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )

    process = await asyncio.to_thread(spawn)
    with Pidfd(process.pid) as descriptor:
        ended = await _ended_in_time(descriptor, limit_seconds)
    code = process.poll()
    tail = await asyncio.to_thread(_end_of, output)
    if not ended:
        raise DeadlineExceededError(
            f"{name or command[0]} did not end within {limit_seconds:g} s and was killed: {tail}"
        )
    return Ended(code if code is not None else -1, tail)


async def _ended_in_time(process: Pidfd, limit_seconds: float) -> bool:
    """Wait for a program's end; return False when the time was up and it was killed."""
    try:
        async with asyncio.timeout(limit_seconds):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return False
    return True


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - OUTPUT_BYTES))
        return file.read().decode(errors="replace").strip()
