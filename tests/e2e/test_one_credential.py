"""Users who ask for each other's credentials, by every way there is: the core has what the node says, and lets them in."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.configs import config_tags, make_config, make_inbound, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, PanelError
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link, ss2022_user_key
from pgnode.testing.users import SS2022_METHOD, make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.stored import StoredUsers, stored_users

KEYS = range(5)
NAMES = [f"name{number}@e2e" for number in range(6)]
STEPS = 250
PAIRS = 40
#: Drawn once; a failure shows the steps.
SEED = 20261129

#: Tag -> whether the core tries one user after the other there, so that several may have one credential.
TRIES_ALL = "Shadowsocks"


@dataclass
class Stage:
    """A node, and a client core with a link for each key into each inbound."""

    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    config: dict[str, Any]
    tags: list[str]

    def user(self, name: str, key: int, tags: list[str] | None = None) -> pb.User:
        """A user with all credentials of a key."""
        made = make_user(f"key {key}", self.tags if tags is None else tags)
        made.email = name
        return made

    def keeper(self) -> pb.User:
        """A user whom nothing happens to: there is somebody in each inbound."""
        return make_user("keeper@e2e", self.tags)

    async def send(self, what: str, users: list[pb.User], number: int) -> PanelError | None:
        """Make a change; return its error."""
        try:
            if what == "single":
                await self.panel.sync_user(users[0])
            elif what == "set":
                await self.panel.sync_users([self.keeper(), *users])
            else:
                more = make_users(1, self.tags, name=f"other{number}-") if what == "with others" else []
                await self.panel.sync_chunked([*users, *more])
        except PanelError as error:
            return error
        return None

    async def check(self) -> StoredUsers:
        """The core lists who is desired, and nobody is on the list without somebody who has the same."""
        stored = stored_users(self.node)
        for tag in self.tags:
            listed = await inbound_users(self.node.run_dir / "core.sock", tag)
            assert set(listed) == {user.email for user in stored.desired.values() if tag in user.inbounds}, tag
        taken = {
            (tag, user.proxies.vless.id)
            for user in stored.desired.values()
            for tag in user.inbounds
            if tag != TRIES_ALL
        }
        assert len(taken) == sum(len(set(user.inbounds) - {TRIES_ALL}) for user in stored.desired.values())
        for failed in stored.failed.values():
            asked = pb.User.FromString(failed.user)
            assert any((tag, asked.proxies.vless.id) in taken for tag in asked.inbounds), failed.cause
        return stored

    async def check_traffic(self) -> None:
        """Whoever has a key gets in with it, in every inbound where that user is."""
        for user in stored_users(self.node).desired.values():
            for key in KEYS:
                if user.proxies.vless.id == self.user("", key).proxies.vless.id:
                    for tag in user.inbounds:
                        await self.client.move(f"{tag} {key}", 2_000, 2_000)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(
    node: NodeProcess, panel: PanelClient, target: Target, wide_sample: dict[str, Any]
) -> AsyncIterator[Stage]:
    hysteria = next(item for item in wide_sample["inbounds"] if item["tag"] == "Hysteria")
    inbounds = [*plain_inbounds(), make_inbound("Hysteria", "hysteria", stream=hysteria["streamSettings"], version=2)]
    config = make_config(inbounds)
    tags = config_tags(config)
    links = [
        link(item, make_user(f"key {key}", tags), name=f"{item['tag']} {key}") for item in inbounds for key in KEYS
    ]
    odd = make_user("key 0", tags)
    odd.proxies.vless.id = odd_id(odd.proxies.vless.id)
    links.append(link(inbounds[0], odd, name="VLESS odd"))
    async with ClientCore(links, target) as client:
        stage = Stage(node, panel, client, config, tags)
        await panel.start(config, [stage.keeper()])
        yield stage


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """The stage with its first user again."""
    await whole_stage.panel.sync_users([whole_stage.keeper()])
    return whole_stage


def odd_id(text: str) -> str:
    """The same id to the core, which ignores bytes 7 and 8."""
    return f"{text[:14]}ffff{text[18:]}"


async def test_an_id_that_is_taken_and_then_given_up_by_its_first_owner(stage: Stage) -> None:
    await stage.panel.sync_users([stage.keeper(), stage.user("alice@e2e", 0), stage.user("bob@e2e", 1)])
    await stage.panel.sync_user(stage.user("bob@e2e", 0))
    assert set((await stage.check()).failed) == {"alice@e2e"}
    await stage.panel.sync_user(stage.user("alice@e2e", 2))
    assert not (await stage.check()).failed
    await stage.check_traffic()
    await stage.panel.sync_user(stage.user("bob@e2e", 1))
    await stage.panel.sync_user(stage.user("alice@e2e", 0))
    await stage.check_traffic()
    assert await stage.client.refused("VLESS 2", timeout_seconds=1.0)


async def test_a_name_that_is_changed_by_adding_the_new_one_first(stage: Stage) -> None:
    await stage.panel.sync_user(stage.user("old@e2e", 0))
    async with stage.client.hold("VLESS 0") as held:
        await stage.panel.sync_user(stage.user("new@e2e", 0))
        await stage.check()
        await stage.panel.sync_user(stage.user("old@e2e", 0, []))
        # It was the old name's, and ends with it.
        await eventually(lambda: held.broken, "the old name's connection ends")
    assert not (await stage.check()).failed
    await stage.check_traffic()


async def test_forty_pairs_swap_their_ids_by_single_changes_at_once(stage: Stage, target: Target) -> None:
    def users(swapped: bool) -> list[pb.User]:
        made = []
        for number in range(PAIRS):
            for name, key in (("a", "b"), ("b", "a")) if swapped else (("a", "a"), ("b", "b")):
                made.append(make_user(f"pair {number} key {key}", ["VLESS"]))
                made[-1].email = f"pair{number}{name}@e2e"
        return made

    links = [link(stage.config["inbounds"][0], user, name=user.email) for user in users(swapped=True)]
    await stage.panel.sync_users([stage.keeper(), *users(swapped=False)])
    panels = [stage.node.panel() for _ in range(8)]
    async with contextlib.AsyncExitStack() as stack, ClientCore(links, target) as client:
        for panel in panels:
            await stack.enter_async_context(panel)
        changes = list(enumerate(users(swapped=True)))
        # Nobody keeps an order here: who is robbed first, and by whom, is up to chance.
        random.Random(SEED).shuffle(changes)
        await asyncio.gather(*(panels[number % 8].sync_user(user) for number, user in changes))
        stored = await stage.check()
        assert not stored.failed
        assert {name: one.proxies.vless.id for name, one in stored.desired.items() if name.startswith("pair")} == {
            user.email: user.proxies.vless.id for _, user in changes
        }
        await asyncio.gather(*(client.move(user.email, 1_000, 1_000) for _, user in changes))


async def test_ids_that_differ_in_what_the_core_ignores_are_one_to_it(stage: Stage) -> None:
    await stage.panel.sync_user(stage.user("alice@e2e", 0, ["VLESS"]))
    await stage.client.move("VLESS odd", 1_000, 1_000)
    other = stage.user("bob@e2e", 1, ["VLESS"])
    other.proxies.vless.id = odd_id(stage.user("", 0).proxies.vless.id)
    await stage.panel.sync_user(other)
    stored = stored_users(stage.node)
    assert stored.failed["alice@e2e"].cause == "has the same VLESS id as 'bob@e2e', in inbound 'VLESS'"
    await stage.panel.sync_user(stage.user("bob@e2e", 1, []))
    await stage.client.move("VLESS 0", 1_000, 1_000)
    assert not stored_users(stage.node).failed


async def test_keys_that_differ_in_how_they_are_written_are_one(stage: Stage) -> None:
    alice, bob = (stage.user(name, key, ["Shadowsocks-2022"]) for name, key in (("alice@e2e", 0), ("bob@e2e", 1)))
    key = ss2022_user_key(SS2022_METHOD, alice.proxies.shadowsocks.password)
    # Of the last character but the padding four bits count for nothing.
    bob.proxies.shadowsocks.password = f"{key[:-3]}{chr(ord(key[-3]) + 1)}=="
    await stage.panel.sync_user(alice)
    await stage.panel.sync_user(bob)
    cause = stored_users(stage.node).failed["alice@e2e"].cause
    assert cause == "has the same Shadowsocks-2022 key as 'bob@e2e', in inbound 'Shadowsocks-2022'"
    await stage.panel.sync_user(stage.user("bob@e2e", 1, ["Shadowsocks-2022"]))
    await stage.client.move("Shadowsocks-2022 0", 1_000, 1_000)
    assert not stored_users(stage.node).failed


async def test_both_in_one_set_are_named_by_every_set_and_start(stage: Stage) -> None:
    both = [stage.keeper(), stage.user("alice@e2e", 0), stage.user("bob@e2e", 0)]
    for _round in range(2):
        with pytest.raises(PanelError) as caught:
            await stage.panel.sync_users(both)
        assert caught.value.status == 500
        assert "alice@e2e: has the same VLESS id as 'bob@e2e'" in caught.value.text
        await stage.panel.start(stage.config, both)
        assert set((await stage.check()).failed) == {"alice@e2e"}
    await stage.check_traffic()


async def test_whatever_comes_the_core_has_what_the_node_says(stage: Stage) -> None:
    chance = random.Random(SEED)
    steps: list[str] = []
    for number in range(STEPS):
        users = [
            stage.user(
                name, chance.choice(KEYS), chance.choice([stage.tags, stage.tags, [], chance.sample(stage.tags, 2)])
            )
            for name in chance.sample(NAMES, chance.randint(1, 4))
        ]
        what = chance.choice(["single", "single", "single", "set", "delta", "with others"])
        steps.append(f"{what}: " + ", ".join(f"{user.email} {list(user.inbounds)}" for user in users))
        error = await stage.send(what, users, number)
        assert error is None or (error.status == 500 and "has the same" in error.text), (error, steps[-20:])
        if number % 5 == 0:
            await stage.check()
        if number % 50 == 49:
            await stage.check_traffic()
    await stage.check()
    await stage.check_traffic()


@pytest.mark.parametrize("email", ["x" * 257, "a\nb@e2e", "a>>>b@e2e"])
async def test_a_name_that_no_user_can_have(stage: Stage, email: str) -> None:
    bad = make_user(email, stage.tags)
    with pytest.raises(PanelError) as caught:
        await stage.panel.sync_user(bad)
    assert caught.value.status == 400
    assert len(caught.value.text) < 300
    with pytest.raises(PanelError) as caught:
        await stage.panel.sync_users([stage.keeper(), bad, stage.user("alice@e2e", 0)])
    assert caught.value.status == 500
    assert len(caught.value.text) < 300
    await stage.panel.sync_users([stage.keeper()])
    assert set((await stage.check()).desired) == {"keeper@e2e"}
