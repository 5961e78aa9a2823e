"""Starts, feeds and ends the short-lived processes of a core: trials and scratch cores."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from pgnode.errors import StartFailedError

#: Seconds that a killed process may take to end.
END_SECONDS: Final = 5.0

_DISCARDED_BYTES: Final = 65536


@contextlib.asynccontextmanager
async def running(
    name: str, command: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamWriter, asyncio.StreamReader]]:
    """Run a process within the context; what still runs at its end is killed.

    Args:
        name: What it is, for the error.
        command: The program and its arguments.
        environment: All of its environment.

    Yields:
        The process, its input, and its output: both streams in one.

    Raises:
        StartFailedError: The process cannot be run, or did not end when it was killed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        # uvloop does not say what the system lacks.
        known = error.errno is not None and error.errno > 0
        reason = error.strerror if known else "the system has no room for another process or its pipes"
        raise StartFailedError(f"{name} cannot be run: {reason}") from None
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdin, process.stdout
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await _discard(process.stdout)
                    await process.wait()
            except TimeoutError:
                raise StartFailedError(f"{name} was killed and has not ended after {END_SECONDS:g} s") from None


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read what is left: a process counts as ended only when its output was read to the end."""
    # Somebody else may still read it.
    with contextlib.suppress(RuntimeError):
        while await reader.read(_DISCARDED_BYTES):
            pass


async def feed(writer: asyncio.StreamWriter, text: str) -> None:
    """Write all that a process reads, and close its input; a process that has ended reads nothing."""
    # uvloop says by a RuntimeError that the pipe of such a process is closed.
    with contextlib.suppress(ConnectionError, RuntimeError):
        writer.write(text.encode())
        await writer.drain()
    writer.close()
