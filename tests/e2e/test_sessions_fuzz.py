"""Users change at random while they hold connections: exactly those end that should, and whoever may connect does.

CI tries some changes. ``SESSION_CHANGES=2000 SESSION_USERS=100 pytest tests/e2e/test_sessions_fuzz.py`` tries 2,000 with 200
connections held; SESSION_SEED makes the same ones again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, HeldTransfer, link
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually

CHANGES = int(os.environ.get("SESSION_CHANGES", "12"))
USERS = int(os.environ.get("SESSION_USERS", "6"))
SEED = int(os.environ.get("SESSION_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
TAGS = ("VLESS", "VMess")
KEYS = ("one", "two")
#: Users share addresses, so that none of these tells whose a connection is.
ADDRESSES = 3


@dataclass(frozen=True)
class Wanted:
    """What a user is to be: the key of the account in each inbound, and what is in the message besides."""

    keys: dict[str, str] = field(default_factory=dict)
    other: int = 0


def message(number: int, wanted: Wanted) -> pb.User:
    """The message of a user."""
    user = make_user(f"user{number}@fuzz", [tag for tag in TAGS if tag in wanted.keys], key="")
    if "VLESS" in wanted.keys:
        user.proxies.vless.id = make_user(user.email, [], key=wanted.keys["VLESS"]).proxies.vless.id
    if "VMess" in wanted.keys:
        user.proxies.vmess.id = make_user(user.email, [], key=wanted.keys["VMess"]).proxies.vmess.id
    user.proxies.hysteria.auth = f"in no inbound, {wanted.other}"
    return user


def changed(chance: random.Random, before: Wanted) -> Wanted:
    """One change of a user, or of nothing that matters."""
    tag = chance.choice(TAGS)
    match chance.randrange(6):
        case 0:
            return Wanted()
        case 1:
            return Wanted({one: chance.choice(KEYS) for one in TAGS})
        case 2:
            return Wanted({one: key for one, key in before.keys.items() if one != tag})
        case 3 | 4:
            return replace(before, keys={**before.keys, tag: chance.choice(KEYS)})
        case _:
            return replace(before, other=before.other + 1)


class Holder:
    """The connections that users hold: user and inbound -> the key that it was opened with, and the connection."""

    def __init__(self, client: ClientCore) -> None:
        self._client = client
        self._open: dict[tuple[int, str], tuple[str, HeldTransfer, contextlib.AsyncExitStack]] = {}

    async def follow(self, users: dict[int, Wanted]) -> None:
        """Open what users may have and do not hold."""
        wanted = {(number, tag): key for number, user in users.items() for tag, key in user.keys.items()}
        missing = {place: key for place, key in wanted.items() if place not in self._open}
        await asyncio.gather(*(self._hold(*place, key) for place, key in missing.items()))

    async def _hold(self, number: int, tag: str, key: str) -> None:
        stack = contextlib.AsyncExitStack()
        held = self._client.hold(f"{number} {tag} {key}", pause_seconds=0.1)
        self._open[number, tag] = key, await stack.enter_async_context(held), stack

    async def check(self, users: dict[int, Wanted]) -> None:
        """Those end whose account is not what it was, and no others."""
        gone = {place: held for place, held in self._open.items() if users[place[0]].keys.get(place[1]) != held[0]}
        await eventually(
            lambda: all(held.broken is not None for _, held, _ in gone.values()),
            f"these end: {sorted(gone)} (SESSION_SEED={SEED})",
        )
        for place, (_, _, stack) in gone.items():
            del self._open[place]
            await stack.aclose()
        broken = [place for place, (_, held, _) in self._open.items() if held.broken is not None]
        assert not broken, f"these ended, and should not have (SESSION_SEED={SEED})"

    async def all_move(self) -> None:
        """Everything that is held moves."""
        await asyncio.gather(*(held.wait_rounds(2) for _, held, _ in self._open.values()))

    async def close(self) -> None:
        """End all."""
        for _, _, stack in self._open.values():
            await stack.aclose()


@pytest.mark.timeout(3600)
async def test_exactly_those_end_that_should(panel: PanelClient, target: Target, node: NodeProcess) -> None:
    chance = random.Random(SEED)
    inbounds = [make_inbound("VLESS", "vless"), make_inbound("VMess", "vmess")]
    users = {number: Wanted(dict.fromkeys(TAGS, KEYS[0])) for number in range(USERS)}
    await panel.start(make_config(inbounds), [message(*user) for user in users.items()])
    links = [
        link(
            inbound,
            make_user(f"user{number}@fuzz", [], key=key),
            name=f"{number} {inbound['tag']} {key}",
            source_address=f"127.0.0.{2 + number % ADDRESSES}",
        )
        for number in users
        for inbound in inbounds
        for key in KEYS
    ]
    async with ClientCore(links, target) as client, held_by(client) as holder:
        for change in range(CHANGES):
            await holder.follow(users)
            several = chance.sample(sorted(users), chance.choice([1, 1, 1, 2, 5]))
            for number in several:
                users[number] = changed(chance, users[number])
            messages = [message(number, users[number]) for number in several]
            if len(messages) == 1:
                await panel.sync_user(messages[0])
            elif chance.random() < 0.5:
                await panel.sync_chunked(messages)
            else:
                await panel.sync_users([message(*user) for user in users.items() if user[1].keys])
            await holder.check(users)
            if change % 20 == 19:
                await holder.all_move()
    assert node.returncode is None


@contextlib.asynccontextmanager
async def held_by(client: ClientCore) -> AsyncIterator[Holder]:
    """Connections that end with the test."""
    holder = Holder(client)
    try:
        yield holder
    finally:
        await holder.close()
