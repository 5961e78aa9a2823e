"""Bare AlterInbound calls on the core's socket, through the pipelined client and through ``grpc.aio``, nothing else running.

Both sides remove and add the same users of one inbound in the same core and take turns; a call is one removal or one
addition. The pipelined client is kept for being at least twice as fast.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path

import grpc
import grpc.aio

from bench.registry import Bench, scenario
from bench.report import Figure, Row, at_least
from bench.samples import median, turns
from bench.servers import bare_core
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.users import make_users
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.accounts import Account, user_message

USERS = 1_000
TAG = "VLESS"
DEADLINE_SECONDS = 30.0
#: From about 64 on, grpc.aio gets no faster.
GRPC_IN_FLIGHT = 128
AIM = 2.0


@scenario("transport", "bare AlterInbound calls: the pipelined client beside grpc.aio on the same core")
async def transport(bench: Bench) -> AsyncGenerator[Row, None]:
    api_part = {"tag": "api", "services": ["HandlerService", "StatsService"]}
    config = make_config([make_inbound(TAG, "vless")]) | {"api": api_part}
    operations = _operations()
    async with bare_core(config) as bare, CoreApi(bare.socket) as api, _channel(bare.socket) as alter:
        bench.say("AlterInbound, pipelined client and grpc.aio in turns")
        found: dict[str, list[float]] = {"pipelined": [], "grpc": []}
        for number, side in enumerate(turns(["pipelined", "grpc"], bench.rounds + 1)):
            calls, begun = 0, time.monotonic()
            while time.monotonic() - begun < bench.seconds / 2:
                for part in operations:
                    await (_pipelined(api, part) if side == "pipelined" else _by_grpc(alter, part))
                    calls += len(part)
            if number >= 2:  # the first of each side is for warming up
                found[side].append(calls / (time.monotonic() - begun))
    ours, other = median(found["pipelined"]), median(found["grpc"])
    yield Row(
        "AlterInbound, one inbound",
        [Figure(ours, "/s")],
        [Figure(other, "/s")],
        "grpc.aio",
        at_least(ours / other, AIM, "times grpc.aio"),
    )


async def bare_rate(bench: Bench) -> float:
    """Calls a second by the pipelined client, with nothing else running: what rates of changes are held against."""
    api_part = {"tag": "api", "services": ["HandlerService", "StatsService"]}
    config = make_config([make_inbound(TAG, "vless")]) | {"api": api_part}
    rates = []
    async with bare_core(config) as bare, CoreApi(bare.socket) as api:
        operations = _operations()
        for _round in range(bench.rounds + 1):
            calls, begun = 0, time.monotonic()
            while time.monotonic() - begun < bench.seconds / 2:
                for part in operations:
                    await _pipelined(api, part)
                    calls += len(part)
            rates.append(calls / (time.monotonic() - begun))
    return median(rates[1:])


def _operations() -> tuple[list[AlterOperation], list[AlterOperation]]:
    """Additions of all users, and their removals."""
    users = make_users(USERS, [TAG], name="transport")
    adds = [
        AlterOperation(TAG, user.email, user_message(user.email, Account("vless", user.proxies.vless.id)))
        for user in users
    ]
    return adds, [AlterOperation(TAG, user.email) for user in users]


async def _pipelined(api: CoreApi, operations: Sequence[AlterOperation]) -> None:
    failed = [error for error in await api.users.alter_many(operations, DEADLINE_SECONDS) if error is not None]
    if failed:
        raise failed[0]


async def _by_grpc(alter: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], operations: Sequence[AlterOperation]) -> None:
    waiting = iter(operations)

    async def work() -> None:
        for operation in waiting:
            await alter(operation.request(), timeout=DEADLINE_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(GRPC_IN_FLIGHT):
            group.create_task(work())


@contextlib.asynccontextmanager
async def _channel(socket: Path) -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]]:
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=[("grpc.enable_retries", 0)]) as channel:
        yield channel.unary_unary("/xray.app.proxyman.command.HandlerService/AlterInbound", None, None)
