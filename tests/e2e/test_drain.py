"""``pgnode drain`` with real transfers: those who are connected go on, nobody new comes, and all come back afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2

from pgnode.testing.configs import config_tags, make_config, make_inbound, plain_inbounds
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.ports import free_port
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, HeldTransfer, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import WITH_GRPC
from tests.support.core_lists import inbound_tags, inbound_users
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, run_to_end

#: Inbounds that a drain takes out, and those that it leaves, with what is said of them.
TAKEN = ["HTTPUpgrade", "Socks", "Static", "Trojan", "VLESS", "VMess", "WebSocket"]
STAYS = {
    "Shadowsocks": "what goes over UDP would end with it",
    "gRPC": "its connections would end with it (grpc)",
    "XHTTP": "its connections would end with it (xhttp)",
    "Hysteria": "its connections would end with it (hysteria)",
}
USERS = 30


@dataclass
class Stage:
    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    faults: ArmedFaults
    config: dict[str, Any]
    metrics_port: int

    @property
    def tags(self) -> list[str]:
        return config_tags(self.config)

    async def begin(self) -> None:
        """Have the node as every test finds it."""
        await self.panel.start(self.config, self.users(), exclude_inbounds=["Static"], timeout_seconds=60)

    def users(self) -> list[pb.User]:
        return [make_user("held@e2e", self.tags), *make_users(USERS, self.tags)]

    async def command(self, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pgnode", *arguments]
        return await run_to_end(command, env=self.node.environment(), timeout_seconds=200)

    async def drain(self, *arguments: str) -> dict[str, Any]:
        """What ``pgnode drain`` says, which has to go well."""
        code, text = await self.command("drain", *arguments, "--json")
        assert code == 0, text
        found: dict[str, Any] = json.loads(text)
        return found

    async def there(self) -> list[str]:
        """The inbounds that the core lists."""
        return sorted(await inbound_tags(self.node.run_dir / "core.sock"))

    async def is_drained(self) -> bool:
        return await self.there() == sorted(STAYS)

    async def is_whole(self) -> bool:
        return await self.there() == sorted(self.tags)

    async def in_core(self, users: Iterable[pb.User]) -> bool:
        """Whether each inbound has exactly these."""
        wanted = {user.email for user in users}
        for tag in self.tags:
            if tag in ("Static", "Socks"):
                continue
            if (await inbound_users(self.node.run_dir / "core.sock", tag)).keys() != wanted:
                return False
        return True

    async def page(self, name: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://127.0.0.1:{self.metrics_port}/{name}", timeout=30)

    async def over_grpc(self) -> int:
        """What gRPC's health service says."""
        certificate = await asyncio.to_thread(self.node.ca_file.read_bytes)
        async with GrpcNode(f"127.0.0.1:{self.node.grpc_port}", self.node.api_key, certificate) as caller:
            return await caller.health()

    @contextlib.asynccontextmanager
    async def held(self, *names: str) -> AsyncIterator[list[HeldTransfer]]:
        """Transfers through these inbounds, none of which may break."""
        async with contextlib.AsyncExitStack() as stack:
            transfers = [await stack.enter_async_context(self.client.hold(name)) for name in names or TRANSFERS]
            yield transfers
            await go_on(transfers)
        for transfer in transfers:
            transfer.check()


#: Hysteria is not among them: its client takes half a minute to notice that a core has ended.
TRANSFERS = [tag for tag in [*TAKEN, *STAYS] if tag not in ("Static", "Socks", "Hysteria")]


