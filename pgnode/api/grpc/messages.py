"""Reads what callers send, within a time limit: gRPC itself waits for ever for a caller that opens a call and sends nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from pgnode.api.grpc.grpc_compat import Context
from pgnode.api.service.deadline import set_caller_timeout
from pgnode.errors import DeadlineExceededError, InvalidRequestError

#: Seconds that a stream from the caller may last in all, however steadily it comes.
STREAM_SECONDS = 3600.0


class MessageReader:
    """Reads single messages and streams, and notes the caller's deadline.

    Args:
        timeout_seconds: Time for each message.
        stream_seconds: Time for a whole stream.
    """

    def __init__(self, timeout_seconds: float, stream_seconds: float = STREAM_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._stream_seconds = stream_seconds

    def __repr__(self) -> str:
        return f"MessageReader({self._timeout_seconds:g} s)"

    async def read_one(self, context: Context, name: str) -> bytes:
        """Read the message of a call that has one.

        Args:
            context: The call.
            name: The message's type, for the text of the error.

        Returns:
            The message's bytes.

        Raises:
            InvalidRequestError: The call ended without one.
            DeadlineExceededError: None came in time.
        """
        message = await self._next(context)
        _note_deadline(context)
        if message is None:
            raise InvalidRequestError(f"no message: send one {name}, an empty one for its defaults")
        return message

    async def read_all(self, context: Context) -> AsyncIterator[bytes]:
        """Yield the messages of a stream; raise DeadlineExceededError where it is silent or lasts too long."""
        _note_deadline(context)
        ends_at = time.monotonic() + self._stream_seconds
        while (message := await self._next(context)) is not None:
            if time.monotonic() > ends_at:
                raise DeadlineExceededError(
                    f"the stream has lasted {self._stream_seconds:g} s, the most that is allowed"
                )
            yield message

    async def _next(self, context: Context) -> bytes | None:
        """Return the next message, None at the end."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                message = await context.read()
        except TimeoutError:
            raise DeadlineExceededError(
                f"no message came within {self._timeout_seconds:g} s, and no end of the stream"
            ) from None
        return message if isinstance(message, bytes) else None


def _note_deadline(context: Context) -> None:
    left = context.time_remaining()
    if left is not None:
        set_caller_timeout(left)
