"""For tests of gRPC: a server that runs, and a caller with the key."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.grpc_node import GrpcNode
from tests.unit.api.grpc.stage import Server


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as running:
        yield running


@pytest_asyncio.fixture
async def caller(server: Server) -> AsyncIterator[GrpcNode]:
    async with server.caller() as one:
        yield one
