"""The connection to the core's gRPC API, on its unix socket: one call, bytes in and out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from pgnode.os_support.unix_sockets import is_served
from pgnode.xray.client.errors import CoreApiError, ErrorKind, from_rpc_error

_MessageT = TypeVar("_MessageT", bound=Message)

#: Bytes of an answer that the client accepts: statistics of 100,000 users are 10 MB.
MAX_RECEIVE_BYTES: Final = 64 * 1024 * 1024
#: Bytes of a request that the core accepts: grpc-go's default of 4 MiB, less some room for what encloses the users.
MAX_SEND_BYTES: Final = 4 * 1024 * 1024 - 64 * 1024

_CHANNEL_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_RECEIVE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # Each core run gets a channel of its own, untouched by the connection back-off of an earlier one.
    ("grpc.use_local_subchannel_pool", 1),
    # The socket appears about 0.1 s after the core was started.
    ("grpc.initial_reconnect_backoff_ms", 10),
    # In spite of its name the time one attempt to connect has: a busy core answers late.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 100),
)

#: Seconds between two tries whether a core that starts takes connections; one try takes 10 µs.
_SERVED_POLL_SECONDS: Final = 0.005


class CoreChannel:
    """Calls of any method of the core's API. Belongs to the event loop of its first call; ``aclose`` it there."""

    def __init__(self, socket_path: Path | str) -> None:
        self.socket_path = str(socket_path)
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<CoreChannel {self.socket_path} {'idle' if self._channel is None else 'open'}>"

    async def aclose(self) -> None:
        """Close the channel; calls under way end as unavailable."""
        channel, self._channel = self._channel, None
        self._methods.clear()
        if channel is not None:
            await channel.close(None)

    async def call(self, path: str, request: bytes, deadline_seconds: float, *, wait_for_ready: bool = False) -> bytes:
        """Call a method of the core's API.

        Args:
            path: The method, "/package.Service/Method".
            request: The serialized request.
            deadline_seconds: Seconds until the call is given up.
            wait_for_ready: Wait for a connection instead of failing without one.

        Returns:
            The serialized answer.

        Raises:
            CoreApiError: The core refused the call, cannot be reached, or did not answer in time.
        """
        try:
            answer: bytes = await self._method(path)(
                request, timeout=max(deadline_seconds, 0.0), wait_for_ready=wait_for_ready
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise CoreApiError(f"the channel to the core is closed: {error}", ErrorKind.UNAVAILABLE) from None
        except asyncio.CancelledError:
            # grpc cancels the calls of a channel that is closed; the caller of this one was not cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise CoreApiError("the channel to the core was closed", ErrorKind.UNAVAILABLE) from None
        return answer

    def _method(self, path: str) -> Any:
        """Return the callable of one method, bytes in and out; made here since grpc objects belong to the running loop."""
        method = self._methods.get(path)
        if method is None:
            if self._channel is None:
                self._channel = grpc.aio.insecure_channel(f"unix:{self.socket_path}", options=_CHANNEL_OPTIONS)
            method = self._methods[path] = self._channel.unary_unary(path, None, None)
        return method

    async def wait_served(self, deadline_seconds: float) -> None:
        """Wait until somebody takes connections on the socket, or the deadline is over.

        A channel whose first attempt fails makes a pause of 0.1 s; this notices at once.
        """
        end = time.monotonic() + deadline_seconds
        while not is_served(self.socket_path) and time.monotonic() < end:  # noqa: ASYNC110 - another process
            await asyncio.sleep(_SERVED_POLL_SECONDS)


def decode_answer(kind: type[_MessageT], answer: bytes) -> _MessageT:
    """Decode an answer of the core. Raises CoreApiError when it is no message of this kind."""
    try:
        return kind.FromString(answer)
    except DecodeError:
        raise CoreApiError(f"the core's answer is no {kind.__name__}", ErrorKind.REFUSED) from None
