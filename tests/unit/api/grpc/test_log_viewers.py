"""Viewers of the log over gRPC, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pgnode.api.grpc.limits import ConcurrencyLimit
from pgnode.api.grpc.log_viewers import LogViewers
from pgnode.api.service.ports import LogEntry
from pgnode.errors import UnavailableError
from pgnode.wire import service_pb2 as pb


class Context:
    """Takes lines, and says when the first one came."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.began = asyncio.Event()

    async def write(self, message: bytes) -> None:
        self.lines.append(pb.Log.FromString(message).detail)
        self.began.set()


async def entries(*found: LogEntry, endless: bool = False) -> AsyncIterator[LogEntry]:
    for entry in found:
        yield entry
    if endless:
        await asyncio.Event().wait()


def viewers() -> LogViewers:
    return LogViewers(ConcurrencyLimit(3, "log viewers", "GRPC_MAX_STREAMS"))


async def test_lines_are_passed_on_without_heartbeats_and_as_text() -> None:
    context: Any = Context()
    await viewers().pass_on(entries(None, ("1-0", b"hello"), None, ("2-0", b"not \xff UTF-8")), context)
    assert context.lines == ["hello", "not \ufffd UTF-8"]


async def test_the_end_of_the_worker_is_told() -> None:
    context: Any = Context()
    watching = viewers()
    viewer = asyncio.create_task(watching.pass_on(entries(("1-0", b"hello"), endless=True), context))
    await context.began.wait()
    watching.end()
    with pytest.raises(UnavailableError, match="this worker is ending: open the log again"):
        await viewer
    assert repr(watching) == "LogViewers(0 of 3 log viewers)"


async def test_a_caller_that_goes_is_no_end_of_the_worker() -> None:
    context: Any = Context()
    viewer = asyncio.create_task(viewers().pass_on(entries(("1-0", b"hello"), endless=True), context))
    await context.began.wait()
    viewer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await viewer