async def go_on(transfers: Iterable[HeldTransfer]) -> None:
    await asyncio.gather(*(transfer.wait_rounds(3, 60) for transfer in transfers))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    target: Target, wide_sample: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    sample = {item["tag"]: item for item in wide_sample["inbounds"]}
    inbounds = [item for item in plain_inbounds() if item["tag"] != "Shadowsocks-2022"]
    for tag, protocol, of in (
        ("WebSocket", "vless", "VLESS WS"),
        ("HTTPUpgrade", "vmess", "VMess HTTPUpgrade"),
        ("gRPC", "trojan", "Trojan gRPC TLS"),
        ("XHTTP", "vless", "VLESS XHTTP"),
        ("Hysteria", "hysteria", "Hysteria"),
    ):
        settings = {"version": 2} if protocol == "hysteria" else {}
        inbounds.append(make_inbound(tag, protocol, stream=sample[of]["streamSettings"], **settings))
    user = make_user("held@e2e", [item["tag"] for item in inbounds])
    links = [link(item, user, name=item["tag"]) for item in inbounds]
    fresh = make_user("fresh@e2e", ["VLESS"])
    links.append(link(inbounds[0], fresh, name="fresh"))
    static = make_user("static@e2e", ["Static"])
    inbounds.append(make_inbound("Static", "trojan"))
    inbounds[-1]["settings"]["clients"] = [{"email": "static@e2e", "password": static.proxies.trojan.password}]
    links.append(link(inbounds[-1], static, name="static"))
    inbounds.append(
        {
            "tag": "Socks",
            "listen": "127.0.0.1",
            "port": free_port(),
            "protocol": "socks",
            "settings": {"auth": "noauth"},
        }
    )
    faults, metrics_port = ArmedFaults(tmp_path_factory.mktemp("fault-points")), free_port()
    env = {**WITH_GRPC, **faults.environment, "METRICS_PORT": str(metrics_port)}
    # A change of users is held up here, and a stop is followed by a start.
    env |= {"WRITE_TIMEOUT_SECONDS": "120", "STOP_LINGER_SECONDS": "60"}
    async with NodeProcess(env=env) as node, node.panel() as panel, ClientCore(links, target) as client:
        yield Stage(node, panel, client, faults, make_config(inbounds), metrics_port)


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def begun(stage: Stage) -> None:
    await stage.begin()


async def test_a_drain_cuts_nobody_and_all_come_back(stage: Stage) -> None:
    core, users = core_pid(stage.node), stage.users()
    assert await stage.over_grpc() == health_pb2.HealthCheckResponse.SERVING
    async with stage.held(*TRANSFERS, "Hysteria") as transfers:
        found = await stage.drain()
        assert found["drain"]["away"] == TAKEN
        said = {
            one.partition("'")[2].partition("'")[0]: one.partition(" keeps listening: ")[2]
            for one in found["drain"]["stays"]
        }
        assert said == STAYS
        assert found["open"] >= len(TRANSFERS), "all but those over UDP are counted"
        assert await stage.is_drained()
        await go_on(transfers)
        # It is said, and only to those who ask whom they may send here.
        ready = await stage.page("readyz")
        assert (ready.status_code, ready.json()["because"]) == (503, ["the node is being drained"])
        assert await stage.over_grpc() == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await stage.page("livez")).status_code == 200
        assert (await stage.page("health")).status_code == 200
        assert "pgnode_draining 1" in (await stage.page("metrics")).text
        assert (await stage.command("health", "--ready"))[0] == 1
        assert (await stage.command("health", "--live"))[0] == 0
        code, text = await stage.command("status")
        assert (code, "until pgnode drain --cancel or a start by the panel" in " ".join(text.split())) == (0, True), (
            text
        )
        # The panel finds a node that is well.
        assert (await stage.panel.info()).running
        await stage.panel.backend_stats()
        for tag in ("VLESS", "WebSocket"):
            assert await stage.client.refused(tag)
        for tag in STAYS:
            await stage.client.move(tag, 1000, 1000)
        # Users are changed as ever.
        gone, other = users.pop(), make_user(users.pop().email, stage.tags, key="other")
        users += [other, make_user("fresh@e2e", stage.tags)]
        await stage.panel.sync_user(pb.User(email=gone.email))
        await stage.panel.sync_user(other)
        await stage.panel.sync_user(users[-1])
        many = make_users(400, stage.tags, name="many")
        await stage.panel.sync_chunked(many)
        assert (await inbound_users(stage.node.run_dir / "core.sock", "gRPC")).keys() == {
            user.email for user in [*users, *many]
        }
        await stage.panel.sync_users(users)
        assert await stage.is_drained()
        code, text = await stage.command("drain", "--cancel")
        assert (code, "the node is no longer drained" in text) == (0, True), text
        assert await stage.is_whole()
        assert await stage.in_core(users)
        assert (await inbound_users(stage.node.run_dir / "core.sock", "Static")).keys() == {"static@e2e"}
        for name in ("fresh", "static", *TRANSFERS):
            await stage.client.move(name, 1000, 1000)
        assert (await stage.page("readyz")).status_code == 200
        assert await stage.over_grpc() == health_pb2.HealthCheckResponse.SERVING
        assert "pgnode_draining 0" in (await stage.page("metrics")).text
    assert core_pid(stage.node) == core
    assert (await stage.command("drain", "--cancel"))[1] == "the node was not being drained\n"


