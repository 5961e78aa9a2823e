"""What other callers over gRPC see while one attacks: the 99th percentile of their calls' times, beside that in peace.

Attacker, caller and node share the machine: on two cores the attacker takes one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator

from bench.load import REPOSITORY, LoadResult, summarize
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below
from bench.scenarios.grpc import grpc_order, run_grpc_load
from bench.servers import node
from pgnode.testing.node import NodeProcess

#: Attack, whether with the key, and what the row says.
ATTACKS = (
    ("take_back", True, "calls taken back as fast as it goes"),
    ("take_back", False, "the same without the key"),
    ("call", False, "calls without the key, without waiting for answers"),
    ("ping", False, "a flood of PING"),
    ("settings", False, "a flood of SETTINGS"),
)
AIM_MS = 100.0
CHANNELS = 2
IN_FLIGHT = 4


@scenario("callers", "calls over gRPC while one caller attacks, beside those in peace", default=False)
async def callers(bench: Bench) -> AsyncGenerator[Row, None]:
    async with node(bench) as beside:
        bench.say("in peace")
        peace = summarize([await _load(bench, beside) for _ in range(bench.rounds)])
        for attack, with_key, what in ATTACKS:
            bench.say(what)
            rounds = []
            for _ in range(bench.rounds):
                async with _attacker(beside, attack, 4 * bench.seconds + 10, with_key=with_key):
                    rounds.append(await _load(bench, beside))
            found = summarize(rounds)
            yield Row(
                f"GetBaseInfo beside {what}",
                [Figure(found.p99_ms, "ms", "p99"), Figure(found.p50_ms, "ms", "p50")],
                [Figure(peace.p99_ms, "ms", "p99"), Figure(peace.p50_ms, "ms", "p50")],
                "in peace",
                below(found.p99_ms, AIM_MS, "ms"),
                note=found.faults,
            )


async def _load(bench: Bench, beside: NodeProcess) -> LoadResult:
    order = grpc_order(beside, beside.grpc_port, bench.seconds, "GetBaseInfo", channels=CHANNELS)
    return await run_grpc_load(order | {"in_flight": IN_FLIGHT, "body": ""})


@contextlib.asynccontextmanager
async def _attacker(beside: NodeProcess, attack: str, seconds: float, *, with_key: bool) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.hostile_process", attack, str(beside.grpc_port), str(seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(beside.api_key.encode() if with_key else b"")
        process.stdin.close()
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
