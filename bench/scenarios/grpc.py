"""gRPC: reads beside a bare ``grpc.aio`` server, and the ways of sending users beside those over REST.

The load generator is a ``grpc.aio`` client in a process of its own, the same for both sides. It costs about as much as the
server, so on few cores it is half of what is measured: the ratio counts, not the rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from bench.load import LENGTH, REPOSITORY, LoadError, LoadResult, Requests, Side, Summary, compare, run_load, summarize
from bench.registry import Bench, scenario
from bench.report import Figure, Row, at_least
from bench.samples import median, turns
from bench.scenarios.reads import AIM, TAG, fill_books
from bench.scenarios.reads import USERS as READ_USERS
from bench.scenarios.sync import sync_requests
from bench.servers import SideFailedError, node, started
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.ports import free_port
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb

CHANNELS = (1, 8)
IN_FLIGHT = 32
#: Of the usual time: there are four rows of reads, and their ratio settles soon.
READS_SHARE = 0.6
#: Users of the rows about single changes, and messages of one stream: what the panel's client sends at once.
STREAMED_USERS, USERS_PER_STREAM, STREAMS = 5_000, 100, 4
CHUNKED_USERS = 10_000
USERS_PER_CHUNK = 100
WARM_UP_SECONDS = 0.3
#: Start and end of a process.
PROCESS_SECONDS = 30.0


@scenario("grpc", "gRPC reads beside a bare grpc.aio server; users over gRPC beside REST", timeout_seconds=200.0)
async def grpc_faces(bench: Bench) -> AsyncGenerator[Row, None]:
    async with node(bench) as beside:
        async for row in _reads(bench, beside):
            yield row
        bench.say(f"starting it with {STREAMED_USERS + CHUNKED_USERS:,} users")
        everybody = make_users(STREAMED_USERS, [TAG], name="one") + make_users(CHUNKED_USERS, [TAG], name="many")
        async with beside.panel() as panel:
            await started(bench, panel, make_config([make_inbound(TAG, "vless")]), everybody)
            yield await _single_changes(bench, beside, panel)
            yield await _chunks(bench, beside, panel)
    yield await _idle_workers(bench)


async def _reads(bench: Bench, beside: NodeProcess) -> AsyncGenerator[Row, None]:
    users = make_users(READ_USERS, [TAG])
    await fill_books(bench, beside, users)
    one_user = pb.StatRequest(type=pb.UserStat, name=users[READ_USERS // 2].email).SerializeToString()
    calls = {"GetBackendStats": b"", "GetStats": one_user}
    async with _channel(beside) as channel:
        answers = {name: await _answer(channel, beside, name, body) for name, body in calls.items()}
    async with bare_server(beside, {_path(name): body for name, body in answers.items()}) as bare_port:
        for name, body in calls.items():
            for channels in CHANNELS:
                bench.say(f"{name}, {channels} channels")
                orders = {
                    side: grpc_order(beside, port, bench.seconds * READS_SHARE, name, channels=channels)
                    | {"body": body.hex()}
                    for side, port in (("pgnode", beside.grpc_port), ("bare", bare_port))
                }
                found = await _compare(orders, bench.rounds)
                row = Row(name, found["pgnode"].figures, found["bare"].figures)
                yield Row(
                    f"{name}{', one user' if body else ''} ({len(answers[name])} bytes), {channels} channels",
                    row.ours,
                    row.other,
                    "bare grpc.aio",
                    at_least(row.ratio, AIM, "of the bare server"),
                    note="; ".join(filter(None, (found["pgnode"].faults, found["bare"].faults))),
                )


async def _single_changes(bench: Bench, beside: NodeProcess, panel: PanelClient) -> Row:
    """Every user has another key in each pass over the list, and each side its own two keys."""
    bench.say("SyncUser beside PUT /user/sync")

    def passes(*keys: str) -> list[pb.User]:
        return [user for key in keys for user in make_users(STREAMED_USERS, [TAG], name="one", key=key)]

    results: dict[str, list[LoadResult]] = {"stream": [], "put": []}
    with (
        tempfile.TemporaryDirectory(prefix="pgnbench") as folder,
        Requests(sync_requests(panel, passes("a", "b"))) as puts,
    ):
        messages = Path(folder, "users")
        for number, side in enumerate(turns(["stream", "put"], bench.rounds)):
            if side == "put":
                put = Side(beside.port, puts)
                results[side].append(await run_load(put, connections=bench.connections, seconds=bench.seconds))
                continue
            await asyncio.to_thread(_write_messages, messages, passes(f"c{number}", f"d{number}"))
            order = grpc_order(beside, beside.grpc_port, bench.seconds, "SyncUser", channels=1)
            order |= {"kind": "stream", "messages": str(messages), "per_stream": USERS_PER_STREAM}
            order["in_flight"] = STREAMS
            results[side].append(await run_grpc_load(order))
    found = {side: summarize(rounds) for side, rounds in results.items()}
    return Row(
        f"SyncUser, {STREAMS} streams at once of {USERS_PER_STREAM} users, a changed key each, 1 inbound",
        [Figure(found["stream"].per_second, "users/s")],
        [Figure(found["put"].per_second, "users/s")],
        "PUT /user/sync",
        note=found["stream"].faults,
    )


async def _chunks(bench: Bench, beside: NodeProcess, panel: PanelClient) -> Row:
    bench.say(f"chunked sync of {CHUNKED_USERS:,} users over both")
    seconds: dict[str, list[float]] = {"grpc": [], "rest": []}
    async with _channel(beside) as channel:
        call = channel.stream_unary(_path("SyncUsersChunked"))
        for number, side in enumerate(turns(["grpc", "rest"], bench.rounds)):
            users = make_users(CHUNKED_USERS, [TAG], name="many", key=f"k{number}")
            chunks = [
                pb.UsersChunk(
                    users=users[start : start + USERS_PER_CHUNK],
                    index=index,
                    last=start + USERS_PER_CHUNK >= CHUNKED_USERS,
                ).SerializeToString()
                for index, start in enumerate(range(0, CHUNKED_USERS, USERS_PER_CHUNK))
            ]
            begun = time.perf_counter()
            if side == "grpc":
                await call(iter(chunks), metadata=_metadata(beside), timeout=30)
            else:
                await panel.sync_chunked(users, USERS_PER_CHUNK)
            seconds[side].append(time.perf_counter() - begun)
    return Row(
        f"SyncUsersChunked, {CHUNKED_USERS:,} users, a changed key each, 1 inbound",
        [Figure(median(seconds["grpc"]), "s")],
        [Figure(median(seconds["rest"]), "s")],
        "PUT /users/sync/chunked",
    )


async def _idle_workers(bench: Bench) -> Row:
    bench.say("GET /info with and without an idle gRPC worker")
    async with (
        node(bench) as both,
        node(bench, SERVICE_PROTOCOL="rest") as rest,
        both.panel() as panel,
        rest.panel() as other,
    ):
        with Requests([panel.head("GET", "/info", {})]) as ours, Requests([other.head("GET", "/info", {})]) as theirs:
            found = await compare(
                {"both": Side(both.port, ours), "rest": Side(rest.port, theirs)},
                connections=bench.connections,
                seconds=bench.seconds,
                rounds=bench.rounds,
            )
    return Row("GET /info beside an idle gRPC worker", found["both"].figures, found["rest"].figures, "without one")


def _path(name: str) -> str:
    return f"/service.NodeService/{name}"


def _metadata(beside: NodeProcess) -> tuple[tuple[str, str], ...]:
    return (("x-api-key", beside.api_key),)


@contextlib.asynccontextmanager
async def _channel(beside: NodeProcess) -> AsyncIterator[Any]:
    credentials = grpc.ssl_channel_credentials(beside.ca_file.read_bytes())
    channel: Any = aio.secure_channel(f"{beside.host}:{beside.grpc_port}", credentials)
    try:
        yield channel
    finally:
        await channel.close()


async def _answer(channel: Any, beside: NodeProcess, name: str, body: bytes) -> bytes:
    answer: bytes = await channel.unary_unary(_path(name))(body, metadata=_metadata(beside), timeout=20)
    return answer


def grpc_order(beside: NodeProcess, port: int, seconds: float, name: str, *, channels: int) -> dict[str, Any]:
    return {
        "kind": "unary",
        "address": f"{beside.host}:{port}",
        "certificate": str(beside.ca_file),
        "metadata": _metadata(beside),
        "path": _path(name),
        "channels": channels,
        "in_flight": IN_FLIGHT,
        "seconds": seconds,
        "warm_up_seconds": WARM_UP_SECONDS,
    }


async def _compare(orders: Mapping[str, dict[str, Any]], rounds: int) -> dict[str, Summary]:
    results: dict[str, list[LoadResult]] = {side: [] for side in orders}
    for side in turns(list(orders), rounds):
        results[side].append(await run_grpc_load(orders[side]))
    return {side: summarize(of_one) for side, of_one in results.items()}


async def run_grpc_load(order: dict[str, Any]) -> LoadResult:
    """One round of load. LoadError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.grpc_load_process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"},
        cwd=REPOSITORY,
    )
    try:
        async with asyncio.timeout(order["seconds"] + 2 * PROCESS_SECONDS):
            output, errors = await process.communicate(json.dumps(order).encode())
    except TimeoutError:
        raise LoadError("the gRPC load process did not end in time") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadError(f"the gRPC load process failed: {errors.decode('utf-8', 'replace').strip()[-500:]}")
    result = LoadResult(**json.loads(output))
    if not result.answers:
        raise LoadError(f"{order['path']} gave no answer; the first refusal: {result.first_refusal or 'none'}")
    return result


@contextlib.asynccontextmanager
async def bare_server(beside: NodeProcess, answers: Mapping[str, bytes]) -> AsyncIterator[int]:
    """:mod:`bench.bare_grpc` with the settings of the node; yields its port. SideFailedError when it does not start."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.bare_grpc", str(port)),
        *(f"{path}={body.hex()}" for path, body in answers.items()),
        env=beside.environment() | {"GRPC_ENABLE_FORK_SUPPORT": "0"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(PROCESS_SECONDS):
            if not await process.stdout.readline():
                text = (await process.stderr.read()).decode("utf-8", "replace")
                raise SideFailedError(f"the bare gRPC server ended: {text.strip()[-500:]}")
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _write_messages(path: Path, users: Sequence[pb.User]) -> None:
    with path.open("wb") as file:
        for user in users:
            body = user.SerializeToString()
            file.write(LENGTH.pack(len(body)) + body)