async def test_a_drain_ends_by_itself(stage: Stage) -> None:
    async with stage.held("VLESS"):
        found = await stage.drain("--for", "2s")
        assert found["drain"]["until"] - found["drain"]["since"] == pytest.approx(2)
        await eventually(stage.is_whole, "the inbounds are back")
        await eventually(lambda: stage.page("readyz"), "it answers")


async def test_a_start_ends_a_drain_unless_it_is_held(stage: Stage) -> None:
    core = core_pid(stage.node)
    async with stage.held("VLESS", "Trojan", "gRPC"):
        await stage.drain()
        await stage.begin()
        assert await stage.is_whole()
        assert (await stage.page("readyz")).status_code == 200
        await stage.drain("--hold")
        # The same start, a stop and a start, and a start with one inbound more and another one changed.
        await stage.begin()
        assert await stage.is_drained()
        await stage.panel.stop()
        await stage.begin()
        assert await stage.is_drained()
        before = stage.config["inbounds"]
        socks = {**before[-1], "port": free_port()}
        stage.config["inbounds"] = [*before[:-1], socks, make_inbound("More", "vless")]
        try:
            await stage.begin()
            assert await stage.is_drained()
            assert (await stage.drain("--hold"))["drain"]["away"] == sorted([*TAKEN, "More"])
            await stage.drain("--cancel")
            assert await stage.is_whole()
            assert await stage.in_core(stage.users())
        finally:
            stage.config["inbounds"] = before
        # One that ends the drain and changes the core.
        await stage.drain()
        await stage.begin()
        assert await stage.is_whole()
    assert core_pid(stage.node) == core


async def test_a_start_that_is_refused_ends_nothing(stage: Stage) -> None:
    await stage.drain()
    config = make_config([*stage.config["inbounds"], {**make_inbound("Bad", "vless"), "port": "none"}])
    with pytest.raises(PanelError, match="Bad"):
        await stage.panel.start(config, stage.users(), timeout_seconds=60)
    assert await stage.is_drained()


async def test_a_new_core_is_drained_too(stage: Stage) -> None:
    await stage.drain("--hold")
    first = core_pid(stage.node)
    kill(first)

    async def again() -> bool:
        return core_pid(stage.node) not in (0, first) and await stage.is_drained()

    await eventually(again, "the next core has the inbounds that stay", 60, errors=(Exception,))
    # Also one that a start brings.
    config = {**stage.config, "dns": {"servers": ["localhost"]}}
    await stage.panel.start(config, stage.users(), exclude_inbounds=["Static"], timeout_seconds=60)
    assert await stage.is_drained()
    await stage.drain("--cancel")
    assert await stage.is_whole()
    assert await stage.in_core(stage.users())
    await stage.client.move("VLESS", 1000, 1000)


@pytest.mark.parametrize("way", ["killed", "restart"])
async def test_the_next_supervisor_goes_on(stage: Stage, way: str) -> None:
    core = core_pid(stage.node)
    async with stage.held() as transfers:
        await stage.drain()
        if way == "killed":
            kill(stage.node.pid)
            await stage.node.wait()
            await stage.node.start()
        else:
            code, text = await stage.command("restart")
            assert code == 0, text
        assert await stage.is_drained()
        assert (await stage.page("readyz")).status_code == 503
        await stage.panel.sync_user(make_user("fresh@e2e", stage.tags))
        await go_on(transfers)
        await stage.drain("--cancel")
        assert await stage.is_whole()
        assert await stage.in_core([*stage.users(), make_user("fresh@e2e", stage.tags)])
        assert (await inbound_users(stage.node.run_dir / "core.sock", "Static")).keys() == {"static@e2e"}
        await stage.client.move("fresh", 1000, 1000)
    assert core_pid(stage.node) == core


