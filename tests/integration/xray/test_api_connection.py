"""The client of the core's API where there is no core, or one that dies or hangs."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import grpc
import pytest

from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind, classify
from pgnode.xray.config.protocols import ACCOUNT_KINDS, KINDS_BY_SETTINGS
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.proto import (
    stats_command_pb2,
)
from tests.integration.xray.conftest import DEADLINE_SECONDS, StartCore, api_part
from tests.integration.xray.plain_core import kind_of, plain_config
from tests.support.polling import next_turn
from tests.support.processes import stop


async def test_a_core_that_is_not_there(run_dir: Path, api: CoreApi) -> None:
    assert await kind_of(api.stats.sys_stats(DEADLINE_SECONDS)) is ErrorKind.UNAVAILABLE
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await kind_of(api.wait_ready(0.3)) is ErrorKind.DEADLINE


async def test_a_core_that_dies_and_one_that_hangs(run_dir: Path, start_core: StartCore, api: CoreApi) -> None:
    running = await start_core(EmbeddedCore(), json.dumps(plain_config(run_dir)), run_dir)
    await api.wait_ready(DEADLINE_SECONDS)
    await stop(running.pid)
    assert await kind_of(api.stats.sys_stats(0.2)) is ErrorKind.DEADLINE
    running.send_signal(signal.SIGKILL)
    assert await kind_of(api.stats.sys_stats(DEADLINE_SECONDS)) is ErrorKind.UNAVAILABLE
    with pytest.raises(CoreApiError):
        await api.swap.replace_users("in", [], DEADLINE_SECONDS)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (grpc.StatusCode.UNKNOWN, "proxy/vless: User a@x already exists.", ErrorKind.ALREADY_EXISTS),
        (grpc.StatusCode.UNKNOWN, "proxy/shadowsocks_2022: user a@x already exists", ErrorKind.ALREADY_EXISTS),
        (grpc.StatusCode.UNKNOWN, "proxy/trojan: User a@x not found.", ErrorKind.NOT_FOUND),
        (grpc.StatusCode.UNKNOWN, "a > app/proxyman/inbound: handler not found: not found", ErrorKind.NO_HANDLER),
        (grpc.StatusCode.UNKNOWN, "proxy/trojan: Email must not be empty.", ErrorKind.REFUSED),
        (grpc.StatusCode.UNIMPLEMENTED, "unknown service", ErrorKind.REFUSED),
        (grpc.StatusCode.CANCELLED, "", ErrorKind.UNAVAILABLE),
    ],
)
def test_classification(code: grpc.StatusCode, text: str, kind: ErrorKind) -> None:
    assert classify(code.value[0], text) is kind


def test_messages_have_the_names_of_the_core() -> None:
    names = {kind.users.message.DESCRIPTOR.full_name for kind in ACCOUNT_KINDS.values()}
    assert names == set(KINDS_BY_SETTINGS)
    assert stats_command_pb2.SysStatsResponse.DESCRIPTOR.full_name == "xray.app.stats.command.SysStatsResponse"


async def test_a_call_under_way_when_the_client_is_closed_is_unavailable(run_dir: Path, start_core: StartCore) -> None:
    """grpc cancels it, which must not pass for a cancellation of whoever made the call."""
    running = await start_core(
        EmbeddedCore(), json.dumps({**api_part(run_dir), "outbounds": [{"protocol": "freedom"}]}), run_dir
    )
    api = CoreApi(running.socket_path)
    await api.stats.sys_stats(DEADLINE_SECONDS)
    await stop(running.pid)
    try:
        call = asyncio.create_task(api.stats.sys_stats(DEADLINE_SECONDS))
        await next_turn()
        await api.aclose()
        with pytest.raises(CoreApiError) as caught:
            await call
        assert caught.value.kind is ErrorKind.UNAVAILABLE
        cancelled = asyncio.create_task(api.stats.sys_stats(DEADLINE_SECONDS))
        await next_turn()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    finally:
        running.send_signal(signal.SIGCONT)
        await api.aclose()
