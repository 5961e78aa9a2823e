"""A start with another base config as a hot change: the core stays, and so does every connection through what did not change."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from pgnode.bus.snapshots import NodeStatus
from pgnode.testing.configs import config_tags, make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError
from pgnode.testing.ports import free_port
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.client.inbounds import with_users
from pgnode.xray.client.routing import RoutingApi
from pgnode.xray.config.document import parse_config, render
from pgnode.xray.process.embedded import EmbeddedCore
from tests.e2e.conftest import FAST
from tests.e2e.test_samples import sample
from tests.support.core_lists import inbound_users
from tests.support.node_state import node_status
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill
from tests.support.said import said

Config = dict[str, Any]
#: Links of the client core: the inbound that stays, those that change, and those that come.
STAYS, CHANGES, COMES = "VLESS", "Trojan", "VMess"
TAGS = [STAYS, CHANGES, COMES, "Shadowsocks-2022", "Hysteria"]
LIMIT_SECONDS = 30.0


@dataclass
class Stage:
    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    #: Inbounds by tag, as the client core knows them.
    inbounds: dict[str, Config]

    def config(self, *tags: str) -> Config:
        return make_config([copy.deepcopy(self.inbounds[tag]) for tag in tags])

    async def start(self, config: Config, users: list[pb.User] | None = None) -> NodeStatus:
        """Start with this config; what the node says of itself then."""
        await self.panel.start(config, users_of() if users is None else users)
        return await node_status(self.node)

    async def assert_runs(self, config: Config, users: list[pb.User] | None = None) -> None:
        """The core lists what one lists that was started with this config; its users are these."""
        assert await listed(self.node.run_dir / "core.sock") == await listed_anew(config)
        for item in config["inbounds"]:
            emails = {user.email for user in (users_of() if users is None else users) if item["tag"] in user.inbounds}
            assert set(await inbound_users(self.node.run_dir / "core.sock", item["tag"])) == emails


def users_of(count: int = 30) -> list[pb.User]:
    return [make_user("holder@e2e", TAGS), *make_users(count, TAGS)]


async def listed(socket: Path) -> dict[str, Any]:
    """All inbounds (users left out), outbounds and rules of a core."""
    async with CoreApi(socket) as api:
        found: dict[str, Any] = {}
        for inbound in await api.inbounds.list_inbounds(LIMIT_SECONDS):
            bare = inbound
            try:
                bare, _ = with_users(inbound, [])
            except CoreApiError:
                assert inbound.tag not in TAGS
            found[f"inbound {inbound.tag}"] = bare
        found |= {f"outbound {item.tag}": item for item in await api.inbounds.list_outbounds(LIMIT_SECONDS)}
        found["rules"] = await RoutingApi(api.channel, LIMIT_SECONDS).rules()
        return found


async def listed_anew(config: Config) -> dict[str, Any]:
    """The same of a core that is started with the config, on the same ports (which cores share)."""
    with tempfile.TemporaryDirectory(prefix="pgn") as folder:
        run_dir = Path(folder)
        text = json.dumps(config)
        base = parse_config(text, exclude_inbounds=(), api_socket=f"{folder}/core.sock", assets_dir=None)
        running = await EmbeddedCore().spawn(render(base, {}), run_dir)
        try:
            async with CoreApi(running.socket_path) as api:
                await api.wait_ready(LIMIT_SECONDS)
            return await listed(running.socket_path)
        finally:
            await running.terminate(5.0)
            running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(target: Target) -> AsyncIterator[Stage]:
    inbounds = {str(item["tag"]): item for item in plain_inbounds()}
    holder = make_user("holder@e2e", TAGS)
    links = [link(inbounds[tag], holder, name=tag) for tag in (STAYS, CHANGES, COMES, "Shadowsocks-2022")]
    inbounds["moved"] = {**inbounds[CHANGES], "port": free_port()}
    links.append(link(inbounds["moved"], holder, name="moved"))
    async with (
        NodeProcess(env={**FAST, "STOP_LINGER_SECONDS": "600"}) as node,
        node.panel() as panel,
        ClientCore(links, target) as client,
    ):
        yield Stage(node, panel, client, inbounds)


async def test_inbounds_come_change_and_go(stage: Stage) -> None:
    first = stage.config(STAYS, CHANGES)
    await stage.start(first)
    core, before = core_pid(stage.node), (await node_status(stage.node)).starts
    async with stage.client.hold(STAYS) as transfer, stage.client.hold(CHANGES) as through_changed:
        # One comes, with its users; one is added that takes none before its first.
        second = stage.config(STAYS, CHANGES, COMES, "Shadowsocks-2022")
        await stage.start(second)
        for tag in (COMES, "Shadowsocks-2022"):
            await stage.client.move(tag, 1_000, 1_000)
        await stage.assert_runs(second)

        # One moves to another port: who is in stays in, who comes finds it there and not where it was.
        third = stage.config(STAYS, COMES)
        third["inbounds"].append(stage.inbounds["moved"])
        await stage.start(third)
        await stage.client.move("moved", 1_000, 1_000)
        assert await stage.client.refused(CHANGES, timeout_seconds=1.0)
        await stage.assert_runs(third)
        await through_changed.wait_rounds(3)

        # Users change with it: one is new, one has gone, one has another key.
        users = [*users_of()[:-2], make_user("user28@demo", TAGS, key="new"), make_user("new@e2e", TAGS)]
        fourth = stage.config(STAYS, COMES, CHANGES)
        status = await stage.start(fourth, users)
        await stage.assert_runs(fourth, users)
        await transfer.wait_rounds(3)
    transfer.check()
    through_changed.check()
    assert core_pid(stage.node) == core
    assert status.starts["hot change"] == before.get("hot change", 0) + 3
    await said(stage.node, "strategy='hot change'", "inbound 'Trojan' changed")


async def test_outbounds_and_rules_change(stage: Stage) -> None:
    config = stage.config(STAYS, CHANGES)
    allow = copy.deepcopy(config["outbounds"][0])
    config["outbounds"].append({**allow, "tag": "SECOND"})
    await stage.start(config)
    core = core_pid(stage.node)
    async with stage.client.hold(STAYS) as transfer:
        # The users of one inbound are sent where nothing comes back from.
        blocked = copy.deepcopy(config)
        blocked["routing"] = {"rules": [{"inboundTag": [CHANGES], "outboundTag": "BLOCK"}]}
        await stage.start(blocked)
        assert await stage.client.refused(CHANGES, timeout_seconds=1.0)
        await stage.assert_runs(blocked)

        through = copy.deepcopy(config)
        through["outbounds"][2]["settings"] = {**allow["settings"], "userLevel": 0, "domainStrategy": "UseIPv4"}
        through["outbounds"].append({**allow, "tag": "THIRD"})
        through["routing"] = {
            "rules": [{"inboundTag": [CHANGES], "balancerTag": "both"}],
            "balancers": [{"tag": "both", "selector": ["SECOND", "THIRD"]}],
        }
        await stage.start(through)
        await stage.client.move(CHANGES, 1_000, 1_000)
        await stage.assert_runs(through)
        outbounds = await stage.panel.stats(pb.Outbounds)

        await stage.start(config)
        await stage.assert_runs(config)
        await transfer.wait_rounds(3)
    transfer.check()
    assert core_pid(stage.node) == core
    assert {stat.name for stat in outbounds} >= {"DIRECT"}


async def test_what_cannot_be_changed_is_a_new_core(stage: Stage) -> None:
    config = stage.config(STAYS, CHANGES)
    await stage.start(config)
    core = core_pid(stage.node)
    other = {**config, "dns": {"servers": ["localhost"]}}
    await stage.start(other)
    assert core_pid(stage.node) not in (0, core)
    await stage.assert_runs(other)
    await said(stage.node, "strategy='new core'", "dns changed")


async def test_a_lingering_core_is_changed_too(stage: Stage) -> None:
    await stage.start(stage.config(STAYS))
    core = core_pid(stage.node)
    async with stage.client.hold(STAYS) as transfer:
        await stage.panel.stop()
        both = stage.config(STAYS, CHANGES)
        await stage.start(both)
        await stage.client.move(CHANGES, 1_000, 1_000)
        await transfer.wait_rounds(3)
    transfer.check()
    assert core_pid(stage.node) == core
    await stage.assert_runs(both)


async def test_a_refused_part_leaves_everything_as_it_was(stage: Stage) -> None:
    config = stage.config(STAYS, CHANGES)
    await stage.start(config)
    core = core_pid(stage.node)
    broken = copy.deepcopy(config)
    broken["inbounds"][1]["settings"]["fallbacks"] = [{"dest": {}}]
    with pytest.raises(PanelError) as caught:
        await stage.start(broken)
    assert caught.value.status == 503
    assert CHANGES in caught.value.text
    assert core_pid(stage.node) == core
    await stage.assert_runs(config)


async def test_a_new_supervisor_takes_over_what_really_runs(stage: Stage) -> None:
    """After a hot change the record beside the core names the new config."""
    await stage.start(stage.config(STAYS, CHANGES))
    changed = stage.config(STAYS, CHANGES, COMES)
    await stage.start(changed)
    core = core_pid(stage.node)
    async with stage.client.hold(COMES) as transfer:
        kill(stage.node.pid)
        await stage.node.wait()
        assert is_running(core)
        await stage.node.start()

        async def back() -> bool:
            return (await stage.panel.info()).started

        await eventually(back, "the node is back", errors=(PanelError, OSError))
        await transfer.wait_rounds(3)
    transfer.check()
    assert core_pid(stage.node) == core
    await stage.assert_runs(changed)


def listening(pid: int) -> set[tuple[str, Any]]:
    """(kind, address) of the sockets that a process offers on the network."""
    offered = psutil.Process(pid).net_connections("inet")
    return {(item.type.name, item.laddr) for item in offered if item.status in ("LISTEN", "NONE")}


async def test_every_kind_of_inbound_changes_and_listens_again(stage: Stage, tmp_path: Path) -> None:
    """Some transports do not tell that they could not listen, so their sockets are looked at."""
    config = sample("wide", tmp_path)
    users = make_users(50, config_tags(config))
    await stage.panel.stop()
    await stage.panel.start(config, users)
    core = core_pid(stage.node)
    before = listening(core)
    for item in config["inbounds"]:
        sniffing = item.setdefault("sniffing", {"enabled": True, "destOverride": ["http"]})
        sniffing["routeOnly"] = not sniffing.get("routeOnly", False)
    await stage.panel.start(config, users)
    assert core_pid(stage.node) == core
    assert before
    assert listening(core) == before
    for item in config["inbounds"]:
        if item["tag"] != "API_INBOUND":
            emails = set(await inbound_users(stage.node.run_dir / "core.sock", item["tag"]))
            assert {user.email for user in users} <= emails, item["tag"]
