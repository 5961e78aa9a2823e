"""How a gRPC worker leaves: new connections are kept away, and a moment without a call is waited for."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from time import perf_counter
from unittest import mock

from structlog.testing import capture_logs

from pgnode.metrics.meter import OK, FaceMeter
from pgnode.worker import leaving
from pgnode.worker.leaving import let_arrive, no_call_runs

KEPT_AWAY_SECONDS = 0.3


async def connects(listener: socket.socket) -> bool:
    with socket.socket() as caller:
        caller.setblocking(False)
        try:
            async with asyncio.timeout(KEPT_AWAY_SECONDS):
                await asyncio.get_running_loop().sock_connect(caller, listener.getsockname())
        except TimeoutError:
            return False
        return True


async def test_nobody_new_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        assert await connects(listener)
        await let_arrive(listener.getsockname()[1], [ipaddress.ip_network("127.0.0.0/8")], 0)
        assert not await connects(listener)
        assert await connects(other)


async def test_where_the_kernel_takes_no_filter_it_says_so() -> None:
    refused = mock.patch.object(leaving, "restrict_listeners", side_effect=OSError("Protocol not available"))
    with refused, capture_logs() as lines:
        await let_arrive(1, [], 0)
    assert [line["error"] for line in lines] == ["Protocol not available"]


async def test_a_moment_without_a_call_is_waited_for() -> None:
    meter = FaceMeter(perf_counter)
    assert await no_call_runs(meter, 60)
    begun = meter.begin("current")
    waiting = asyncio.create_task(no_call_runs(meter, 60))
    done, _ = await asyncio.wait({waiting}, timeout=20 * leaving.QUIET_SECONDS)
    assert not done
    meter.end(meter.other, OK, begun)
    assert await waiting


async def test_calls_that_come_one_after_the_other_leave_no_such_moment() -> None:
    meter = FaceMeter(perf_counter)
    loop = asyncio.get_running_loop()

    def call() -> None:
        meter.end(meter.other, OK, meter.begin("current"))
        loop.call_soon(call)

    loop.call_soon(call)
    assert not await no_call_runs(meter, 20 * leaving.QUIET_SECONDS)


async def test_nobody_is_waited_for_without_time() -> None:
    meter = FaceMeter(perf_counter)
    meter.begin("current")
    assert not await no_call_runs(meter, -1)
