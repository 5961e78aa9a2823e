"""The connection to the core's gRPC API, on its unix socket: one call, bytes in and out."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from pgnode.os_support.unix_sockets import is_served
from pgnode.xray.client.errors import CoreApiError, ErrorKind, from_failure
from pgnode.xray.transport.outcome import Failure
from pgnode.xray.transport.single_calls import SingleCallClient

_MessageT = TypeVar("_MessageT", bound=Message)

#: Bytes of a request that the core accepts: grpc-go's default of 4 MiB, less some room for what encloses the users.
MAX_SEND_BYTES: Final = 4 * 1024 * 1024 - 4 * 1024

#: Seconds between two tries whether a core that starts takes connections; one try takes 10 µs.
_SERVED_POLL_SECONDS: Final = 0.005

#: Seconds before a call that waits for a connection is tried again.
_AGAIN_SECONDS: Final = 0.01


class CoreChannel:
    """Calls of any method of the core's API. Belongs to the event loop of its first call; ``aclose`` it there."""

    def __init__(self, socket_path: Path | str) -> None:
        self.socket_path = str(socket_path)
        self._client: SingleCallClient | None = None

    def __repr__(self) -> str:
        return f"<CoreChannel {self.socket_path} {'idle' if self._client is None else 'open'}>"

    async def aclose(self) -> None:
        """Close the connection; calls under way end as unavailable."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(self, path: str, request: bytes, deadline_seconds: float, *, wait_for_ready: bool = False) -> bytes:
        """Call a method of the core's API.

        Args:
            path: The method, "/package.Service/Method".
            request: The serialized request.
            deadline_seconds: Seconds until the call is given up.
            wait_for_ready: Wait for a connection instead of failing without one; only for calls that may be made twice.

        Returns:
            The serialized answer.

        Raises:
            CoreApiError: The core refused the call, cannot be reached, or did not answer in time.
        """
        end = time.monotonic() + deadline_seconds
        while True:
            if self._client is None:
                self._client = SingleCallClient(self.socket_path)
            answer = await self._client.call(path, request, end - time.monotonic())
            if not isinstance(answer, Failure):
                return answer
            error = from_failure(answer)
            left = end - time.monotonic()
            if not wait_for_ready or error.kind is not ErrorKind.UNAVAILABLE or left <= 0:
                raise error
            await asyncio.sleep(min(_AGAIN_SECONDS, left))

    async def wait_served(self, deadline_seconds: float) -> None:
        """Wait until somebody takes connections on the socket, or the deadline is over."""
        end = time.monotonic() + deadline_seconds
        while not is_served(self.socket_path) and time.monotonic() < end:  # noqa: ASYNC110 - another process
            await asyncio.sleep(_SERVED_POLL_SECONDS)


def decode_answer(kind: type[_MessageT], answer: bytes) -> _MessageT:
    """Decode an answer of the core. Raises CoreApiError when it is no message of this kind."""
    try:
        return kind.FromString(answer)
    except DecodeError:
        raise CoreApiError(f"the core's answer is no {kind.__name__}", ErrorKind.REFUSED) from None
