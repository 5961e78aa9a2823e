"""Parts of the node die, hang or are restarted; each time everything works again, and nobody has lost anything."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from grpc import aio

from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError, Traffic
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, TransferError, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import WITH_GRPC
from tests.support.core_lists import inbound_users
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually
from tests.support.processes import core_pid, gunicorn_master_pid, kill, stopped, valkey_pid, worker_pids

#: What a caller may see while a part is being brought back.
NOT_YET = (PanelError, NoAnswerError, OSError, TransferError)
TAGS = ["VLESS", "Shadowsocks-2022"]
USERS = 300
#: An answer that does not wait for what hangs, which would take 30 s; on a machine that does nothing else it takes 3 s at most.
SOON_SECONDS = 20.0


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> ArmedFaults:
    return ArmedFaults(tmp_path_factory.mktemp("fault-points"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    """A node that tells a core that hangs from a slow one within a bearable time."""
    async with NodeProcess(env={**WITH_GRPC, "CORE_CALL_TIMEOUT_SECONDS": "6", **faults.environment}) as running:
        yield running


@dataclass
class Stage:
    node: NodeProcess
    client: ClientCore
    config: dict[str, Any]

    async def emails(self, tag: str = "VLESS") -> set[str]:
        return set(await inbound_users(self.node.run_dir / "core.sock", tag))

    async def works_again(self, added: str) -> None:
        """Reads, a change of users, the earlier users and traffic, all through connections made anew."""
        async with self.node.panel() as panel:

            async def healthy() -> bool:
                await panel.backend_stats()
                return (await panel.info()).started

            await eventually(healthy, "the health probe answers", errors=NOT_YET)
            await panel.sync_user(make_user(added, TAGS))
            await panel.system_stats()
            await panel.stats(pb.UsersStat)
        for tag in TAGS:
            emails = await self.emails(tag)
            assert {user.email for user in make_users(USERS, TAGS)} <= emails
            assert added in emails
            await self.client.move(tag, 10_000, 10_000)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(node: NodeProcess, target: Target) -> AsyncIterator[Stage]:
    config = make_config([item for item in plain_inbounds() if item["tag"] in TAGS])
    user = make_user("user7@demo", TAGS)
    links = [link(item, user, name=item["tag"]) for item in config["inbounds"]]
    async with ClientCore(links, target) as client:
        yield Stage(node, client, config)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """A node that runs and has its users."""
    async with whole_stage.node.panel() as panel:
        await panel.start(whole_stage.config, make_users(USERS, TAGS))
    return whole_stage


async def counted(stage: Stage) -> Traffic:
    """The user's counters when they do not move any more; some traffic is in them."""
    async with stage.node.panel() as panel:
        seen: list[Traffic] = []

        async def settled() -> bool:
            seen.append(await panel.traffic("user7@demo"))
            return len(seen) > 30 and seen[-1] == seen[-30] and seen[-1].uplink_bytes > 0

        # Until a core that came back was read once, statistics may be refused.
        await eventually(settled, "the counters have settled", errors=(PanelError,))
        return seen[-1]


async def grown(stage: Stage, before: Traffic, bytes_more: int) -> None:
    """Wait until so much more is counted than before, each way."""
    async with stage.node.panel() as panel:

        async def there() -> bool:
            now = await panel.traffic("user7@demo")
            return (
                now.uplink_bytes >= before.uplink_bytes + bytes_more
                and now.downlink_bytes >= before.downlink_bytes + bytes_more
            )

        # Until a core that came back was read once, statistics may be refused.
        await eventually(there, f"{bytes_more:,} bytes more than {before} are counted", errors=(PanelError,))


async def test_core_killed(stage: Stage) -> None:
    await stage.client.move("VLESS", 50_000, 60_000)
    before = await counted(stage)
    first = core_pid(stage.node)
    kill(first)
    async with stage.node.panel() as panel:

        async def another() -> bool:
            info = await panel.info()  # answers all the time
            return info.started and core_pid(stage.node) not in (0, first)

        await eventually(another, "another core runs")
    await stage.works_again("after-core@e2e")
    await grown(stage, before, 10_000)


