"""Connections of users who are gone end, and nobody else's: each protocol over TCP and each transport, with real transfers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.supervisor.sessions.cutter import READ_MAX
from pgnode.testing.configs import config_tags, make_config, make_inbound, plain_inbounds
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError, Traffic
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, HeldTransfer, Link, link
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support import xray_command
from tests.support.polling import eventually
from tests.support.processes import run_to_end
from tests.support.tls_target import tls_target

VISION = "xtls-rprx-vision"

#: Inbound -> (protocol, name of the inbound in the sample whose transport it has).
TRANSPORTS = {
    "VLESS WebSocket": ("vless", "VLESS WS"),
    "VLESS XHTTP": ("vless", "VLESS XHTTP"),
    "VMess HTTPUpgrade": ("vmess", "VMess HTTPUpgrade"),
    "Trojan gRPC": ("trojan", "Trojan gRPC TLS"),
}
PLAIN = ["VLESS", "VMess", "Trojan", "Shadowsocks", "Shadowsocks-2022"]
MUX = "VLESS in mux"
TAGS = [*PLAIN, *TRANSPORTS, "VLESS TLS", "VLESS REALITY vision"]
WAYS = [*TAGS, MUX]

#: Bytes of a block of a held transfer.
BLOCK_BYTES = 8192

#: Rounds of a held transfer, which pauses for 20 ms after each: longer than the node looks after a change, and than it looks for
#: what no line tells.
LONG_ROUNDS, SOME_ROUNDS = 130, 30

#: Seconds in which a connection must have ended; the node promises one, a busy machine is given more.
ENDS_SECONDS = 20.0


def in_mux(one: Link, name: str) -> Link:
    """The same way, with all connections within one."""
    return Link(name, {**one.outbound, "mux": {"enabled": True, "concurrency": 8}}, one.source_address)


@dataclass
class Stage:
    """A node with an inbound of each kind, and two users in it, with links from one address and one client."""

    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    inbounds: dict[str, dict[str, Any]]
    faults: ArmedFaults

    def user(self, name: str, tags: Iterable[str] = TAGS, key: str = "") -> pb.User:
        """A user of all inbounds, or of some."""
        return make_user(f"{name}@cut", tags, key=key)

    @contextlib.asynccontextmanager
    async def held(self, names: Sequence[str]) -> AsyncIterator[dict[str, HeldTransfer]]:
        """Held transfers through some links."""
        async with contextlib.AsyncExitStack() as stack:
            yield {name: await stack.enter_async_context(self.client.hold(name)) for name in names}


def links_of(inbounds: Iterable[dict[str, Any]], name: str, key: str = "", source: str = "127.0.0.2") -> list[Link]:
    """A user's links into all inbounds, named "user way"."""
    found = []
    for item in inbounds:
        tag, flow = item["tag"], item["settings"].get("flow", "")
        user = make_user(f"{name}@cut", [tag], key=key)
        one = link(item, user, name=f"{name}{key} {tag}", flow=flow, source_address=source)
        found.append(one)
        if tag == "VLESS":
            found.append(in_mux(one, f"{name}{key} {MUX}"))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    target: Target,
    wide_sample: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stage]:
    sample = {item["tag"]: item for item in wide_sample["inbounds"]}
    certificate = sample["VLESS XHTTP"]["streamSettings"]["tlsSettings"]["certificates"][0]
    folder: Path = tmp_path_factory.mktemp("tls")
    async with tls_target(certificate["certificate"], certificate["key"], folder) as tls_port:
        inbounds = plain_inbounds()
        for tag, (protocol, sampled) in TRANSPORTS.items():
            inbounds.append(make_inbound(tag, protocol, stream=sample[sampled]["streamSettings"]))
        tls = {
            "network": "raw",
            "security": "tls",
            "tlsSettings": sample["VLESS XHTTP"]["streamSettings"]["tlsSettings"],
        }
        inbounds.append(make_inbound("VLESS TLS", "vless", stream=tls))
        reality = dict(sample["VLESS TCP REALITY"]["streamSettings"])
        reality["realitySettings"] = reality["realitySettings"] | {"target": f"127.0.0.1:{tls_port}"}
        inbounds.append(make_inbound("VLESS REALITY vision", "vless", stream=reality, flow=VISION))
        config = make_config(inbounds)
        assert config_tags(config) == TAGS
        links = [one for name in ("gone", "other") for one in links_of(inbounds, name)]
        links += links_of(inbounds[:1], "gone", "new")
        faults = ArmedFaults(tmp_path_factory.mktemp("fault-points"))
        async with (
            NodeProcess(env={**FAST, **faults.environment}) as node,
            node.panel() as panel,
            ClientCore(links, target) as client,
        ):
            await panel.start(config, [])
            yield Stage(node, panel, client, {item["tag"]: item for item in inbounds}, faults)


