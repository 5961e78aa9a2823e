"""Statistics with reset over gRPC: whether the answer counts as delivered, on a real server and a real client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpc import StatusCode, aio

from pgnode.api.grpc.handlers import SERVICE, GrpcHandlers
from pgnode.errors import CoreUnavailableError
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually
from tests.unit.api.fakes import Node

KEY = str(uuid.uuid4())
REQUEST = pb.StatRequest(type=pb.UsersStat, reset=True).SerializeToString()


@asynccontextmanager
async def calling(node: Node) -> AsyncIterator[aio.UnaryUnaryMultiCallable[bytes, bytes]]:
    """``GetStats`` of a server of its own, on loopback without TLS."""
    server = aio.server()
    handlers = GrpcHandlers(node.service(), api_key=KEY, body_timeout_seconds=30.0, max_calls=10, max_streams=10)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.unary_unary(f"/{SERVICE}/GetStats", request_serializer=bytes, response_deserializer=bytes)
    finally:
        await server.stop(0)


async def test_a_call_that_ended_well_was_delivered() -> None:
    node = Node()
    node.commands.reply = b"stats"
    async with calling(node) as call:
        assert await call(REQUEST, metadata=(("x-api-key", KEY),), timeout=30) == b"stats"
        await eventually(lambda: node.commands.settled == [True], "delivery is told")


async def test_a_call_whose_caller_would_not_take_the_answer_was_not() -> None:
    """A client takes messages of 4 MiB unless told otherwise: it learns the size from the first bytes, and resets the call."""
    node = Node()
    node.commands.reply = bytes(32 * 1024 * 1024)
    async with calling(node) as call:
        with pytest.raises(aio.AioRpcError) as refused:
            await call(REQUEST, metadata=(("x-api-key", KEY),), timeout=30)
        assert refused.value.code() is StatusCode.RESOURCE_EXHAUSTED
        await eventually(lambda: node.commands.settled == [False], "loss is told")


async def test_what_the_supervisor_refused_is_nothing_to_deliver() -> None:
    node = Node()
    node.commands.error = CoreUnavailableError("no")
    async with calling(node) as call:
        with pytest.raises(aio.AioRpcError) as refused:
            await call(REQUEST, metadata=(("x-api-key", KEY),), timeout=30)
        assert refused.value.code() is StatusCode.UNAVAILABLE
        assert node.commands.settled == []
