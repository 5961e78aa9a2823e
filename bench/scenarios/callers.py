"""What other callers see while one attacks: the 99th percentile of their calls' times, beside that in peace.

An attacker is on another machine, and what it costs the node is what it sends. So the node has the first half of the processors
to itself, the attacker and the other callers share the rest, and the other callers go first there. How much of a processor the
attacker had, how many connections it made and how much it sent stands in the row.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from bench.load import REPOSITORY, LoadError, LoadResult, Requests, Side, run_load, summarize
from bench.registry import Bench, scenario
from bench.report import Figure, Row, below
from bench.samples import median
from bench.scenarios.grpc import grpc_order, run_grpc_load
from bench.scenarios.reads import TAG, USERS, fill_books, request_bytes
from bench.servers import node
from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_users

GRPC, REST = "GetBaseInfo over gRPC", "GET /info"
#: What slow readers ask for.
LARGE_ANSWER = f"the statistics of {USERS:,} users"


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack: its name in :mod:`bench.hostile_process`, whom it is aimed at, and what the row says of it."""

    name: str
    face: str
    what: str
    with_key: bool = False


ATTACKS = (
    Attack("take_back", GRPC, "calls taken back as fast as it goes", with_key=True),
    Attack("take_back", GRPC, "the same without the key"),
    Attack("call", GRPC, "calls without the key, without waiting for answers"),
    Attack("ping", GRPC, "a flood of PING"),
    Attack("settings", GRPC, "a flood of SETTINGS"),
    Attack("continuation", GRPC, "headers that never end"),
    Attack("handshakes", GRPC, "TLS handshakes, 16 at once"),
    Attack("requests", REST, "requests without the key, 50 on each of 16 connections at a time"),
    Attack("handshakes", REST, "TLS handshakes, 16 at once"),
    Attack("many_messages", GRPC, "4 streams of small messages without end, with the key", with_key=True),
    Attack("large_messages", GRPC, "messages of 32 MiB of 4 callers with the key", with_key=True),
    Attack("slow_streams", GRPC, f"50 callers who take a byte a second of {LARGE_ANSWER}", with_key=True),
    Attack("slow_readers", REST, f"50 callers who take a byte a second of {LARGE_ANSWER}", with_key=True),
)
AIM_MS = 100.0
CHANNELS = 2
IN_FLIGHT = 4
#: How much less than others an attacker is given of the processors that it shares with the other callers.
NICE = 10
#: For the attack to be under way.
UNDER_WAY_SECONDS = 0.5

Load = Callable[[], Awaitable[LoadResult]]


@scenario("callers", "calls while one caller attacks, beside those in peace", default=False, timeout_seconds=600.0)
async def callers(bench: Bench) -> AsyncGenerator[Row, None]:
    all_cores = sorted(os.sched_getaffinity(0))
    half = len(all_cores) // 2
    of_node, of_callers = (all_cores[:half], all_cores[half:]) if half else (all_cores, all_cores)
    bench.facts["processors"] = f"{len(of_node)} for the node, {len(of_callers)} for attacker and callers"
    async with contextlib.AsyncExitStack() as stack:
        with _on(of_node):
            beside = await stack.enter_async_context(node(bench))
            # Statistics that are large, and a core that runs: changes of those who hold the key have an effect.
            await fill_books(bench, beside, make_users(USERS, [TAG]))
        stack.enter_context(_on(of_callers))
        async with beside.panel() as panel:
            requests = stack.enter_context(Requests([request_bytes(panel, "/info", None)]))
        loads: dict[str, Load] = {
            GRPC: lambda: _grpc_load(bench, beside),
            REST: lambda: run_load(Side(beside.port, requests), connections=IN_FLIGHT, seconds=bench.seconds),
        }
        bench.say("in peace")
        peace = {face: summarize([await load() for _ in range(bench.rounds)]) for face, load in loads.items()}
        for attack in ATTACKS:
            bench.say(f"{attack.face} beside {attack.what}")
            rounds, attackers = [], []
            for _ in range(bench.rounds):
                async with _attacker(beside, attack, 4 * bench.seconds + 60) as attacker:
                    rounds.append(await loads[attack.face]())
                attackers.append(attacker)
            found, before = summarize(rounds), peace[attack.face]
            yield Row(
                f"{attack.face} beside {attack.what}",
                [
                    Figure(found.p99_ms, "ms", "p99"),
                    Figure(found.p50_ms, "ms", "p50"),
                    Figure(median(one.share * 100 for one in attackers), "%", "attacker"),
                    Figure(median(one.connections_per_second for one in attackers), "connections/s"),
                    Figure(median(one.megabytes_per_second for one in attackers), "MB/s"),
                ],
                [Figure(before.p99_ms, "ms", "p99"), Figure(before.p50_ms, "ms", "p50")],
                "in peace",
                below(found.p99_ms, AIM_MS, "ms"),
                note=found.faults,
            )


@contextlib.contextmanager
def _on(cores: list[int]) -> Iterator[None]:
    """Start what is started within on these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def _grpc_load(bench: Bench, beside: NodeProcess) -> LoadResult:
    order = grpc_order(beside, beside.grpc_port, bench.seconds, "GetBaseInfo", channels=CHANNELS)
    return await run_grpc_load(order | {"in_flight": IN_FLIGHT, "body": ""})


@dataclass
class Attacker:
    """What an attacker did."""

    share: float = 0.0
    connections_per_second: float = 0.0
    megabytes_per_second: float = 0.0


@contextlib.asynccontextmanager
async def _attacker(beside: NodeProcess, attack: Attack, seconds: float) -> AsyncIterator[Attacker]:
    port = beside.grpc_port if attack.face == GRPC else beside.port
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", str(NICE), sys.executable, "-m", "bench.hostile_process", attack.name, str(port), str(seconds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Its connections are ended under it, at any moment; the libraries complain of that.
        stderr=asyncio.subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    made, begun = Attacker(), time.monotonic()
    try:
        assert process.stdin is not None
        process.stdin.write(beside.api_key.encode() if attack.with_key else b"")
        process.stdin.close()
        await asyncio.sleep(UNDER_WAY_SECONDS)
        yield made
        process.terminate()
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
        elapsed = time.monotonic() - begun
        if not output:
            raise LoadError(f"the attacker {attack.name} ended too early")
        told = json.loads(output)
        made.share = told["cpu_seconds"] / elapsed
        made.connections_per_second = told["connections"] / elapsed
        made.megabytes_per_second = told["bytes"] / elapsed / 1e6
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
