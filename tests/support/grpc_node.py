"""A caller of ``service.NodeService`` over gRPC, for tests: messages in and out, the key in either form."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal

import grpc
from google.protobuf.message import Message
from grpc import aio
from grpc_health.v1 import health_pb2

from pgnode.api.grpc.errors import CODE_KEY
from pgnode.api.methods import METHODS
from pgnode.wire import service_pb2 as pb

BY_NAME = {row.grpc_name: row for row in METHODS}

Metadata = tuple[tuple[str, str], ...]


def key_metadata(key: str, form: Literal["x-api-key", "bearer"] = "x-api-key") -> Metadata:
    return (("x-api-key", key),) if form == "x-api-key" else (("authorization", f"Bearer {key}"),)


#: Tries of a call whose connection is closed by its worker.
TRIES = 5


async def asked_again(call: Callable[[], Awaitable[object]]) -> None:
    """Make a call, and make it again where its worker closes the connection in that very moment.

    The library cancels a call that arrives between the beginning of its server's end and the caller's knowledge of that: no
    handler has seen it (grpcio 1.85). The tries follow at once, so that they fail where nobody serves.
    """
    for _ in range(TRIES - 1):
        try:
            await call()
        except aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE):
                raise
        else:
            return
    await call()


class GrpcNode:
    """One channel. ``async with`` closes it."""

    def __init__(
        self, address: str, key: str, certificate: bytes | None = None, *, options: Sequence[tuple[str, int]] = ()
    ) -> None:
        # Each has a connection of its own, and says so at once when it cannot have one.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), *options]
        # The stubs want serializers; messages are bytes here.
        self.channel: Any = (
            aio.insecure_channel(address, options=options)
            if certificate is None
            else aio.secure_channel(address, grpc.ssl_channel_credentials(certificate), options=options)
        )
        self.metadata: Metadata = key_metadata(key)

    async def __aenter__(self) -> GrpcNode:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def call(
        self,
        name: str,
        message: Message | bytes = b"",
        *,
        metadata: Metadata | None = None,
        timeout_seconds: float | None = 60,
    ) -> Any:
        """A call with one message, and its response. Raises aio.AioRpcError."""
        body = message if isinstance(message, bytes) else message.SerializeToString()
        method = self.channel.unary_unary(f"/service.NodeService/{name}")
        answer = await method(body, metadata=self.metadata if metadata is None else metadata, timeout=timeout_seconds)
        row = BY_NAME.get(name)
        return (row.response if row is not None else pb.Empty).FromString(answer)

    async def stream(
        self,
        name: str,
        messages: Iterable[Message | bytes] | AsyncIterable[bytes],
        *,
        timeout_seconds: float | None = 60,
    ) -> Any:
        """A call with a stream of messages. Raises aio.AioRpcError."""
        bodies = (
            messages
            if isinstance(messages, AsyncIterable)
            else iter([m if isinstance(m, bytes) else m.SerializeToString() for m in messages])
        )
        method = self.channel.stream_unary(f"/service.NodeService/{name}")
        await method(bodies, metadata=self.metadata, timeout=timeout_seconds)

    def logs(self) -> Any:
        """The log: an aio.UnaryStreamCall whose messages are bytes of Log."""
        return self.channel.unary_stream("/service.NodeService/GetLogs")(b"", metadata=self.metadata)

    async def health(self, service: str = "") -> int:
        """The status in the answer of the health service."""
        method = self.channel.unary_unary("/grpc.health.v1.Health/Check")
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        answer = await method(request, metadata=self.metadata, timeout=30)
        return int(health_pb2.HealthCheckResponse.FromString(answer).status)


def code_of(error: aio.AioRpcError) -> str:
    """The ERROR_CODE that came with it."""
    trailing: Any = error.trailing_metadata() or ()
    return next((str(value) for key, value in trailing if key == CODE_KEY), "")