async def test_worker_killed(stage: Stage) -> None:
    before = worker_pids(stage.node)
    assert len(before) == 2
    async with stage.client.hold("VLESS") as transfer:
        kill(before[0])
        await eventually(
            lambda: len(worker_pids(stage.node)) == 2 and before[0] not in worker_pids(stage.node), "another worker"
        )
        await stage.works_again("after-worker@e2e")
        await transfer.wait_rounds(3)
    transfer.check()


async def test_gunicorn_killed(stage: Stage) -> None:
    first = gunicorn_master_pid(stage.node)
    async with stage.client.hold("VLESS") as transfer:
        kill(first)
        await eventually(lambda: gunicorn_master_pid(stage.node) not in (0, first), "another Gunicorn")
        await eventually(lambda: len(worker_pids(stage.node)) == 2, "its workers")
        await stage.works_again("after-gunicorn@e2e")
        await transfer.wait_rounds(3)
    transfer.check()


async def test_valkey_killed(stage: Stage) -> None:
    first = valkey_pid(stage.node)
    core_before = core_pid(stage.node)
    async with stage.client.hold("VLESS") as transfer, stage.node.panel() as panel:
        kill(first)
        await panel.info()
        await panel.stats(pb.UsersStat)
        await eventually(lambda: valkey_pid(stage.node) not in (0, first), "another Valkey")

        async def writes() -> bool:
            await panel.sync_user(make_user("after-valkey@e2e", TAGS))
            return True

        await eventually(writes, "writes are taken", errors=NOT_YET)
        await stage.works_again("after-valkey-2@e2e")
        await transfer.wait_rounds(3)
    transfer.check()
    assert core_pid(stage.node) == core_before


async def test_valkey_hangs(stage: Stage) -> None:
    async with stage.node.panel() as panel, stage.client.hold("VLESS") as transfer:
        async with stopped(valkey_pid(stage.node)):
            begun = time.monotonic()
            answer = await panel.request("PUT", "/user/sync", make_user("away@e2e", TAGS).SerializeToString())
            elapsed = time.monotonic() - begun
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
            assert elapsed < SOON_SECONDS
            assert (await panel.info()).started
            await panel.stats(pb.UsersStat)
            await panel.system_stats()
            await transfer.wait_rounds(3)

        async def writes() -> bool:
            await panel.sync_user(make_user("back@e2e", TAGS))
            return True

        await eventually(writes, "writes are taken", errors=NOT_YET)
    transfer.check()
    await stage.works_again("back-2@e2e")


async def test_core_hangs(stage: Stage) -> None:
    """A core that stands still, and goes on sooner than CORE_HANG_SECONDS: calls say so, and no connection is lost."""
    core = core_pid(stage.node)
    async with stage.node.panel() as panel, stage.client.hold("VLESS") as transfer:
        async with stopped(core):

            async def probe_says_so() -> bool:
                answer = await panel.request("GET", "/stats/backend")
                return answer.status == 503 and b"failed to get sys stats" in answer.body

            await eventually(probe_says_so, "the health probe tells that the core hangs")
            begun = time.monotonic()
            answer = await panel.request("PUT", "/user/sync", make_user("hang@e2e", TAGS).SerializeToString())
            assert answer.status == 503
            assert time.monotonic() - begun < SOON_SECONDS
            begun = time.monotonic()
            assert (await panel.info()).core_version
            await panel.system_stats()
            assert time.monotonic() - begun < SOON_SECONDS
        await transfer.wait_rounds(3)
        await stage.works_again("hang@e2e")
    transfer.check()
    assert core_pid(stage.node) == core


