"""Nodes on each kind of Redis, with just the rules that docs/redis.md lists; and what ends a start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pgnode.bus.access import Role, rules
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.core_lists import inbound_users
from tests.support.far_worker import FarWorker
from tests.support.polling import eventually
from tests.support.processes import kill, worker_pids
from tests.support.redis_servers import RedisServer, running_sentinels, running_server

SECRETS = {"node": "hunter2", "worker": "hunter3", "admin": "hunter4"}
TAG = "VLESS"


async def do(redis: Redis, *words: str) -> Any:
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def with_users(kind: str, *, tls: bool = False, without: Sequence[str] = ()) -> AsyncIterator[RedisServer]:
    """A server whose users are a node, a worker and somebody who may do everything; the default one may do nothing."""
    async with running_server(kind, tls=tls) as server:
        anybody = server.client()
        of_node = [rule for rule in rules(Role.SUPERVISOR, "pgnode").split() if rule not in without]
        users = {"node": of_node, "worker": rules(Role.WORKER, "pgnode").split(), "admin": ["~*", "&*", "+@all"]}
        for name, given in users.items():
            await do(anybody, "ACL", "SETUSER", name, "reset", "on", f">{SECRETS[name]}", *given)
        await do(anybody, "ACL", "SETUSER", "default", "off")
        await anybody.aclose()
        yield server


def settings_for(server: RedisServer, user: str, folder: Path) -> dict[str, str]:
    password = folder / f"{user}.password"
    password.write_text(f"{SECRETS[user]}\n")
    found = {"REDIS_URL": server.url, "REDIS_USER": user, "REDIS_PASSWORD_FILE": str(password)}
    if server.tls is not None:
        certificate, key = map(str, server.tls)
        found |= {"REDIS_CA_FILE": certificate, "REDIS_CERT_FILE": certificate, "REDIS_KEY_FILE": key}
    return found


async def used(node: NodeProcess, worker: FarWorker) -> None:
    """All that goes over the bus: large and small commands, answers on loan, snapshots, logs, and a worker that dies."""
    config = {**make_config([make_inbound(TAG, "vless")]), "log": {"loglevel": "debug"}}
    async with node.panel() as panel, worker.panel(api_key=node.api_key) as far:
        await far.start(config, make_users(2_000, [TAG]), timeout_seconds=60)
        for caller in (panel, far):
            async with caller.logs() as viewer:
                [user] = make_users(1, [TAG], key=repr(caller))
                await caller.sync_user(user)
                assert await viewer.next_line(30)
                await caller.stats(pb.UsersStat, reset=True)
                await caller.backend_stats()
                await caller.system_stats()
                assert await caller.online(user.email) == 0
        kill(worker_pids(node)[0])
        await eventually(lambda: len(worker_pids(node)) == 2, "another worker is there")
        await far.info()


@pytest.mark.parametrize(("kind", "tls"), [("valkey", False), ("redis", True), ("redis 6.2", False)])
async def test_a_node_with_just_the_rules_it_needs(kind: str, tls: bool, short_dir: Path) -> None:
    async with with_users(kind, tls=tls) as server:
        node = NodeProcess(env={**FAST, **settings_for(server, "node", short_dir)})
        async with node:
            own = node.state_dir / "tls"
            given = settings_for(server, "worker", short_dir) | {"API_KEY": node.api_key}
            url = given.pop("REDIS_URL")
            worker = FarWorker("rest", redis_url=url, cert_file=own / "cert.pem", key_file=own / "key.pem", env=given)
            async with worker:
                await used(node, worker)
            said = node.output_text + worker.output_text
        admin = server.client(username="admin", password=SECRETS["admin"])
        assert list(await do(admin, "ACL", "LOG")) == []
        await admin.aclose()
    assert not any(secret in said for secret in SECRETS.values())


async def refused(env: dict[str, str], *sentences: str) -> None:
    node = NodeProcess(env={**FAST, **env})
    try:
        await node.spawn()
        assert await node.wait(60) == 2
        for sentence in sentences:
            assert sentence in node.output_text
        assert "Traceback" not in node.output_text
        assert not any(secret in node.output_text for secret in SECRETS.values())
    finally:
        await node.__aexit__()


async def test_what_certainly_cannot_be_used_ends_the_start(short_dir: Path) -> None:
    async with with_users("valkey", without=["+xadd"]) as server:
        env = settings_for(server, "node", short_dir)
        wrong = short_dir / "wrong"
        await asyncio.to_thread(wrong.write_text, SECRETS["admin"])
        await asyncio.gather(
            refused(env, "does not allow this node's user xadd", "add to its rules +xadd"),
            refused(
                {**env, "REDIS_PASSWORD_FILE": str(wrong)}, f"pgnode: Redis at REDIS_URL={server.url} refuses user"
            ),
            refused({**env, "REDIS_URL": server.url.replace("redis", "rediss")}, "speaks no TLS: write redis in place"),
        )


async def test_sentinels_and_their_servers_may_speak_tls_alone(short_dir: Path) -> None:
    """A change is answered after the master has died, also by a worker that is alone, and the user is in the core once."""
    async with running_sentinels("redis", tls=True) as watched:
        first = watched.servers[0]
        assert first.tls is not None
        certificate, key = map(str, first.tls)
        files = {"REDIS_CA_FILE": certificate, "REDIS_CERT_FILE": certificate, "REDIS_KEY_FILE": key}
        async with NodeProcess(env={**FAST, "REDIS_URL": watched.url, **files}) as node:
            own = node.state_dir / "tls"
            worker = FarWorker(
                "rest",
                redis_url=watched.url,
                cert_file=own / "cert.pem",
                key_file=own / "key.pem",
                env=files | {"API_KEY": node.api_key},
            )
            async with worker, node.panel() as panel, worker.panel(api_key=node.api_key) as far:
                await panel.start(make_config([make_inbound(TAG, "vless")]), make_users(5, [TAG]))
                first.kill()
                await watched.another_master(first)
                users = make_users(2, [TAG], name="later")
                for caller, user in zip((panel, far), users, strict=True):

                    async def taken(caller: PanelClient = caller, user: pb.User = user) -> bool:
                        await caller.sync_user(user)
                        return True

                    await eventually(taken, "it is taken", 60, errors=(PanelError,))
                listed = await inbound_users(node.run_dir / "core.sock", TAG)
                assert {user.email for user in users} <= set(listed)
                assert len(listed) == len(set(listed)) == 7
