"""Users change while the core runs: added, given new keys, removed, in every way there is, and nobody is dropped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.configs import config_tags, make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.support.core_lists import inbound_users
from tests.support.processes import core_pid

#: A silence of a transfer while users change; what a user would notice. An idle machine shows a few milliseconds.
LONGEST_SILENCE_SECONDS = 10.0

CHANGED = ["added", "rekeyed", "removed", "cased", "batched"]


@dataclass
class Stage:
    """A node with the plain inbounds and a client core with links into all of them."""

    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    config: dict[str, Any]
    tags: list[str]

    def base(self) -> list[pb.User]:
        """The users that every test begins with: 200, and one who holds transfers."""
        return [make_user("holder@e2e", self.tags), *make_users(200, self.tags)]

    async def emails(self, tag: str) -> set[str]:
        return set(await inbound_users(self.node.run_dir / "core.sock", tag))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(node: NodeProcess, panel: PanelClient, target: Target) -> AsyncIterator[Stage]:
    config = make_config(plain_inbounds())
    tags = config_tags(config)
    links = [link(item, make_user("holder@e2e", tags), name=item["tag"]) for item in config["inbounds"]]
    for name in CHANGED:
        for item in config["inbounds"]:
            for key in ("", "new"):
                user = make_user(f"{name}@e2e", tags, key=key)
                links.append(link(item, user, name=f"{name} {item['tag']} {key}".strip()))
    async with ClientCore(links, target) as client:
        stage = Stage(node, panel, client, config, tags)
        await panel.start(config, stage.base())
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """The stage with its first users again."""
    await whole_stage.panel.sync_users(whole_stage.base())
    return whole_stage


INBOUNDS = ["VLESS", "VMess", "Trojan", "Shadowsocks", "Shadowsocks-2022"]


@pytest.mark.parametrize("tag", INBOUNDS)
async def test_added_user_gets_in(stage: Stage, tag: str) -> None:
    assert await stage.client.refused(f"added {tag}", timeout_seconds=1.0)
    await stage.panel.sync_user(make_user("added@e2e", [tag]))
    await stage.client.move(f"added {tag}", 10_000, 10_000)
    others = [other for other in stage.tags if other != tag]
    assert not [other for other in others if "added@e2e" in await stage.emails(other)]


@pytest.mark.parametrize("tag", INBOUNDS)
async def test_new_key_replaces_the_old_one(stage: Stage, tag: str) -> None:
    await stage.panel.sync_user(make_user("rekeyed@e2e", stage.tags))
    await stage.client.move(f"rekeyed {tag}", 10_000, 10_000)
    await stage.panel.sync_user(make_user("rekeyed@e2e", stage.tags, key="new"))
    await stage.client.move(f"rekeyed {tag} new", 10_000, 10_000)
    assert await stage.client.refused(f"rekeyed {tag}", timeout_seconds=1.0)


@pytest.mark.parametrize("tag", INBOUNDS)
async def test_removed_user_is_turned_away(stage: Stage, tag: str) -> None:
    await stage.panel.sync_user(make_user("removed@e2e", stage.tags))
    await stage.client.move(f"removed {tag}", 10_000, 10_000)
    await stage.panel.sync_user(make_user("removed@e2e", []))
    assert await stage.client.refused(f"removed {tag}", timeout_seconds=1.0)
    assert "removed@e2e" not in await stage.emails(tag)


async def test_emails_are_compared_in_lower_case(stage: Stage) -> None:
    await stage.panel.sync_user(make_user("cased@e2e", stage.tags))
    await stage.client.move("cased VLESS", 1_000, 1_000)
    changed = make_user("cased@e2e", stage.tags, key="new")
    changed.email = "Cased@E2E"
    await stage.panel.sync_user(changed)
    await stage.client.move("cased VLESS new", 1_000, 1_000)
    assert await stage.client.refused("cased VLESS", timeout_seconds=1.0)
    assert len(await stage.emails("VLESS")) == 202


async def test_full_sync_makes_the_set_exactly_this(stage: Stage) -> None:
    users = [make_user("holder@e2e", ["VLESS"]), make_user("batched@e2e", ["Trojan", "Shadowsocks-2022"])]
    await stage.panel.sync_users(users)
    found = {tag: await stage.emails(tag) for tag in stage.tags}
    assert found == {
        "VLESS": {"holder@e2e"},
        "VMess": set(),
        "Trojan": {"batched@e2e"},
        "Shadowsocks": set(),
        "Shadowsocks-2022": {"batched@e2e"},
    }
    await stage.client.move("batched Shadowsocks-2022", 1_000, 1_000)
    await stage.panel.sync_users([])
    assert not [tag for tag in stage.tags if await stage.emails(tag)]


async def test_chunked_sync_is_a_delta(stage: Stage) -> None:
    added = make_users(150, ["VLESS", "Trojan"], name="chunk")
    gone = make_users(50, [])
    await stage.panel.sync_chunked([*added, *gone], users_per_chunk=40)
    base = {user.email for user in stage.base()} - {user.email for user in gone}
    assert await stage.emails("VLESS") == base | {user.email for user in added}
    assert await stage.emails("VMess") == base


async def test_transfers_survive_every_change_of_users(stage: Stage) -> None:
    """One transfer per inbound goes on through single syncs, 300 in chunks and full sets of 5,000: none is dropped."""
    core_before = core_pid(stage.node)
    assert core_before
    async with contextlib.AsyncExitStack() as holding:
        transfers = [await holding.enter_async_context(stage.client.hold(tag)) for tag in stage.tags]

        async def all_go_on() -> None:
            for transfer in transfers:
                await transfer.wait_rounds(3)

        for number in range(10):
            await stage.panel.sync_user(make_user(f"single{number}@e2e", stage.tags))
            await stage.panel.sync_user(make_user(f"user{number}@demo", stage.tags, key="new"))
            await stage.panel.sync_user(make_user(f"user{number + 50}@demo", []))
        await all_go_on()

        await stage.panel.sync_chunked(make_users(300, stage.tags, name="chunk"))
        await all_go_on()

        holder = make_user("holder@e2e", stage.tags)
        large = make_users(4_999, stage.tags, name="large")
        await stage.panel.sync_users([holder, *large])
        await all_go_on()
        for tag in stage.tags:
            assert await stage.emails(tag) == {"holder@e2e", *(user.email for user in large)}

        await stage.panel.sync_users(stage.base())
        await all_go_on()
        assert await stage.emails("Shadowsocks-2022") == {user.email for user in stage.base()}

    assert [transfer.broken for transfer in transfers] == [None] * len(transfers)
    assert max(transfer.longest_silence_seconds for transfer in transfers) < LONGEST_SILENCE_SECONDS
    assert core_pid(stage.node) == core_before
    for tag in stage.tags:
        await stage.client.move(tag, 1_000, 1_000)


async def test_concurrent_changes_all_take_effect(stage: Stage) -> None:
    users = make_users(60, stage.tags, name="many")
    await asyncio.gather(*(stage.panel.sync_user(user) for user in users))
    assert {user.email for user in users} <= await stage.emails("VLESS")
    await asyncio.gather(*(stage.panel.sync_user(make_user(user.email, [])) for user in users))
    assert not {user.email for user in users} & await stage.emails("VLESS")
