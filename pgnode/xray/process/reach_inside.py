"""A thread in the process of an embedded core that shows and ends its connections, for the supervisor alone.

It listens on a unix socket in the core's private folder and answers this user and root, whom the kernel names (SO_PEERCRED). The
socket stays for as long as the core does, so a supervisor that took the core over asks there as well. Whatever goes wrong here
ends an answer, and never the core.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Final

from pgnode.os_support.process_sockets import OwnDescriptors, go_through
from pgnode.xray.process.reach_messages import QUESTION_MAX, Question, encode_answer, encode_failure

#: Seconds that a caller has to ask, and to take the answer.
CALLER_SECONDS: Final = 5.0

#: How much this thread stands back behind those that carry users' traffic (nice(2)).
NICENESS: Final = 5

#: What SO_PEERCRED gives: pid, user, group.
_CREDENTIALS: Final = struct.Struct("3i")
_READ_BYTES: Final = 64 * 1024


def begin(path: Path) -> bool:
    """Begin to answer on a socket.

    Args:
        path: Where it is made.

    Returns:
        Whether it could be made; where it could not, the core goes without.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(4)
    except OSError:
        listening.close()
        return False
    threading.Thread(target=_serve, args=(listening,), name="reach", daemon=True).start()
    return True


def _serve(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            # None is left of what it takes; the next caller may find some again.
            threading.Event().wait(1.0)
            continue
        with contextlib.suppress(Exception), connection:
            connection.settimeout(CALLER_SECONDS)
            connection.sendall(_answered(connection))


def _answered(connection: socket.socket) -> bytes:
    """Answer one caller. Raises OSError."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    line = _line(connection)
    if _CREDENTIALS.unpack(packed)[1] not in (os.geteuid(), 0):
        return encode_failure("this core is another user's")
    try:
        asked = Question.decode(line)
    except (ValueError, TypeError, KeyError) as error:
        return encode_failure(f"this is no question: {error}")
    try:
        return encode_answer(go_through(OwnDescriptors(), asked.doors, asked.targets, listed=asked.listed))
    except OSError as error:
        return encode_failure(error.strerror or str(error))


def _line(connection: socket.socket) -> bytes:
    """Read one line. Raises OSError."""
    parts: list[bytes] = []
    size = 0
    while not parts or not parts[-1].endswith(b"\n"):
        data = connection.recv(_READ_BYTES)
        size += len(data)
        if not data or size > QUESTION_MAX:
            raise OSError("the question has no end")
        parts.append(data)
    return b"".join(parts)
