"""A stop lets the core linger: whoever starts the node again in time finds it running, and no connection is cut."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from pgnode.bus.snapshots import NodeStatus
from pgnode.testing.configs import make_config, make_inbound, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.core_lists import inbound_users
from tests.support.node_state import node_status
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill

TAGS = ["VLESS", "Trojan", "Shadowsocks-2022"]


@dataclass
class Stage:
    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    config: dict[str, Any]

    def users(self, count: int = 50) -> list[pb.User]:
        return [make_user("holder@e2e", TAGS), *make_users(count, TAGS)]

    async def started(self) -> int:
        """Started with its first users; the core's process id."""
        await self.panel.start(self.config, self.users())
        return core_pid(self.node)

    async def status(self) -> NodeStatus:
        return await node_status(self.node)

    async def assert_not_initialized(self) -> None:
        """What a node says that was never started."""
        assert not (await self.panel.info()).started
        await self.panel.system_stats()
        for method, path, body in [
            ("GET", "/stats/backend", b""),
            ("GET", "/stats", pb.StatRequest(type=pb.UsersStat).SerializeToString()),
            ("GET", "/stats", pb.StatRequest(type=pb.UsersStat, reset=True).SerializeToString()),
            ("PUT", "/user/sync", make_user("late@e2e", TAGS).SerializeToString()),
            ("PUT", "/users/sync", b""),
        ]:
            answer = await self.panel.request(method, path, body)
            assert (answer.status, b"backend not initialized" in answer.body) == (503, True), (path, answer)


@contextlib.asynccontextmanager
async def stage_with(target: Target, **env: str) -> AsyncIterator[Stage]:
    config = make_config([item for item in plain_inbounds() if item["tag"] in TAGS])
    links = [link(item, make_user("holder@e2e", TAGS), name=item["tag"]) for item in config["inbounds"]]
    async with (
        NodeProcess(env={**FAST, **env}) as node,
        node.panel() as panel,
        ClientCore(links, target) as client,
    ):
        yield Stage(node, panel, client, config)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(target: Target) -> AsyncIterator[Stage]:
    """A core of it lingers for longer than any test lasts."""
    async with stage_with(target, STOP_LINGER_SECONDS="300") as staged:
        yield staged


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hasty(target: Target) -> AsyncIterator[Stage]:
    """A core of it lingers for a second, and a panel that has gone stops it."""
    async with stage_with(target, STOP_LINGER_SECONDS="1", KEEP_ALIVE_ACTION="stop") as staged:
        yield staged


async def test_a_stop_and_a_start_cut_no_connection(stage: Stage) -> None:
    core = await stage.started()
    async with contextlib.AsyncExitStack() as holding:
        transfers = [await holding.enter_async_context(stage.client.hold(tag)) for tag in TAGS]
        await stage.panel.stop()
        await stage.assert_not_initialized()
        await stage.panel.stop()  # once more is nothing to do
        assert core_pid(stage.node) == core
        for transfer in transfers:
            await transfer.wait_rounds(3)
        # Users were changed meanwhile: some are new, some gone, some have another key.
        users = [
            make_user("holder@e2e", TAGS),
            *make_users(30, TAGS),
            make_user("user40@demo", TAGS, key="new"),
        ]
        users.append(make_user("new@e2e", TAGS))
        assert (await stage.panel.start(stage.config, users)).started
        await stage.panel.backend_stats()
        for transfer in transfers:
            await transfer.wait_rounds(3)
    for transfer in transfers:
        transfer.check()
    assert core_pid(stage.node) == core
    for tag in TAGS:
        assert set(await inbound_users(stage.node.run_dir / "core.sock", tag)) == {user.email for user in users}
    assert "late@e2e" not in await inbound_users(stage.node.run_dir / "core.sock", "VLESS")


async def test_traffic_of_a_lingering_core_is_counted(stage: Stage) -> None:
    await stage.started()
    before = await stage.panel.traffic("holder@e2e")
    await stage.panel.stop()
    await stage.client.move("VLESS", 100_000, 200_000)
    await stage.started()

    async def counted() -> bool:
        after = await stage.panel.traffic("holder@e2e")
        return after.uplink_bytes >= before.uplink_bytes + 100_000

    await eventually(counted, "the bytes are in the books")


