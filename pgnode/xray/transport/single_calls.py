"""Calls of any method of the core, one by one, with their answers: on one HTTP/2 connection, as the pipelined client makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, cast

from pgnode.xray.transport.answering import AnsweringConnection
from pgnode.xray.transport.frames import MESSAGE_HEAD
from pgnode.xray.transport.http2 import Http2ClientConnection
from pgnode.xray.transport.outcome import GRPC_INTERNAL, GRPC_RESOURCE_EXHAUSTED, Failure
from pgnode.xray.transport.pipelined import Call, PipelinedGrpcClient

#: Bytes of an answer that are taken: statistics of 100,000 users are 10 MB.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class _SingleCall:
    """One call, and what has come of its answer; it makes its message as the pipelined client asks for one."""

    def __init__(self, path: str, request: bytes) -> None:
        self.path = path
        self._request = request
        self.parts: list[bytes] = []
        self.size = 0

    def __call__(self, _index: int) -> bytes:
        return self._request

    def take(self, data: bytes) -> None:
        """Take a part of the answer."""
        self.parts.append(data)
        self.size += len(data)


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
        call = _SingleCall(path, request)
        [failure] = await self.run(1, call, deadline_seconds)
        return message_of(call.parts) if failure is None else failure

    def _machine(self) -> Http2ClientConnection[Call]:
        return AnsweringConnection(_path_of, self._take, max_open=self._max_open, last_stream_id=self._last_stream_id)

    def _take(self, call: Call, data: bytes) -> None:
        single = _single(call)
        single.take(data)
        if single.size > self._max_answer_bytes:
            single.parts.clear()
            for connection in self._connections:
                connection.machine.cancel({call})
            self._ended(
                call, Failure(GRPC_RESOURCE_EXHAUSTED, f"an answer of more than {self._max_answer_bytes:,} bytes")
            )


def _single(call: Call) -> _SingleCall:
    return cast(_SingleCall, call[0].encode)


def _path_of(call: Call) -> str:
    return _single(call).path


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
