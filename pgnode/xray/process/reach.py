"""The supervisor's way to the connections of a core that runs: to see them, and to end some of them.

An embedded core answers itself (:mod:`pgnode.xray.process.reach_inside`). An executable cannot, so its descriptors are duplicated
from outside (``pidfd_getfd(2)``), where the kernel allows that; so are those of an embedded core that an earlier version began.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import time
from pathlib import Path
from typing import Final

from pgnode.os_support.pidfd import Pidfd
from pgnode.os_support.process_sockets import OtherDescriptors, go_through
from pgnode.os_support.tcp_ends import Seen
from pgnode.xray.process.reach_messages import REACH_NAME, Question, decode_answer
from pgnode.xray.process.running import RunningCore

#: Seconds that the core's thread has to answer. It stands back behind everything else in its process.
ANSWER_SECONDS: Final = 10.0

_CREDENTIALS: Final = struct.Struct("3i")
_READ_BYTES: Final = 256 * 1024


class UnreachableError(Exception):
    """Nobody can look into the core's process; the text says why, and what to do."""


async def look_into(running: RunningCore, asked: Question, *, answer_seconds: float = ANSWER_SECONDS) -> Seen:
    """Look at connections of a core, and end those that are named. Works in a thread, in small steps.

    Args:
        running: The core.
        asked: Which connections.
        answer_seconds: Seconds that a core has which answers itself.

    Returns:
        What was found and done.

    Raises:
        UnreachableError: The core cannot be looked into.
        OSError: It could be, but this time it did not work.
    """
    return await asyncio.to_thread(_look_into, running.pid, running.run_dir, asked, answer_seconds)


def _look_into(pid: int, run_dir: Path, asked: Question, answer_seconds: float) -> Seen:
    try:
        return _ask(run_dir / REACH_NAME, pid, asked, answer_seconds)
    except (FileNotFoundError, ConnectionRefusedError):
        # No embedded core, or one of an earlier version.
        return _from_outside(pid, asked)


def _ask(path: Path, pid: int, asked: Question, seconds: float) -> Seen:
    """Ask the core's own thread. Raises OSError."""
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(str(path))
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(packed)[0] != pid:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "another process answers there")
        connection.sendall(asked.encode())
        while not parts or not parts[-1].endswith(b"\n"):
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            data = connection.recv(_READ_BYTES)
            if not data:
                raise OSError("the core's thread ended its answer in the middle")
            parts.append(data)
    try:
        return decode_answer(b"".join(parts))
    except ValueError as error:
        raise OSError(str(error)) from None


def _from_outside(pid: int, asked: Question) -> Seen:
    """Look from outside. Raises UnreachableError, OSError."""
    with Pidfd(pid) as process:
        try:
            return go_through(OtherDescriptors(pid, process.fileno()), asked.doors, asked.targets, listed=asked.listed)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise UnreachableError(
                    "the system does not let this process look into the core's (kernel.yama.ptrace_scope is 0 where it does, "
                    "or 1 and the node began the core)"
                ) from None
            if error.errno == errno.ENOSYS:
                raise UnreachableError("this kernel has no pidfd_getfd: Linux 5.6 or newer has it") from None
            raise