async def test_another_config_starts_although_a_core_lingers_on_its_ports(stage: Stage) -> None:
    core = await stage.started()
    await stage.panel.stop()
    other = {**stage.config, "dns": {"servers": ["localhost"]}}
    assert (await stage.panel.start(other, stage.users())).started
    assert core_pid(stage.node) not in (0, core)
    assert not is_running(core)
    await stage.client.move("VLESS", 1_000, 1_000)


async def test_a_refused_start_leaves_the_core_lingering(stage: Stage) -> None:
    core = await stage.started()
    await stage.panel.stop()
    broken = make_config([make_inbound("bad", "no-such-protocol")])
    with pytest.raises(PanelError) as caught:
        await stage.panel.start(broken, stage.users())
    assert caught.value.status == 503
    await stage.assert_not_initialized()
    assert await stage.started() == core


async def test_a_core_that_dies_while_lingering_is_not_brought_back(stage: Stage) -> None:
    core = await stage.started()
    await stage.panel.stop()
    kill(core)

    async def idle() -> bool:
        return (await stage.status()).state == "idle"

    await eventually(idle, "the node has noticed")
    assert core_pid(stage.node) == 0
    await stage.assert_not_initialized()
    assert await stage.started() not in (0, core)
    await stage.client.move("VLESS", 1_000, 1_000)


async def test_after_a_crash_nothing_runs_that_was_stopped(stage: Stage) -> None:
    """A supervisor that finds a lingering core ends it: it cannot know for how long it lingered."""
    core = await stage.started()
    await stage.panel.stop()
    kill(stage.node.pid)
    await stage.node.wait()
    await stage.node.start()

    async def ended() -> bool:
        return not is_running(core) and not (await stage.panel.info()).started

    await eventually(ended, "the lingering core has ended", errors=(NoAnswerError, OSError))
    assert await stage.started() not in (0, core)
    await stage.client.move("VLESS", 1_000, 1_000)


async def test_a_node_that_ends_ends_the_lingering_core(stage: Stage) -> None:
    core = await stage.started()
    await stage.panel.stop()
    assert await stage.node.stop() == 0
    assert not is_running(core)
    await stage.node.start()


async def test_the_core_ends_when_nobody_takes_it_over(hasty: Stage) -> None:
    core = await hasty.started()
    await hasty.panel.stop()
    await eventually(lambda: not is_running(core), "the core has ended")

    async def idle() -> bool:
        return (await hasty.status()).state == "idle"

    await eventually(idle, "the node says so")
    assert await hasty.started() not in (0, core)


async def test_a_silent_panel_is_noticed(stage: Stage) -> None:
    """The node is degraded, and goes on; the next call ends that."""
    message = pb.Backend(type=pb.XRAY, users=stage.users(), keep_alive=2)
    message.config = json.dumps(stage.config)
    await stage.panel.call("POST", "/start", message, pb.BaseInfoResponse)
    core = core_pid(stage.node)

    async def degraded() -> bool:
        return (await stage.status()).degraded

    await eventually(degraded, "the panel is missed")
    assert (await stage.panel.info()).started

    async def healthy() -> bool:
        await stage.panel.info()
        return not await degraded()

    await eventually(healthy, "the panel is back")
    assert core_pid(stage.node) == core
    await stage.client.move("VLESS", 1_000, 1_000)


async def test_a_silent_panel_may_mean_stop(hasty: Stage) -> None:
    core = await hasty.started()
    assert core
    message = pb.Backend(type=pb.XRAY, users=hasty.users(), keep_alive=2)
    message.config = json.dumps(hasty.config)
    # The same config, and so the same core; it is not asked for after this, which may be too late.
    await hasty.panel.call("POST", "/start", message, pb.BaseInfoResponse)
    await eventually(lambda: not is_running(core), "the core has ended")
    await hasty.assert_not_initialized()
