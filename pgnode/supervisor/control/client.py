"""Asks a running supervisor; blocks, and never for longer than it is told."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pgnode.supervisor.control.messages import (
    ANSWER_MAX,
    SOCKET_NAME,
    Question,
    RefusedError,
    decode_answer,
    encode_question,
)

#: Seconds that a supervisor has to answer.
ASK_SECONDS: Final = 2.0

_READ_BYTES: Final = 256 * 1024


class NotAnsweredError(Exception):
    """There is no answer; the text says why, in a few words."""


class NobodyListensError(NotAnsweredError):
    """There is no socket, or nobody behind it."""


class SilentError(NotAnsweredError):
    """Somebody listens, and does not answer in time."""


class DeclinedError(NotAnsweredError):
    """The supervisor answers, and says why not what was asked."""


def ask(
    run_dir: Path,
    question: str,
    values: Mapping[str, Any] = MappingProxyType({}),
    *,
    seconds: float = ASK_SECONDS,
    answer_max: int = ANSWER_MAX,
) -> dict[str, Any]:
    """Ask the supervisor of a run folder.

    Args:
        run_dir: The folder.
        question: What is asked.
        values: What is said with the question.
        seconds: Seconds that it has to answer.
        answer_max: Bytes of an answer at most.

    Returns:
        The answer.

    Raises:
        NotAnsweredError: There is none.
    """
    deadline = time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _limit(connection, deadline)
            connection.connect(str(run_dir / SOCKET_NAME))
            connection.sendall(encode_question(Question(question, values)))
            return decode_answer(_read(connection, deadline, answer_max))
    except TimeoutError:
        raise SilentError(f"it did not answer within {seconds:g} s") from None
    except RefusedError as error:
        raise DeclinedError(str(error)) from None
    except ValueError as error:
        raise NotAnsweredError(f"it answered something else: {error}") from None
    except OSError as error:
        if error.errno == errno.EAGAIN:
            # As many wait as may, and nobody takes them.
            raise SilentError("it takes no connection") from None
        text = error.strerror or str(error)
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise NobodyListensError(f"nobody listens on its control socket ({text})") from None
        raise NotAnsweredError(f"its control socket cannot be used: {text}") from None


def _read(connection: socket.socket, deadline: float, answer_max: int) -> bytes:
    """Read all that comes. Raises OSError, TimeoutError, ValueError."""
    parts: list[bytes] = []
    size = 0
    while True:
        _limit(connection, deadline)
        data = connection.recv(_READ_BYTES)
        if not data:
            return b"".join(parts)
        parts.append(data)
        size += len(data)
        if size > answer_max:
            raise ValueError("it is too long")


def _limit(connection: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
