"""Calls of any method of the core, one by one, with their answers: on one HTTP/2 connection, as the pipelined client makes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, cast

from pgnode.xray.transport.answering import AnsweringConnection
from pgnode.xray.transport.frames import MESSAGE_HEAD
from pgnode.xray.transport.http2 import Http2ClientConnection
from pgnode.xray.transport.outcome import GRPC_INTERNAL, GRPC_RESOURCE_EXHAUSTED, Failure
from pgnode.xray.transport.pipelined import Batch, Call, PipelinedGrpcClient

#: Bytes of an answer that are taken: statistics of 100,000 users are 10 MB.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class _SingleCall(Batch):
    """One call, and what has come of its answer."""

    __slots__ = ("parts", "path", "size")

    def __init__(self, path: str, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(1, lambda _index: request, {}, loop)
        self.path = path
        self.parts: list[bytes] = []
        self.size = 0


class SingleCallClient(PipelinedGrpcClient):
    """Calls that overlap and know nothing of each other. Belongs to the event loop of its first call.

    Args:
        socket_path: The core's socket.
        max_answer_bytes: Bytes of an answer that are taken.
    """

    # One that takes long, such as a reading of all counters, is not ended by the deadline of another.
    _silence_ends = False

    def __init__(self, socket_path: Path | str, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__(socket_path, "")
        self._max_answer_bytes = max_answer_bytes

    async def call(self, path: str, request: bytes, deadline_seconds: float) -> bytes | Failure:
        """Call a method.

        Args:
            path: The method, "/package.Service/Method".
            request: The message.
            deadline_seconds: Seconds until it is given up.

        Returns:
            The message of the answer, or what went wrong.
        """
        call = _SingleCall(path, request, asyncio.get_running_loop())
        [failure] = await self._carry_out(call, (0,), deadline_seconds)
        return message_of(call.parts) if failure is None else failure

    def _machine(self) -> Http2ClientConnection[Call]:
        return AnsweringConnection(_path_of, self._take, max_open=self._max_open, last_stream_id=self._last_stream_id)

    def _take(self, call: Call, data: bytes) -> None:
        single = cast(_SingleCall, call[0])
        single.parts.append(data)
        single.size += len(data)
        if single.size > self._max_answer_bytes:
            single.parts.clear()
            for connection in self._connections:
                connection.machine.cancel({call})
            self._ended(
                call, Failure(GRPC_RESOURCE_EXHAUSTED, f"an answer of more than {self._max_answer_bytes:,} bytes")
            )


def _path_of(call: Call) -> str:
    return cast(_SingleCall, call[0]).path


def message_of(parts: list[bytes]) -> bytes | Failure:
    """Put the message of an answer together.

    Args:
        parts: The answer as it came; emptied.

    Returns:
        The message, or what is wrong with it.
    """
    while len(parts) > 1 and len(parts[0]) < MESSAGE_HEAD.size:
        parts[:2] = [parts[0] + parts[1]]
    if not parts or len(parts[0]) < MESSAGE_HEAD.size:
        return Failure(GRPC_INTERNAL, "an answer without a message")
    compressed, size = MESSAGE_HEAD.unpack_from(parts[0])
    # Cut here, so that a large answer is copied once.
    parts[0] = parts[0][MESSAGE_HEAD.size :]
    message = b"".join(parts)
    parts.clear()
    if compressed or len(message) != size:
        return Failure(GRPC_INTERNAL, f"an answer that is no message of {size:,} bytes")
    return message