async def ended(transfers: Iterable[HeldTransfer]) -> None:
    """Wait until all of them have broken."""
    waiting = list(transfers)

    async def all_broken() -> bool:
        return all(one.broken is not None for one in waiting)

    try:
        await eventually(all_broken, "these end", ENDS_SECONDS)
    except AssertionError:
        raise AssertionError(f"these go on: {[one.link_name for one in waiting if one.broken is None]}") from None


async def go_on(transfers: Iterable[HeldTransfer]) -> None:
    """See them all move. TransferError."""
    await asyncio.gather(*(one.wait_rounds(2) for one in transfers))


async def counted(stage: Stage, email: str, transfers: Iterable[HeldTransfer], before: Traffic) -> None:
    """All that these have moved is counted; blocks that were on their way when they ended may be, too."""
    moved = list(transfers)
    up, down = sum(one.sent_bytes for one in moved), sum(one.received_bytes for one in moved)
    uncertain = 2 * BLOCK_BYTES * len(moved)

    async def exact() -> bool:
        now = await stage.panel.traffic(email)
        off = now.uplink_bytes - before.uplink_bytes - up, now.downlink_bytes - before.downlink_bytes - down
        return all(0 <= value <= uncertain for value in off)

    await eventually(exact, f"what {email} moved is counted up to the end")


async def removed_alone(stage: Stage) -> None:
    await stage.panel.sync_user(stage.user("gone", []))


async def removed_after_many(stage: Stage) -> None:
    """The node is looking after the many when this user goes: they are more than it reads."""
    stage.faults.arm("sessions.look", "wait")
    await stage.panel.sync_users([stage.user("gone"), stage.user("other")])
    await stage.faults.reached("sessions.look")
    await stage.panel.sync_users([stage.user("other")])
    stage.faults.disarm("sessions.look")


@pytest.mark.parametrize(
    ("crowd", "removed"), [(0, removed_alone), (READ_MAX + 1, removed_after_many)], ids=["alone", "after many"]
)
async def test_each_way_of_a_removed_user_ends_and_nobody_elses_and_all_is_counted(
    stage: Stage, crowd: int, removed: Callable[[Stage], Awaitable[None]]
) -> None:
    others = [stage.user(f"other {number}", ["VMess"], key=f"{number}") for number in range(crowd)]
    await stage.panel.sync_users([*others, stage.user("gone"), stage.user("other")])
    before = await stage.panel.traffic("gone@cut")
    async with stage.held([f"{name} {way}" for name in ("gone", "other") for way in WAYS]) as held:
        await removed(stage)
        gone = [one for name, one in held.items() if name.startswith("gone")]
        await ended(gone)
        await go_on(one for name, one in held.items() if name.startswith("other"))
    await counted(stage, "gone@cut", gone, before)


