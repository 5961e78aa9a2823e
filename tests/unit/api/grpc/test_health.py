"""The health service's handlers, called without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from pgnode.api.grpc import health

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class Context:
    """Takes states, and can be waited on."""

    def __init__(self) -> None:
        self.states: asyncio.Queue[bytes] = asyncio.Queue()
        self.refused: list[Any] = []

    async def write(self, state: bytes) -> None:
        self.states.put_nowait(state)

    async def abort(self, *told: Any) -> None:
        self.refused.append(told)
        raise RuntimeError("aborted")


def handler(name: str, handlers: dict[str, Any]) -> Any:
    return handlers[f"/{health.SERVICE}/{name}"]


async def test_the_worker_is_asked_for_every_answer() -> None:
    serving = [True]
    check = handler("Check", health.handlers(lambda: serving[0])).stream_unary
    assert await check(None, None) == SERVING
    serving[0] = False
    assert await check(None, None) == NOT_SERVING
    assert health_pb2.HealthCheckResponse.FromString(NOT_SERVING).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_who_watches_is_told_of_changes() -> None:
    serving = [True]
    context = Context()
    watching = asyncio.create_task(handler("Watch", health.handlers(lambda: serving[0])).stream_stream(None, context))
    async with asyncio.timeout(10):
        assert await context.states.get() == SERVING
        serving[0] = False
        assert await context.states.get() == NOT_SERVING
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_watchers_are_few() -> None:
    watch = handler("Watch", health.handlers(lambda: True)).stream_stream
    contexts = [Context() for _ in range(health.WATCHERS_MAX)]
    watching = [asyncio.create_task(watch(None, context)) for context in contexts]
    for context in contexts:
        await context.states.get()
    late = Context()
    with pytest.raises(RuntimeError, match="aborted"):
        await watch(None, late)
    [(_, text, _)] = late.refused
    assert text.startswith("too many health watchers")
    for task in watching:
        task.cancel()
    await asyncio.wait(watching)
