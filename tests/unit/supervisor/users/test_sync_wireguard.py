"""Users of WireGuard: keys and addresses move between them by every way there is, and the core has what the table says.

The core's rules are those of a WireGuard inbound (measured): an addition with a known key replaces that peer, addresses are with
whoever was given them last, a removal names an e-mail and says nothing where there is none.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.commands import Command, Kind
from pgnode.store.changes import Journal
from pgnode.supervisor.users.core_users import Outcome
from pgnode.supervisor.users.planning import InboundPlan
from pgnode.supervisor.users.sync import UserSync
from pgnode.supervisor.users.verdicts import Check
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import Account, accounts_of
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.peers import without_key

WG = InboundSpec(tag="wg0", protocol="wireguard", managed=True, kinds=frozenset({"udp"}), pre_shared_key="cd" * 32)
INBOUNDS = {"wg0": WG}
NAMES = ["1", "2", "3", "4"]
_numbers = itertools.count(1)


def peer(
    name: str, key: int, addresses: Iterable[int], tags: Sequence[str] = ("wg0", "VLESS of another core")
) -> pb.User:
    """A user as a panel sends it in a change: with every proxy, and the inbounds of all cores."""
    user = pb.User(email=name, inbounds=tags)
    user.proxies.wireguard.public_key = base64.b64encode(bytes([key]) * 32).decode()
    user.proxies.wireguard.peer_ips.extend(f"10.66.0.{number}/32" for number in addresses)
    user.proxies.trojan.password = "for other cores"
    return user


def networks(account: Account) -> list[str]:
    return without_key(account.detail).split(",")


class PeerCore:
    """One inbound. ``shuffle`` puts calls in the order in which the core does them, where that is open."""

    def __init__(self, shuffle: Callable[[list[Any]], Sequence[Any]] = list) -> None:
        #: Key -> e-mail and account.
        self.peers: dict[str, tuple[str, Account]] = {}
        #: Network -> key of the peer that packets for it go to.
        self.routes: dict[str, str] = {}
        self.there = True
        self.calls: list[tuple[str, str]] = []
        self._shuffle = shuffle

    async def prepare_swap(self, tag: str) -> None:
        raise AssertionError("never swapped")

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        changes = [change for plan in plans for change in plan.changes]
        if chained:
            for change in self._shuffle(changes):
                self.remove(change.old_email)
                self.add(change.new_email, change.new)
        else:
            for change in self._shuffle(changes):
                self.remove(change.old_email)
            for change in self._shuffle(changes):
                self.add(change.new_email, change.new)
        return Outcome()

    def remove(self, email: str | None) -> None:
        if email is None:
            return
        self.calls.append(("remove", email))
        for key, (name, _) in list(self.peers.items()):
            if name == email:
                del self.peers[key]
                self.routes = {item: owner for item, owner in self.routes.items() if owner != key}
                return

    def add(self, email: str | None, account: Account | None) -> None:
        if email is None or account is None:
            return
        self.calls.append(("add", email))
        self.routes = {item: owner for item, owner in self.routes.items() if owner != account.secret}
        self.peers[account.secret] = email, account
        self.routes.update(dict.fromkeys(networks(account), account.secret))


class Stage:
    """The users over such a core."""

    def __init__(self, shuffle: Callable[[list[Any]], Sequence[Any]] = list) -> None:
        self.core = PeerCore(shuffle)
        self.users = UserSync(cast(Any, self.core), Journal())

    async def ask(self, *users: pb.User, kind: Kind = Kind.SYNC_USER) -> list[str]:
        """Make changes together; return the error of each, "" for none."""
        bodies: Sequence[pb.User | pb.Users] = users if kind is Kind.SYNC_USER else [pb.Users(users=users)]
        commands = []
        for body in bodies:
            number = next(_numbers)
            commands.append(Command(f"{number}-0", str(number), kind, "worker", 1000, body.SerializeToString()))
        answers = await self.users.sync(commands, INBOUNDS)
        return [reply.error.text if reply.error else "" for _, reply in answers]

    async def whole(self, *users: pb.User) -> str:
        """Make the set exactly these."""
        number = next(_numbers)
        body = pb.Users(users=users).SerializeToString()
        change = self.users.bulk(
            Command(f"{number}-0", str(number), Kind.SYNC_USERS, "worker", 1000, body), lambda: INBOUNDS
        )
        while (reply := await change.step()) is None:
            pass
        return reply.error.text if reply.error else ""

    def check(self) -> None:
        """The core has exactly those who are desired, and each of their addresses leads to them."""
        wanted: dict[str, tuple[str, Account]] = {}
        for _, raw in self.users.table.items():
            user = pb.User.FromString(raw)
            for account in accounts_of(user, INBOUNDS).values():
                wanted[account.secret] = user.email, account
        assert self.core.peers == wanted
        assert self.core.routes == {item: key for key, (_, account) in wanted.items() for item in networks(account)}
        assert not self.users.table.differing_all()

    @property
    def failed(self) -> dict[str, str]:
        return {user.email: user.cause for user in self.users.rejected.all()}


@pytest.mark.parametrize("kind", [Kind.SYNC_USER, Kind.SYNC_CHUNKED])
async def test_addresses_that_are_swapped_in_one_change(kind: Kind) -> None:
    stage = Stage()
    await stage.ask(peer("1", 1, [2]), peer("2", 2, [3]))
    assert not any(await stage.ask(peer("1", 1, [3]), peer("2", 2, [2]), kind=kind))
    stage.check()
    assert len(stage.core.peers) == 2


async def test_a_freed_address_is_given_out_before_it_is_given_up() -> None:
    stage = Stage()
    await stage.ask(peer("1", 1, [2, 7]))
    assert await stage.ask(peer("2", 2, [2])) == [""]
    stage.check()
    assert stage.failed == {"1": "has the same WireGuard address 10.66.0.2/32 as '2', in inbound 'wg0'"}
    assert await stage.ask(peer("1", 1, [3, 7])) == [""]
    stage.check()
    assert (stage.failed, len(stage.core.peers)) == ({}, 2)
    assert await stage.ask(peer("3", 3, [3])) == [""]
    assert await stage.ask(peer("1", 1, [3, 7], tags=[])) == [""]
    stage.check()
    assert stage.failed == {}


async def test_whoever_lost_an_address_has_it_again_when_it_is_given_up() -> None:
    stage = Stage()
    await stage.ask(peer("1", 1, [2]))
    await stage.ask(peer("2", 2, [2]))
    await stage.ask(peer("2", 2, [4]))
    stage.check()
    assert len(stage.core.peers) == 2


async def test_one_key_for_two_users_is_named() -> None:
    stage = Stage()
    assert await stage.whole(peer("1", 1, [2]), peer("2", 1, [3])) == (
        "failed to update users: 1: has the same WireGuard public key as '2', in inbound 'wg0'"
    )
    stage.check()
    assert {email for email, _ in stage.core.peers.values()} == {"2"}


async def test_another_key_takes_the_old_peer_away() -> None:
    stage = Stage()
    await stage.ask(peer("1", 1, [2]))
    await stage.ask(peer("1", 2, [2]))
    stage.check()
    assert len(stage.core.peers) == 1


async def test_the_same_again_is_no_work_and_another_address_ends_no_session() -> None:
    stage = Stage()
    await stage.ask(peer("1", 1, [2]))
    stage.core.calls.clear()
    await stage.ask(peer("1", 1, [2]))
    assert stage.core.calls == []
    await stage.ask(peer("1", 1, [2], tags=["wg0", "another one"]))
    assert stage.core.calls == []
    await stage.ask(peer("1", 1, [2, 3]))
    assert stage.core.calls == [("add", "1")]
    stage.check()


async def test_a_start_and_a_full_set_bring_the_users_of_this_core_alone() -> None:
    stage = Stage()
    users = [peer("1", 1, [2], tags=["wg0"]), peer("2", 2, [3], tags=["wg0"]), peer("3", 3, [], tags=["wg0"])]
    assert await stage.users.replace(users, INBOUNDS, check=Check.ALL) == []
    await stage.users.apply(stage.users.table.all_known(), INBOUNDS)
    assert len(stage.core.peers) == 2
    assert await stage.whole(*users[:1]) == ""
    stage.check()
    assert len(stage.core.peers) == 1


@given(st.data())
def test_whatever_moves_the_core_has_what_the_table_says(data: st.DataObject) -> None:
    users = st.builds(
        peer,
        st.sampled_from(NAMES),
        st.integers(1, 5),
        st.lists(st.integers(2, 6), max_size=2),
        st.sampled_from([(), ("wg0",), ("wg0",)]),
    )

    async def run() -> None:
        stage = Stage(lambda changes: data.draw(st.permutations(changes)) if len(changes) > 1 else changes)
        for _ in range(data.draw(st.integers(1, 6))):
            batch = data.draw(st.lists(users, min_size=1, max_size=4, unique_by=lambda user: user.email))
            way = data.draw(st.sampled_from(["single", "chunked", "whole"]))
            if way == "whole":
                await stage.whole(*batch)
            else:
                await stage.ask(*batch, kind=Kind.SYNC_USER if way == "single" else Kind.SYNC_CHUNKED)
            stage.check()

    asyncio.run(run())
