"""Answers questions over a unix socket in the run folder, for this user and root alone. It needs neither the bus nor the store.

Whatever happens here costs nobody anything but an operator's answer: connections are few, short and bounded, and a socket that
cannot be made, or was removed, is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import structlog

from pgnode.os_support.aio import end_tasks
from pgnode.os_support.files import SUFFIX
from pgnode.supervisor.control.messages import (
    QUESTION_MAX,
    RefusedError,
    decode_question,
    encode_answer,
    encode_error,
)

log = structlog.get_logger(__name__)

#: Seconds that a caller has to ask, and to take the answer.
CALLER_SECONDS = 5.0

#: Seconds that an answer may take to make.
ANSWER_SECONDS = 5.0

#: Seconds that what takes longer may take: new workers have to come up.
SLOW_SECONDS = 120.0

#: Seconds between two looks whether the socket is still there.
CHECK_SECONDS = 5.0

#: Connections at once; further ones are closed.
CONNECTIONS_MAX = 16

#: What SO_PEERCRED gives: pid, user, group.
_CREDENTIALS = struct.Struct("3i")

#: Makes one answer of what was said with the question. Raises RefusedError.
Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Belongs to the supervisor's loop.

    Args:
        path: The socket.
        answers: Who answers which question.
        slow: Questions whose answers take longer.
        allowed: Users who are answered.
        caller_seconds: Seconds that a caller has to ask, and to take the answer.
        answer_seconds: Seconds that an answer may take to make.
        check_seconds: Seconds between two looks whether the socket is still there.
    """

    def __init__(
        self,
        path: Path,
        answers: Mapping[str, Answer],
        *,
        slow: Collection[str] = (),
        allowed: frozenset[int] | None = None,
        caller_seconds: float = CALLER_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._path = path
        self._answers = answers
        self._slow = slow
        self._allowed = frozenset({0, os.geteuid()}) if allowed is None else allowed
        self._caller_seconds = caller_seconds
        self._answer_seconds = answer_seconds
        self._check_seconds = check_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"ControlServer({self._path}, {len(self._tasks)} connections)"

    async def run(self) -> None:
        """Answer until cancelled."""
        told = False
        try:
            while True:
                try:
                    listening, mine = await asyncio.to_thread(_listen, self._path)
                except OSError as error:
                    if not told:
                        log.warning(
                            "commands cannot ask this node", socket=str(self._path), error=error.strerror or str(error)
                        )
                    told = True
                    await asyncio.sleep(self._check_seconds)
                    continue
                told = False
                await self._serve_while_there(listening, mine)
        finally:
            await end_tasks(list(self._tasks))

    async def _serve_while_there(self, listening: socket.socket, mine: os.stat_result) -> None:
        server = await asyncio.start_unix_server(self._take, sock=listening, limit=QUESTION_MAX)
        try:
            while await asyncio.to_thread(_is_there, self._path, mine):  # noqa: ASYNC110 - the file system tells nobody
                await asyncio.sleep(self._check_seconds)
            log.info("the control socket is gone, making it anew", socket=str(self._path))
        finally:
            server.close()
            if _is_there(self._path, mine):
                with contextlib.suppress(OSError):
                    self._path.unlink()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._one(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._tasks) <= CONNECTIONS_MAX:
                answer = await self._answered(reader, writer)
                async with asyncio.timeout(self._caller_seconds):
                    writer.write(answer)
                    await writer.drain()
                    writer.write_eof()
        except (TimeoutError, OSError):
            # Whoever asks in pieces, or takes nothing, gets nothing.
            pass
        finally:
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answer one question. Raises OSError, TimeoutError."""
        user = _user_of(writer)
        try:
            # Read in any case: who closes a connection with something unread resets it, and the answer is lost.
            async with asyncio.timeout(self._caller_seconds):
                asked = decode_question(await reader.readline())
        except ValueError as error:
            # Also where the line is too long.
            return encode_error(str(error))
        if user not in self._allowed:
            return encode_error("this node is another user's: be that user, or root")
        if _has_gone(writer):
            # It was told that there is no answer, perhaps long ago: nothing is done for it.
            return b""
        make = self._answers.get(asked.ask)
        if make is None:
            known = ", ".join(sorted(self._answers))
            return encode_error(f"this supervisor does not know the question {asked.ask[:40]!r}; it knows {known}")
        seconds = SLOW_SECONDS if asked.ask in self._slow else self._answer_seconds
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.to_thread(encode_answer, await make(asked.values))
        except RefusedError as error:
            return encode_error(str(error))
        except TimeoutError:
            return encode_error(f"the supervisor did not have the answer within {seconds:g} s")
        except Exception as error:
            log.exception("a question was not answered", ask=asked.ask)
            return encode_error(f"the supervisor cannot tell ({error!r}): see the node's log")


def _listen(path: Path) -> tuple[socket.socket, os.stat_result]:
    """Make the socket under another name and put it in place, so that nobody finds one that is half there. Raises OSError."""
    temporary = path.with_name(path.name + SUFFIX)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        made.bind(str(temporary))
        temporary.chmod(0o600)
        made.listen(CONNECTIONS_MAX)
        found = temporary.stat()
        temporary.replace(path)
    except BaseException:
        made.close()
        raise
    return made, found


def _is_there(path: Path, mine: os.stat_result) -> bool:
    """Whether the socket is still this one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and os.path.samestat(found, mine)


def _connection_of(writer: asyncio.StreamWriter) -> socket.socket:
    """Return a copy of the connection: what a transport gives cannot be asked under every event loop. Raises OSError."""
    return socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))


def _user_of(writer: asyncio.StreamWriter) -> int:
    """Return which user asks. Raises OSError."""
    with _connection_of(writer) as connection:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


def _has_gone(writer: asyncio.StreamWriter) -> bool:
    """Whether who asks has closed its end. Raises OSError."""
    with _connection_of(writer) as connection:
        try:
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
