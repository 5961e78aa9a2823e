"""One call to the core: its answer, its deadline, and a core that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pgnode.xray.client.channel import CoreChannel, decode_answer
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse
from tests.support.polling import eventually, next_turn
from tests.unit.xray.client.builders import DEADLINE_SECONDS
from tests.unit.xray.fake_core import FakeCore, Refusal

PATH = "/xray.app.stats.command.StatsService/GetSysStats"


async def test_bytes_in_and_out(fake: FakeCore) -> None:
    fake.answers[PATH] = lambda request: request + b"!"
    channel = CoreChannel(fake.socket_path)
    assert "idle" in repr(channel)
    assert await channel.call(PATH, b"request", DEADLINE_SECONDS) == b"request!"
    assert "open" in repr(channel)
    await channel.aclose()
    await channel.aclose()
    assert await channel.call(PATH, b"again", DEADLINE_SECONDS) == b"again!", "a closed channel opens anew"
    await channel.aclose()


async def test_the_sentence_of_the_core_is_the_error(fake: FakeCore) -> None:
    def refuse(_request: bytes) -> bytes:
        raise Refusal("proxy/vless: User a already exists.")

    fake.answers[PATH] = refuse
    channel = CoreChannel(fake.socket_path)
    with pytest.raises(CoreApiError, match="User a already exists") as caught:
        await channel.call(PATH, b"", DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    await channel.aclose()


async def test_no_answer_in_time(fake: FakeCore) -> None:
    fake.awake.clear()
    channel = CoreChannel(fake.socket_path)
    with pytest.raises(CoreApiError) as caught:
        await channel.call(PATH, b"", 0.05)
    assert caught.value.kind is ErrorKind.DEADLINE
    await channel.aclose()


async def test_no_core(tmp_path: Path) -> None:
    channel = CoreChannel(tmp_path / "none.sock")
    with pytest.raises(CoreApiError) as caught:
        await channel.call(PATH, b"", DEADLINE_SECONDS)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    await channel.wait_served(0.02)
    await channel.aclose()


async def test_a_call_under_way_when_the_channel_is_closed_is_unavailable(fake: FakeCore) -> None:
    fake.awake.clear()
    channel = CoreChannel(fake.socket_path)
    call = asyncio.create_task(channel.call(PATH, b"", DEADLINE_SECONDS))
    await eventually(lambda: fake.calls, "the call has reached the core")
    await channel.aclose()
    with pytest.raises(CoreApiError) as caught:
        await call
    assert caught.value.kind is ErrorKind.UNAVAILABLE


async def test_a_caller_that_is_cancelled_stays_cancelled(fake: FakeCore) -> None:
    fake.awake.clear()
    channel = CoreChannel(fake.socket_path)
    call = asyncio.create_task(channel.call(PATH, b"", DEADLINE_SECONDS))
    await eventually(lambda: fake.calls, "the call has reached the core")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await channel.aclose()


async def test_waiting_for_a_core_that_comes_up(fake: FakeCore) -> None:
    await fake.stop()
    channel = CoreChannel(fake.socket_path)
    waiting = asyncio.create_task(channel.wait_served(DEADLINE_SECONDS))
    await next_turn()
    assert not waiting.done()
    await fake.start()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await waiting
    await channel.aclose()


async def test_a_path_that_no_socket_can_have() -> None:
    await CoreChannel("/" + "x" * 200).wait_served(0.0)


def test_an_answer_of_another_kind() -> None:
    with pytest.raises(CoreApiError, match="no SysStatsResponse"):
        decode_answer(SysStatsResponse, b"\xff")
