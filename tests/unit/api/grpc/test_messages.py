"""Reading what callers send, within limits of time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgnode.api.grpc.messages import MessageReader
from pgnode.api.service.deadline import remaining
from pgnode.errors import DeadlineExceededError, InvalidRequestError


class Context:
    """A call whose caller sends ``messages`` and then ends its stream, or is silent."""

    def __init__(self, *messages: bytes, silent: bool = False, time_remaining: float | None = None) -> None:
        self._messages = list(messages)
        self._silent = silent
        self._time_remaining = time_remaining

    async def read(self) -> Any:
        if self._messages:
            return self._messages.pop(0)
        if self._silent:
            await asyncio.Event().wait()
        return object()  # the library's EOF

    def time_remaining(self) -> float | None:
        return self._time_remaining


async def read_all(reader: MessageReader, context: Any) -> list[bytes]:
    return [message async for message in reader.read_all(context)]


async def test_one_message_and_the_callers_deadline() -> None:
    context: Any = Context(b"one", time_remaining=100.0)

    async def call() -> None:
        assert await MessageReader(5).read_one(context, "User") == b"one"
        assert remaining(500.0) <= 100.0

    await asyncio.create_task(call())


async def test_all_messages_and_the_callers_deadline() -> None:
    async def call() -> None:
        assert await read_all(MessageReader(5), Context(b"a", b"b", time_remaining=100.0)) == [b"a", b"b"]
        assert remaining(500.0) <= 100.0

    await asyncio.create_task(call())
    assert await read_all(MessageReader(5), Context()) == []


async def test_no_message_is_no_call() -> None:
    context: Any = Context()
    with pytest.raises(InvalidRequestError, match="no message: send one User, an empty one for its defaults"):
        await MessageReader(5).read_one(context, "User")


async def test_a_silent_caller_is_not_waited_for() -> None:
    reader = MessageReader(0.01)
    context: Any = Context(silent=True)
    for reading in (reader.read_one(context, "User"), read_all(reader, context)):
        with pytest.raises(DeadlineExceededError, match=r"no message came within 0\.01 s"):
            await reading


async def test_a_stream_may_not_last_for_ever() -> None:
    reader = MessageReader(5, stream_seconds=-1.0)
    with pytest.raises(DeadlineExceededError, match="the stream has lasted"):
        await read_all(reader, Context(b"a"))
