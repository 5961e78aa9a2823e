"""Users with one credential: the later change has it, the other user waits on the list. On a model of the core."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.commands import Command, Kind
from pgnode.store.changes import Journal
from pgnode.supervisor.users.core_users import Outcome
from pgnode.supervisor.users.planning import InboundPlan
from pgnode.supervisor.users.rollout import StepLimits
from pgnode.supervisor.users.sync import UserSync
from pgnode.supervisor.users.verdicts import Check
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import accounts_of, credential_of, email_key
from pgnode.xray.config.inbounds import InboundSpec
from tests.unit.supervisor.users.models import CredentialCore

INBOUNDS = {
    "vless": InboundSpec(tag="vless", protocol="vless", managed=True),
    "other": InboundSpec(tag="other", protocol="vless", managed=True),
    "trojan": InboundSpec(tag="trojan", protocol="trojan", managed=True),
}
NAMES = ["alice", "bob", "carol", "dave", "eve"]
_numbers = itertools.count(1)


def user(name: str, key: int, tags: Sequence[str] = ("vless",), *, password: int = -1, odd: int = 0) -> pb.User:
    """A user with a VLESS id and a Trojan password; ``odd`` are the bytes of the id that the core ignores."""
    made = pb.User(email=name, inbounds=tags)
    identity = bytearray(uuid.UUID(int=key + 1).bytes)
    identity[6:8] = odd.to_bytes(2, "big")
    made.proxies.vless.id = str(uuid.UUID(bytes=bytes(identity)))
    made.proxies.trojan.password = f"key {password}" if password >= 0 else f"of {name}"
    return made


def as_looked_up(secret: str) -> str:
    """What the core makes of a secret."""
    return f"{secret[:14]}0000{secret[18:]}" if len(secret) == 36 else secret


class Core:
    """Inbounds that keep their users by credential: an addition takes it from whoever had it, a removal forgets it."""

    def __init__(self) -> None:
        self.there = True
        self.inbounds = {tag: CredentialCore(look_up=as_looked_up) for tag in INBOUNDS}

    @property
    def calls(self) -> int:
        return sum(core.calls for core in self.inbounds.values())

    @property
    def owners(self) -> dict[str, dict[str, str]]:
        return {tag: core.owners for tag, core in self.inbounds.items()}

    async def prepare_swap(self, tag: str) -> None:
        pass

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        outcome = Outcome()
        for plan in plans:
            part = await self.inbounds[plan.tag].alter([plan], chained=chained)
            outcome.refused |= part.refused
            outcome.unanswered |= part.unanswered
            outcome.error = outcome.error or part.error
        return outcome

    async def swap(self, tag: str, messages: Sequence[bytes], before: object) -> int | None:
        return await self.inbounds[tag].swap(tag, messages, before)

    async def compare(self, _users: object, _inbounds: object) -> set[str]:
        return set()


class Staged:
    """A UserSync over the model, where a few users are many."""

    def __init__(self, *, swap: bool = False, rollout_users: int = 3) -> None:
        self.core = Core()
        limits = StepLimits(slice_users=2, slice_calls=8, step_seconds=0.0, rollout_users=rollout_users)
        self.users = UserSync(cast(Any, self.core), Journal(), limits, lambda _inbound, calls, *_: swap and calls > 3)

    def command(self, kind: Kind, message: pb.User | pb.Users) -> Command:
        number = next(_numbers)
        return Command(f"{number}-0", str(number), kind, "worker", 1000, message.SerializeToString())

    async def group(self, *users: pb.User) -> list[str]:
        """Single changes that are done together; their errors, "" for none."""
        commands = [self.command(Kind.SYNC_USER, item) for item in users]
        return [reply.error.text if reply.error else "" for _, reply in await self.users.sync(commands, INBOUNDS)]

    async def one(self, item: pb.User) -> str:
        return (await self.group(item))[0]

    async def bulk(self, kind: Kind, users: Sequence[pb.User], between: Sequence[pb.User] = ()) -> str:
        change = self.users.bulk(self.command(kind, pb.Users(users=users)), lambda: INBOUNDS)
        waiting = list(between)
        while (reply := await change.step()) is None:
            if waiting:
                await self.one(waiting.pop(0))
        for item in waiting:
            await self.one(item)
        return reply.error.text if reply.error else ""

    async def start(self, users: Sequence[pb.User], *, new_core: bool = False) -> list[str]:
        refusals = await self.users.replace(users, INBOUNDS, check=Check.ALL)
        if new_core:
            for tag, core in self.core.inbounds.items():
                core.restart(self.wanted()[tag])
            self.users.table.core_has_all()
        await self.users.apply(self.users.table.all_known(), INBOUNDS)
        await self.users.try_failed_again(INBOUNDS)
        return [str(refusal) for refusal in refusals]

    def wanted(self) -> dict[str, dict[str, str]]:
        """Tag -> e-mail -> secret, as the table says."""
        found: dict[str, dict[str, str]] = {tag: {} for tag in INBOUNDS}
        for _, raw in self.users.table.items():
            item = pb.User.FromString(raw)
            for tag, account in accounts_of(item, INBOUNDS).items():
                found[tag][item.email] = account.secret
        return found

    def failed(self) -> dict[str, str]:
        return {rejected.email: rejected.cause for rejected in self.users.rejected.all()}

    def check(self) -> None:
        """The core has what the table says, and lets everybody in."""
        wanted = self.wanted()
        assert {tag: core.users for tag, core in self.core.inbounds.items()} == wanted
        assert self.core.owners == {
            tag: {as_looked_up(secret): email for email, secret in of_tag.items()} for tag, of_tag in wanted.items()
        }
        assert not self.users.table.differing_all()
        assert not self.users.table.credentials.contested

    def check_list(self) -> None:
        """Whoever is on the list is there because somebody has what it asks for."""
        holders = {
            (tag, credential_of(account))
            for _, raw in self.users.table.items()
            for tag, account in accounts_of(pb.User.FromString(raw), INBOUNDS).items()
        }
        for rejected in self.users.rejected.all():
            asked = accounts_of(pb.User.FromString(rejected.user), INBOUNDS)
            assert any((tag, credential_of(account)) in holders for tag, account in asked.items()), rejected


async def stage(*users: pb.User, **options: Any) -> Staged:
    staged = Staged(**options)
    await staged.start(users, new_core=True)
    staged.check()
    return staged


# --- named cases ------------------------------------------------------------------------------------------------------


async def test_an_id_that_is_taken_and_then_given_up_by_its_first_owner() -> None:
    staged = await stage(user("alice", 1), user("bob", 2))
    assert await staged.one(user("bob", 1)) == ""
    assert staged.failed() == {"alice": "has the same VLESS id as 'bob', in inbound 'vless'"}
    staged.check()
    assert await staged.one(user("alice", 3)) == ""
    assert staged.failed() == {}
    staged.check()
    assert staged.core.inbounds["vless"].numbers == {"alice": 3, "bob": 1}


async def test_an_id_that_is_taken_and_given_up_again_is_back_with_its_first_owner() -> None:
    staged = await stage(user("alice", 1), user("bob", 2))
    await staged.one(user("bob", 1))
    assert await staged.one(user("bob", 2)) == ""
    assert staged.failed() == {}
    staged.check()
    assert staged.core.inbounds["vless"].numbers == {"alice": 1, "bob": 2}


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_new_name_with_the_same_id_and_then_the_old_one_removed(bulk: bool) -> None:
    staged = await stage(user("old", 1), user("bob", 2))
    if bulk:
        assert await staged.bulk(Kind.SYNC_USERS, [user("new", 1), user("bob", 2)]) == ""
    else:
        assert await staged.group(user("new", 1)) == [""]
        staged.check()
        assert await staged.one(user("old", 1, ())) == ""
    assert staged.failed() == {}
    staged.check()
    assert staged.core.inbounds["vless"].numbers == {"new": 1, "bob": 2}


async def test_pairs_that_swap_ids_by_single_changes() -> None:
    pairs = 40
    staged = await stage(*(user(f"u{number}", number) for number in range(2 * pairs)), rollout_users=1000)
    swapped = [user(f"u{number}", number ^ 1) for number in range(2 * pairs)]
    for item in swapped:
        assert await staged.one(item) == ""
    staged.check()
    assert staged.failed() == {}
    back = [user(f"u{number}", number) for number in range(2 * pairs)]
    assert await staged.group(*back) == [""] * (2 * pairs)
    staged.check()
    assert staged.core.inbounds["vless"].numbers == {f"u{number}": number for number in range(2 * pairs)}


async def test_ids_that_differ_only_in_what_the_core_ignores_are_one() -> None:
    staged = await stage(user("alice", 1), user("bob", 2))
    assert await staged.one(user("bob", 1, odd=0xFFFF)) == ""
    assert "alice" in staged.failed()
    staged.check()


async def test_one_password_in_different_inbounds_is_nobodys_harm() -> None:
    staged = await stage(user("alice", 1, ["vless"]), user("bob", 1, ["other"]))
    assert staged.failed() == {}
    assert "alice: has the same VLESS id as 'bob'" in await staged.bulk(
        Kind.SYNC_CHUNKED, [user("bob", 1, ["other", "vless"]), user("alice", 1, ["vless"])]
    ) or "bob: has the same" in "".join(f"{k}: {v}" for k, v in staged.failed().items())
    staged.check()
    assert len(staged.failed()) == 1


async def test_both_in_one_set_are_refused_by_name_again_and_again() -> None:
    both = [user("alice", 1), user("bob", 1), user("carol", 3)]
    staged = Staged()
    text = "alice: has the same VLESS id as 'bob', in inbound 'vless'"
    assert await staged.start(both, new_core=True) == [text]
    staged.check()
    for _round in range(2):
        assert await staged.bulk(Kind.SYNC_USERS, both) == f"failed to update users: {text}"
        assert await staged.start(both) == [text]
        assert await staged.start(both, new_core=True) == [text]
        staged.check()
    assert await staged.one(user("alice", 1)) == f"failed to update users: {text}"
    assert await staged.bulk(Kind.SYNC_USERS, [both[0], both[2]]) == ""
    assert staged.core.inbounds["vless"].numbers == {"alice": 1, "carol": 3}
    staged.check()


async def test_two_new_users_with_one_id_in_one_group() -> None:
    staged = await stage(user("carol", 3))
    first, second = await staged.group(user("alice", 1), user("bob", 1))
    assert (first, second) == ("failed to update users: alice: has the same VLESS id as 'bob', in inbound 'vless'", "")
    staged.check()


async def test_who_is_refused_by_the_core_gives_back_what_it_had_taken() -> None:
    staged = await stage(user("alice", 1), user("bob", 2, ["vless", "trojan"]))
    staged.core.inbounds["trojan"].refuses = {"bob"}
    assert "bob: the core said no" in await staged.one(user("bob", 1, ["vless", "trojan"], password=7))
    assert "alice" not in staged.failed()
    assert staged.core.inbounds["vless"].numbers["alice"] == 1
    assert staged.core.owners["vless"] == {
        as_looked_up(secret): email for email, secret in staged.wanted()["vless"].items()
    }


async def test_users_of_an_older_store_with_one_id_are_found_when_the_core_is_taken_over() -> None:
    staged = Staged()
    for item in (user("alice", 1), user("bob", 1)):
        staged.users.table.put(item.email, item.SerializeToString(deterministic=True))
    staged.core.inbounds["vless"].restart({"alice": user("", 1).proxies.vless.id, "bob": user("", 1).proxies.vless.id})
    await staged.users.reconcile_all(INBOUNDS)
    assert list(staged.failed()) == ["alice"]
    assert staged.core.inbounds["vless"].numbers == {"bob": 1}


async def test_a_full_set_that_came_before_takes_nothing_from_a_later_change() -> None:
    staged = await stage(user("alice", 1), user("bob", 2), user("carol", 3))
    many = [user("alice", 5), user("bob", 2), user("carol", 4), user("dave", 6), user("eve", 7)]
    text = await staged.bulk(Kind.SYNC_USERS, many, between=[user("bob", 5)])
    assert text == "failed to update users: alice: has the same VLESS id as 'bob', in inbound 'vless'"
    staged.check()
    assert staged.core.inbounds["vless"].numbers["bob"] == 5


async def test_who_moves_to_another_inbound_takes_nothing_from_who_gets_its_id_there() -> None:
    """Whatever the order in which the two are looked at: each order of the group is tried."""
    for order in itertools.permutations([user("alice", 1, ["other"]), user("carol", 1, ["vless"])]):
        staged = await stage(user("alice", 1, ["vless"]), rollout_users=1000)
        assert await staged.group(*order) == ["", ""]
        staged.check()


async def test_who_is_back_while_a_set_is_read_is_not_put_aside_by_it() -> None:
    staged = await stage(
        user("alice", 1), user("bob", 1), user("carol", 3), user("dave", 4), user("eve", 5), rollout_users=1
    )
    assert "alice" in staged.failed()
    staged.core.inbounds["vless"].silent_about = {"alice"}
    many = [user("carol", 3), user("dave", 4), user("eve", 5), user("alice", 1), user("bob", 1, ())]
    await staged.bulk(Kind.SYNC_USERS, many, between=[user("bob", 1, ())])
    staged.core.inbounds["vless"].silent_about = set()
    await staged.users.apply(staged.users.table.all_known(), INBOUNDS)
    assert staged.failed() == {}
    staged.check()


# --- whatever comes ---------------------------------------------------------------------------------------------------

USERS = st.builds(
    user,
    st.sampled_from(NAMES),
    st.integers(0, 3),
    st.sampled_from([[], ["vless"], ["trojan"], ["other"], ["vless", "other"], list(INBOUNDS)]),
    password=st.integers(-1, 1),
    odd=st.sampled_from([0, 0x4000]),
)
SETS = st.lists(USERS, max_size=6, unique_by=lambda item: item.email)


@given(st.data())
def test_the_core_has_what_the_answers_say(data: st.DataObject) -> None:
    async def run() -> None:
        staged = Staged(swap=data.draw(st.booleans()), rollout_users=data.draw(st.sampled_from([1, 1000])))
        asked: dict[str, pb.User] = {}
        await staged.start([], new_core=True)
        for _round in range(data.draw(st.integers(1, 6))):
            what = data.draw(st.sampled_from(["group", "set", "delta", "start", "new core", "taken over"]))
            many = data.draw(SETS)
            if what in ("set", "start", "new core"):
                asked.clear()
            asked |= {email_key(item.email): item for item in many}
            if what == "group":
                errors = await staged.group(*many)
                for item, error in zip(many, errors, strict=True):
                    has = staged.users.table.get(email_key(item.email))
                    wanted = item.SerializeToString(deterministic=True) if item.inbounds else None
                    assert (error == "") == (has == wanted), (item.email, error)
            elif what == "set":
                text = await staged.bulk(Kind.SYNC_USERS, many)
                assert all(f"{item}: " in text for item in list(staged.failed())[:5]), text
                assert bool(text) == bool(staged.failed())
            elif what == "delta":
                await staged.bulk(Kind.SYNC_CHUNKED, many)
            elif what == "taken over":
                await staged.group(*many)
                await staged.users.reconcile_all(INBOUNDS)
            else:
                assert len(await staged.start(many, new_core=what == "new core")) == len(staged.failed())
            staged.check()
            staged.check_list()
            for key, item in asked.items():
                rejected = staged.users.rejected.get(key)
                raw = item.SerializeToString(deterministic=True) if item.inbounds else None
                assert (rejected.user if rejected is not None else staged.users.table.get(key)) == raw

    asyncio.run(run())


@given(st.data())
def test_calls_without_an_answer_and_changes_in_between_end_well_all_the_same(data: st.DataObject) -> None:
    async def run() -> None:
        staged = Staged(swap=data.draw(st.booleans()), rollout_users=data.draw(st.sampled_from([1, 1000])))
        await staged.start([user(name, number) for number, name in enumerate(NAMES)], new_core=True)
        for _round in range(data.draw(st.integers(1, 4))):
            for core in staged.core.inbounds.values():
                core.silent_about = data.draw(st.sets(st.sampled_from(NAMES), max_size=1))
            kind = data.draw(st.sampled_from([Kind.SYNC_USERS, Kind.SYNC_CHUNKED, None]))
            many = data.draw(SETS)
            if kind is None:
                await staged.group(*many)
            else:
                await staged.bulk(kind, many, between=data.draw(st.lists(USERS, max_size=3)))
        for core in staged.core.inbounds.values():
            core.silent_about = set()
        await staged.group(user("frank", 100))
        await staged.users.apply(staged.users.table.all_known(), INBOUNDS)
        staged.check()
        staged.check_list()

    asyncio.run(run())