async def test_a_changed_account_ends_in_its_inbounds_only(stage: Stage) -> None:
    await stage.panel.sync_users([stage.user("gone"), stage.user("other")])
    changed = stage.user("gone")
    changed.proxies.vless.id = stage.user("gone", key="new").proxies.vless.id
    # In no inbound there is.
    changed.proxies.hysteria.auth = "another one"
    names = [f"gone {way}" for way in ("VLESS", MUX, "VLESS WebSocket", "VMess", "Trojan")]
    async with stage.held([*names, "other VLESS"]) as held:
        await stage.panel.sync_chunked([changed])
        await ended(held[name] for name in names[:3])
        async with stage.client.hold("gonenew VLESS") as new:
            # Longer than the node looks after a change.
            await new.wait_rounds(LONG_ROUNDS)
            await go_on([held["gone VMess"], held["gone Trojan"], held["other VLESS"]])


async def test_who_is_taken_out_of_an_inbound_stays_in_the_others(stage: Stage) -> None:
    await stage.panel.sync_users([stage.user("gone")])
    async with stage.held(["gone VLESS", "gone VMess"]) as held:
        await stage.panel.sync_user(stage.user("gone", [tag for tag in TAGS if tag != "VMess"]))
        await ended([held["gone VMess"]])
        await go_on([held["gone VLESS"]])


async def test_a_message_that_changes_no_account_ends_nothing(stage: Stage) -> None:
    await stage.panel.sync_users([stage.user("gone"), stage.user("other")])
    changed = stage.user("gone", reversed(TAGS))
    changed.proxies.hysteria.auth = "another one"
    changed.email = "Gone@cut"
    async with stage.held(["gone VLESS", f"gone {MUX}", "gone Trojan gRPC", "other VLESS"]) as held:
        await stage.panel.sync_user(changed)
        await stage.panel.sync_user(stage.user("other", ["VMess"]))
        # This one is done after the first, in the background.
        await ended([held["other VLESS"]])
        await held["gone VLESS"].wait_rounds(SOME_ROUNDS)
        await go_on([held["gone VLESS"], held[f"gone {MUX}"], held["gone Trojan gRPC"]])


async def test_who_comes_back_at_once_keeps_what_the_new_account_opened(stage: Stage) -> None:
    await stage.panel.sync_users([stage.user("gone")])
    async with stage.held(["gone VLESS", "gone VLESS WebSocket"]) as old:
        await stage.panel.sync_user(stage.user("gone", []))
        await stage.panel.sync_user(stage.user("gone"))
        async with stage.client.hold("gone VLESS") as new:
            await ended(old.values())
            await new.wait_rounds(LONG_ROUNDS)


async def test_an_id_that_moves_takes_its_new_owners_connections_with_it(stage: Stage) -> None:
    old, other = stage.user("gone"), stage.user("other")
    await stage.panel.sync_users([old, other])
    moved = stage.user("other")
    moved.proxies.vless.id = old.proxies.vless.id
    async with stage.held(["gone VLESS", "other VLESS", "gone VMess"]) as held:
        await stage.panel.sync_chunked([stage.user("gone", key="new"), moved])
        await ended(held.values())
        # The id is the other one's by now.
        async with stage.client.hold("gone VLESS") as new, stage.client.hold("gonenew VLESS") as gone:
            await stage.panel.sync_users([moved])
            await ended([gone])
            await new.wait_rounds(SOME_ROUNDS)


async def test_who_was_rejected_goes_on_until_removed(stage: Stage) -> None:
    await stage.panel.sync_users([stage.user("gone"), stage.user("other")])
    refused = stage.user("gone", key="new")
    refused.proxies.shadowsocks.method = "none that there is"
    async with stage.held(["gone VLESS", "other VLESS"]) as held:
        with pytest.raises(PanelError):
            await stage.panel.sync_user(refused)
        await held["gone VLESS"].wait_rounds(SOME_ROUNDS)
        await stage.panel.sync_users([stage.user("other")])
        await ended([held["gone VLESS"]])
        await go_on([held["other VLESS"]])