@pytest.mark.parametrize("point", ["drain.taken_out", "drain.put_in"])
async def test_a_supervisor_that_is_killed_in_the_middle(stage: Stage, point: str) -> None:
    core = core_pid(stage.node)
    async with stage.held():
        if point == "drain.put_in":
            await stage.drain()
        stage.faults.arm(point, "kill", skip=2)
        code, _ = await stage.command("drain", *(["--cancel"] if point == "drain.put_in" else []))
        assert code != 0
        await stage.node.wait()
        await stage.node.start()
        # The node answers a moment before it has the core that it found.
        await eventually(
            stage.is_whole if point == "drain.put_in" else stage.is_drained, "the drain is brought to its end"
        )
        await stage.drain("--cancel")
        assert await stage.is_whole()
        assert await stage.in_core(stage.users())
    assert core_pid(stage.node) == core


async def test_an_inbound_that_nothing_keeps_away_comes_back(stage: Stage) -> None:
    """As after a supervisor that was killed while it had an inbound out of the core to exchange its users."""
    core = core_pid(stage.node)
    async with stage.held("VLESS"):
        stage.faults.arm("swap.taken_out", "kill")
        turn = 0
        # An inbound that was swapped a moment ago is altered for some seconds.
        while not stage.faults.reached_by("swap.taken_out"):
            turn += 1
            swapped = [make_user(user.email, ["VLESS"], key=str(turn)) for user in make_users(5_000, ["VLESS"])]
            with contextlib.suppress(PanelError, NoAnswerError, OSError):
                await stage.panel.sync_users([make_user("held@e2e", stage.tags), *swapped])
        await stage.node.wait()
        assert not await stage.is_whole()
        await stage.node.start()
        await eventually(stage.is_whole, "the inbound is back")
        await stage.client.move("VLESS", 1000, 1000)
    assert core_pid(stage.node) == core


@pytest.mark.parametrize("way", ["drained", "back"])
async def test_a_change_of_many_users_under_way(stage: Stage, target: Target, way: str) -> None:
    """The drain begins, or ends, in the middle of it."""
    tags, core = ["VLESS", "Trojan", "gRPC"], core_pid(stage.node)
    point = "long_change.next_part"
    users = make_users(6_000, tags, name="many")
    await stage.panel.sync_users(users)
    changed = [make_user(user.email, tags, key="1") for user in users[200:]]
    changed += make_users(200, tags, name="more")
    if way == "back":
        await stage.drain()
    stage.faults.arm(point, "wait", skip=3)
    body = pb.Users(users=changed)
    changing = asyncio.create_task(stage.panel.call("PUT", "/users/sync", body, pb.Empty, timeout_seconds=120))
    try:
        await stage.faults.reached(point, timeout_seconds=60)
        await stage.drain(*(["--cancel"] if way == "back" else []))
    finally:
        stage.faults.disarm(point)
    await changing
    if way == "drained":
        assert await stage.is_drained()
        await stage.drain("--cancel")
    assert await stage.is_whole()
    wanted = {user.email for user in changed}
    for tag in tags:
        assert (await inbound_users(stage.node.run_dir / "core.sock", tag)).keys() == wanted, tag
    # With the accounts that they have now, and not those of before.
    last = changed[0].email
    links = [
        link(item, make_user(last, tags, key=key), name=key or "before")
        for item in stage.config["inbounds"]
        if item["tag"] == "VLESS"
        for key in ("1", "")
    ]
    async with ClientCore(links, target) as client:
        await client.move("1", 1000, 1000)
        assert await client.refused("before")
    assert core_pid(stage.node) == core
