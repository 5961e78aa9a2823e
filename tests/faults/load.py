"""Callers that go on while something happens: over REST, on kept and on new connections, and over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from grpc import StatusCode, aio

from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.processes import command_line, tree
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb
from tests.faults.checker import Record
from tests.faults.conftest import TAGS, Load, Stage
from tests.support.grpc_node import GrpcNode
from tests.support.polling import pause

CALLERS = 30

#: By itself a channel waits for ever longer before it connects again.
GRPC_OPTIONS = (("grpc.max_reconnect_backoff_ms", 500),)


def grpc_pids(node: NodeProcess) -> list[int]:
    """The gRPC workers."""
    return [p.pid for p in tree(node.pid) if "pgnode.worker.grpc_worker" in command_line(p)]


def caller_email(number: int) -> str:
    """The user that a caller changes."""
    return f"user{number}@demo"


@contextlib.asynccontextmanager
async def under_load(stage: Stage, *, before: int = 100, after: int = 60) -> AsyncIterator[Load]:
    """So many changes of 30 callers are answered before what happens in the context, and after it; then all has to be well."""
    await stage.begin(make_users(CALLERS, TAGS))
    async with stage.callers(CALLERS, caller_email) as load:
        await load.progress(before)
        yield load
        await load.progress(after)
    await stage.check()


class GrpcCaller:
    """Changes users over gRPC, for a :class:`~tests.faults.checker.Record`."""

    def __init__(self, node: GrpcNode) -> None:
        self._node = node

    async def sync_user(self, user: pb.User) -> None:
        """Add, change or remove a user. NoAnswerError when nobody knows whether that was done."""
        try:
            await self._node.stream("SyncUser", [user])
        except aio.AioRpcError as error:
            if error.code() not in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED):
                raise
            raise NoAnswerError(str(error.details())) from error


@contextlib.asynccontextmanager
async def grpc_callers(stage: Stage, count: int) -> AsyncIterator[Load]:
    """So many callers over gRPC, each on a connection of its own, whose changes count as the stage's own."""
    node, tasks = stage.node, []
    certificate = await asyncio.to_thread(node.ca_file.read_bytes)
    async with contextlib.AsyncExitStack() as channels:
        load = Load(stage.record, count, caller_email)
        for number in range(count):
            address = f"{node.host}:{node.grpc_port}"
            caller = GrpcCaller(
                await channels.enter_async_context(GrpcNode(address, node.api_key, certificate, options=GRPC_OPTIONS))
            )
            record = Record(cast(Any, caller), stage.record.initial, stage.record.calls, stage.record.unexpected)
            tasks.append(asyncio.create_task(load.run(number, record)))
        try:
            yield load
        finally:
            load.end.set()
            await asyncio.gather(*tasks)


class Newcomers:
    """Callers that make a new connection for every call, and send none of them twice."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self.answered = 0
        self.failed: list[str] = []

    def went_on(self, answered: int) -> bool:
        """Whether more calls than these were answered, or one has failed."""
        return self.answered > answered or bool(self.failed)

    async def _call_on(self, end: asyncio.Event) -> None:
        while not end.is_set():
            try:
                async with self._node.panel() as panel:
                    await panel.info()
                self.answered += 1
            except (PanelError, NoAnswerError, OSError) as error:
                self.failed.append(repr(error))
            await pause()


@contextlib.asynccontextmanager
async def newcomers(node: NodeProcess, count: int) -> AsyncIterator[Newcomers]:
    """So many of them, until the context ends."""
    end, made = asyncio.Event(), Newcomers(node)
    tasks = [asyncio.create_task(made._call_on(end)) for _ in range(count)]
    try:
        yield made
    finally:
        end.set()
        await asyncio.gather(*tasks)