async def test_an_operator_sees_and_ends_a_users_connections(stage: Stage) -> None:
    await stage.panel.sync_users([stage.user("gone"), stage.user("other")])

    async def said(*words: str) -> Any:
        command = [sys.executable, "-m", "pgnode", "users", *words, "--json"]
        code, output = await run_to_end(command, env=stage.node.environment())
        assert code == 0, output
        return json.loads(output)

    names = ["gone VLESS", "gone Trojan gRPC", "other VLESS"]
    async with stage.held(names) as held:

        async def alone() -> bool:
            # The core prints a line about a connection some moments after it was made, and others whose connections have just
            # ended count for a moment.
            shown = (await said("gone@cut", "--sessions"))["sessions"]
            own = all(one["address"] == "127.0.0.2" and not one["shared"] for one in shown)
            return own and {"VLESS", "Trojan gRPC"} <= {one["inbound"] for one in shown}

        await eventually(alone, "the user's own connections alone")
        status = (await told_by(stage.node))["report"]
        assert status["connections"]["VLESS"] >= 2
        assert status["connections"].keys() == set(TAGS)
        assert (await said("gone@cut", "--disconnect"))["ended"] >= 2
        await ended([held["gone VLESS"], held["gone Trojan gRPC"]])
        async with stage.client.hold("gone VLESS") as again:
            await again.wait_rounds(SOME_ROUNDS)
        await go_on([held["other VLESS"]])


async def told_by(node: NodeProcess) -> Any:
    """What ``pgnode status`` says for programs."""
    command = [sys.executable, "-m", "pgnode", "status", "--json"]
    return json.loads((await run_to_end(command, env=node.environment()))[1])


# --- nodes of their own -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def two_users(
    target: Target, node: NodeProcess, config: dict[str, Any]
) -> AsyncIterator[tuple[PanelClient, ClientCore, dict[str, HeldTransfer]]]:
    """A node with two users who hold a connection each, from an address of their own."""
    inbounds = config["inbounds"]
    links = [*links_of(inbounds, "gone"), *links_of(inbounds, "other", source="127.0.0.3")]
    async with node.panel() as panel, ClientCore(links, target) as client:
        await panel.start(config, [make_user(f"{name}@cut", ["VLESS"]) for name in ("gone", "other")])
        async with client.hold("gone VLESS") as gone, client.hold("other VLESS") as other:
            yield panel, client, {"gone": gone, "other": other}


async def test_an_executable_core_is_reached_from_outside(target: Target, short_dir: Path) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    env = {**FAST, "XRAY_EXECUTABLE_PATH": str(xray_command.install(short_dir))}
    async with NodeProcess(env=env) as node, two_users(target, node, config) as (panel, _, held):
        assert not (node.run_dir / "reach.sock").exists()
        await panel.sync_user(make_user("gone@cut", []))
        await ended([held["gone"]])
        await go_on([held["other"]])


async def test_without_lines_addresses_tell(target: Target) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    config["log"]["access"] = "none"
    async with NodeProcess(env=FAST) as node, two_users(target, node, config) as (panel, _, held):
        await panel.sync_user(make_user("gone@cut", []))
        await ended([held["gone"]])
        await go_on([held["other"]])


async def test_what_a_killed_supervisor_promised_is_done_by_the_next_one(target: Target, short_dir: Path) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    faults = ArmedFaults(short_dir / "faults")
    env = {**FAST, **faults.environment}
    async with NodeProcess(env=env) as node, two_users(target, node, config) as (panel, _, held):
        faults.arm("sessions.look", "kill")
        await panel.sync_user(make_user("gone@cut", []))
        await node.wait()
        faults.disarm("sessions.look")
        await go_on(held.values())
        await node.start()
        await ended([held["gone"]])
        await go_on([held["other"]])


async def test_off_means_off(target: Target) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    async with (
        NodeProcess(env={**FAST, "CUT_SESSIONS": "off"}) as node,
        two_users(target, node, config) as (panel, _, held),
    ):
        await panel.sync_user(make_user("gone@cut", []))
        await held["gone"].wait_rounds(SOME_ROUNDS)