def _rest_calls(panel: PanelClient, stage: Stage, users: list[pb.User]) -> Mapping[str, Awaitable[Any]]:
    """A panel's calls over REST that a core has to be there for."""
    route = pb.TestRouteRequest(network="tcp", target_domain="example.com", target_port=443)
    return {
        "info": panel.info(),
        "backend": panel.backend_stats(),
        "traffic": panel.stats(pb.UserStat, "user7@demo"),
        "all users": panel.stats(pb.UsersStat),
        "reset": panel.stats(pb.Outbounds, reset=True),
        "online": panel.online_addresses("user7@demo"),
        "rules": panel.call("GET", "/routing/rules", None, pb.RoutingRulesResponse),
        "route": panel.call("POST", "/routing/test", route, pb.RouteResult),
        "user": panel.sync_user(users[-1]),
        "users": panel.sync_users(users),
        "chunks": panel.sync_chunked(users[:5]),
        "start": panel.start(stage.config, users),
    }


def _grpc_calls(panel: GrpcNode, stage: Stage, users: list[pb.User]) -> Mapping[str, Awaitable[Any]]:
    """The same calls over gRPC."""
    name = pb.StatRequest(name="user7@demo", type=pb.UserStat)
    start = pb.Backend(config=json.dumps(stage.config), users=users)
    return {
        "info": panel.call("GetBaseInfo"),
        "backend": panel.call("GetBackendStats"),
        "traffic": panel.call("GetStats", name),
        "all users": panel.call("GetStats", pb.StatRequest(type=pb.UsersStat)),
        "reset": panel.call("GetStats", pb.StatRequest(type=pb.Outbounds, reset=True)),
        "online": panel.call("GetUserOnlineIpListStats", name),
        "rules": panel.call("ListRoutingRules"),
        "route": panel.call("TestRoute", pb.TestRouteRequest(network="tcp", target_domain="example.com")),
        "user": panel.stream("SyncUser", users[-1:]),
        "users": panel.call("SyncUsers", pb.Users(users=users)),
        "chunks": panel.stream("SyncUsersChunked", [pb.UsersChunk(users=users[:5], last=True)]),
        "start": panel.call("Start", start),
    }


async def calls_while_nothing_is_known(stage: Stage, faults: ArmedFaults, before: Traffic) -> None:
    """Start the supervisor, and call while it does not know of its core yet: each call has its true answer."""
    node = stage.node
    users = [*make_users(USERS, TAGS), make_user("earlier@e2e", TAGS), make_user("meanwhile@e2e", TAGS)]
    for point in ("restore.begun", "step.take_over_core"):
        faults.arm(point, "wait")
    await node.spawn()
    grpc_panel = GrpcNode(f"{node.host}:{node.grpc_port}", node.api_key, node.ca_file.read_bytes())
    async with node.panel(timeout_seconds=60.0) as rest_panel, grpc_panel:
        await faults.reached("restore.begun")

        async def serves() -> bool:
            await rest_panel.system_stats()
            await grpc_panel.call("GetSystemStats")
            return True

        await eventually(serves, "the workers serve", errors=(*NOT_YET, aio.AioRpcError))
        faces = {"REST": _rest_calls(rest_panel, stage, users), "gRPC": _grpc_calls(grpc_panel, stage, users)}
        calls = {
            f"{name} over {face}": asyncio.ensure_future(call)
            for face, made in faces.items()
            for name, call in made.items()
        }
        await serves()
        assert not [name for name, call in calls.items() if call.done()], "nobody knows yet"
        faults.let_go("restore.begun")
        await faults.reached("step.take_over_core")
        # That it runs is known from here on, and nothing else.
        assert (await calls["info over REST"]).started
        assert (await calls["info over gRPC"]).started
        waiting = {name for name, call in calls.items() if not call.done()}
        assert waiting == {name for name in calls if not name.startswith("info")}
        faults.let_go("step.take_over_core")
        answers: list[Any] = await asyncio.gather(*calls.values(), return_exceptions=True)
        found = dict(zip(calls, answers, strict=True))
    assert {name: said for name, said in found.items() if isinstance(said, BaseException)} == {}
    for stats in (found["traffic over REST"], found["traffic over gRPC"].stats):
        moved = {stat.type: stat.value for stat in stats}
        assert moved["uplink"] >= before.uplink_bytes, "what the core counted meanwhile is in it"
    assert found["backend over REST"].uptime == pytest.approx(found["backend over gRPC"].uptime, abs=5)
    assert {stat.name for stat in found["all users over REST"]} >= {"user7@demo"}
    assert found["online over REST"]
    assert found["online over gRPC"].ips
    assert found["rules over REST"] == found["rules over gRPC"]
    assert found["route over REST"].outbound_tag == found["route over gRPC"].outbound_tag != ""
    assert sum(stat.value for stat in [*found["reset over REST"], *found["reset over gRPC"].stats]) > 0
    assert found["start over REST"].started
    assert found["start over gRPC"].started


async def test_supervisor_killed_and_the_core_taken_over(stage: Stage, faults: ArmedFaults) -> None:
    """Users' connections outlive the supervisor, and the next one does not start a second core.

    Whoever calls before it knows of the core waits, and is never told that none was started.
    """
    async with stage.node.panel() as panel:
        await panel.sync_user(make_user("earlier@e2e", TAGS))
    await stage.client.move("VLESS", 5_000, 5_000)
    before = await counted(stage)
    core_before = core_pid(stage.node)
    orphans = [valkey_pid(stage.node), gunicorn_master_pid(stage.node), *worker_pids(stage.node)]
    async with stage.client.hold("VLESS") as transfer, stage.client.hold("Shadowsocks-2022") as second:
        kill(stage.node.pid)
        await stage.node.wait()
        await transfer.wait_rounds(3)
        await eventually(lambda: not any(map(is_running, orphans)), "its children end with it")
        assert is_running(core_before)
        await calls_while_nothing_is_known(stage, faults, before)
        await stage.works_again("later@e2e")
        await transfer.wait_rounds(3)
        await second.wait_rounds(3)
    transfer.check()
    second.check()
    assert core_pid(stage.node) == core_before
    assert {"earlier@e2e", "meanwhile@e2e"} <= await stage.emails()
    await grown(stage, before, 10_000)


async def test_node_restarted(stage: Stage) -> None:
    """After a restart the core is back with all users before any panel calls."""
    async with stage.node.panel() as panel:
        await panel.sync_user(make_user("kept@e2e", TAGS))
        await panel.sync_user(make_user("user3@demo", []))
    await stage.client.move("VLESS", 5_000, 5_000)
    before = await counted(stage)
    core_before = core_pid(stage.node)
    assert await stage.node.stop() == 0
    assert not is_running(core_before)
    await stage.node.start()

    async def moves() -> bool:
        await stage.client.move("VLESS", 1_000, 1_000)
        return True

    await eventually(moves, "users get in", errors=(TransferError,))
    emails = await stage.emails()
    assert emails == {user.email for user in make_users(USERS, TAGS)} - {"user3@demo"} | {"kept@e2e"}
    async with stage.node.panel() as panel:

        async def started() -> bool:
            return (await panel.info()).started

        # The core lets users in a moment before the node knows that it is complete.
        await eventually(started, "the node says that its core runs")
    await grown(stage, before, 0)


async def test_stopped_node_stays_stopped_after_a_restart(stage: Stage) -> None:
    async with stage.node.panel() as panel:
        await panel.stop()
    assert core_pid(stage.node) == 0
    assert await stage.node.stop() == 0
    await stage.node.start()
    async with stage.node.panel() as panel:
        assert not (await panel.info()).started
    assert core_pid(stage.node) == 0


async def test_start_right_after_stop(stage: Stage) -> None:
    """A new core each time, where none lingers."""
    async with stage.node.panel() as panel:
        for _ in range(3):
            await panel.stop()
            await panel.start(stage.config, make_users(USERS, TAGS))
    await stage.works_again("reconnected@e2e")
