"""Users that are refused: remembered with the cause, answered for, tried again, forgotten. On a model of the core."""

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
from pgnode.store.rows import RejectedUser
from pgnode.supervisor.users.core_users import Outcome
from pgnode.supervisor.users.decoding import accounts_of_users
from pgnode.supervisor.users.planning import InboundPlan
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.sync import UserSync
from pgnode.supervisor.users.verdicts import Check
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import Account
from pgnode.xray.config.inbounds import InboundSpec

INBOUNDS = {
    "vless": InboundSpec(tag="vless", protocol="vless", managed=True),
    "trojan": InboundSpec(tag="trojan", protocol="trojan", managed=True),
}
#: The model of the core takes no Trojan user whose password begins so, and the node no VLESS user with that id.
REFUSED, UNUSABLE = "refused", "no-uuid"
_numbers = itertools.count(1)


class ModelCore:
    """Inbound -> e-mail in lower case -> account, as the core keeps them; a user is refused in one inbound, not in all."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Account]] = {tag: {} for tag in INBOUNDS}
        self.calls = 0
        self.there = True

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        outcome = Outcome()
        for plan in plans:
            for change in plan.changes:
                self.calls += 1
                if change.old_email is not None:
                    self.users[plan.tag].pop(change.old_email.lower(), None)
        for plan in plans:
            for change in plan.changes:
                if change.new is None or change.new_email is None:
                    continue
                if change.new.secret.startswith(REFUSED):
                    outcome.refused[change.key] = "the core said no"
                else:
                    assert change.new_email.lower() not in self.users[plan.tag]
                    self.users[plan.tag][change.new_email.lower()] = change.new
        return outcome


class Staged:
    """A UserSync over the model."""

    def __init__(self) -> None:
        self.core = ModelCore()
        self.users = UserSync(cast(Any, self.core), Journal())

    async def sync(self, kind: Kind, message: pb.User | pb.Users) -> str:
        """The error's code and text, "" for none."""
        number = next(_numbers)
        command = Command(f"0-{number}", str(number), kind, "worker", 1000, message.SerializeToString())
        if kind is Kind.SYNC_USERS:
            bulk = self.users.bulk(command, lambda: INBOUNDS)
            while (found := await bulk.step()) is None:
                pass
            reply = found
        else:
            ((_, reply),) = await self.users.sync([command], INBOUNDS)
        return f"{reply.error.code}: {reply.error.text}" if reply.error is not None else ""

    async def one(self, user: pb.User) -> str:
        return await self.sync(Kind.SYNC_USER, user)

    def failed(self) -> dict[str, str]:
        found = {key: self.users.rejected.get(key) for key in self.users.rejected}
        return {key: failure.cause for key, failure in found.items() if failure is not None}


def user(
    email: str, password: str = "fine", *, vless_id: str = "", inbounds: Sequence[str] = ("vless", "trojan")
) -> pb.User:
    made = pb.User(email=email, inbounds=inbounds)
    made.proxies.trojan.password = f"{password}, {email.lower()}"
    made.proxies.vless.id = vless_id or str(uuid.uuid5(uuid.NAMESPACE_URL, email))
    return made


async def test_a_refused_user_is_named_and_leaves_nothing_behind() -> None:
    staged = Staged()
    users = pb.Users(users=[user("good"), user("Bad", REFUSED)])
    error = await staged.sync(Kind.SYNC_CHUNKED, users)
    assert error == "USER_REJECTED: failed to update users: Bad: the core said no"
    assert {tag: set(there) for tag, there in staged.core.users.items()} == {"vless": {"good"}, "trojan": {"good"}}
    assert staged.failed() == {"bad": "the core said no"}
    assert staged.users.table.keys() == {"good"}


async def test_a_refused_change_leaves_the_user_as_it_was() -> None:
    staged = Staged()
    await staged.one(user("alice", "first"))
    before = {tag: dict(there) for tag, there in staged.core.users.items()}
    assert "alice: the core said no" in await staged.one(user("alice", REFUSED))
    assert staged.core.users == before
    assert staged.failed() == {"alice": "the core said no"}


async def test_the_user_as_it_was_asked_for_again_is_no_call_and_ends_the_failure() -> None:
    staged = Staged()
    await staged.one(user("alice", "first"))
    await staged.one(user("alice", REFUSED))
    calls = staged.core.calls
    assert await staged.one(user("alice", "first")) == ""
    assert (staged.failed(), staged.core.calls) == ({}, calls)


async def test_the_same_user_again_is_no_call_and_the_same_answer() -> None:
    staged = Staged()
    first = await staged.one(user("bad", REFUSED))
    calls = staged.core.calls
    assert await staged.one(user("bad", REFUSED)) == first
    assert staged.core.calls == calls


@pytest.mark.parametrize("bad", [user("eve", REFUSED), user("eve", vless_id=UNUSABLE)])
@pytest.mark.parametrize(
    "cure", [user("eve", "new"), user("eve", inbounds=[]), user("EVE", "new"), pb.Users(users=[user("bob")])]
)
async def test_a_failure_is_forgotten_when_it_is_cured(bad: pb.User, cure: pb.User | pb.Users) -> None:
    staged = Staged()
    assert await staged.sync(Kind.SYNC_CHUNKED, pb.Users(users=[bad]))
    assert set(staged.failed()) == {"eve"}
    assert await staged.sync(Kind.SYNC_USERS if isinstance(cure, pb.Users) else Kind.SYNC_USER, cure) == ""
    assert staged.failed() == {}


async def test_going_back_to_what_it_was_ends_the_failure_without_a_call() -> None:
    staged = Staged()
    await staged.one(user("alice", "first"))
    await staged.one(user("alice", REFUSED))
    calls = staged.core.calls
    assert await staged.one(user("alice", "first")) == ""
    assert staged.failed() == {}
    assert staged.core.calls == calls


async def test_a_new_core_may_take_it() -> None:
    staged = Staged()
    await staged.one(user("bad", REFUSED))
    await staged.one(user("worse", vless_id=UNUSABLE))
    await staged.users.try_failed_again(INBOUNDS)
    assert set(staged.failed()) == {"bad", "worse"}
    for failure in list(staged.users.rejected):
        staged.users.rejected.drop([failure])
    fine = user("bad", "taken now").SerializeToString(deterministic=True)
    staged.users.rejected.put("bad", "bad", "no", fine, by_core=True)
    await staged.users.try_failed_again(INBOUNDS)
    assert staged.failed() == {}
    assert staged.core.users["trojan"]["bad"].secret == "taken now, bad"


def test_a_failure_keeps_its_time_while_the_user_is_the_same() -> None:
    now = 10.0
    staged = Staged()
    failures = staged.users.rejected
    failures._now = lambda: now
    failures.put("a", "a", "one", b"user", by_core=True)
    now = 20.0
    failures.put("a", "a", "another", b"user", by_core=True)
    assert failures.get("a") == RejectedUser("a", "another", 10_000, b"user", by_core=True)
    failures.put("a", "a", "another", b"other", by_core=True)
    assert failures.get("a") == RejectedUser("a", "another", 20_000, b"other", by_core=True)


async def test_a_start_that_failed_leaves_the_list_as_it_was() -> None:
    staged = Staged()
    users = staged.users
    await staged.sync(Kind.SYNC_CHUNKED, pb.Users(users=[user("alice"), user("bad", REFUSED)]))
    before, desired = staged.failed(), dict(users.table.items())
    remembered = users.remember()
    refusals = await users.replace([user("Worse", vless_id=UNUSABLE), user("carol")], INBOUNDS, check=Check.ALL)
    assert [refusal.email for refusal in refusals] == ["Worse"]
    assert (set(staged.failed()), users.table.keys()) == ({"worse"}, {"carol"})
    users.return_to(remembered)
    assert (staged.failed(), dict(users.table.items())) == (before, desired)


_EMAILS = st.sampled_from(["alice", "Alice", "bob", "carol"])
_USERS = st.builds(
    user,
    _EMAILS,
    st.sampled_from(["one", "two", REFUSED]),
    vless_id=st.sampled_from(["", UNUSABLE]),
    inbounds=st.lists(st.sampled_from(["vless", "trojan"]), max_size=2, unique=True),
)


@given(st.lists(st.tuples(st.lists(_USERS, max_size=4), st.booleans()), max_size=8))
def test_core_and_table_agree_and_who_is_missing_is_on_the_list(rounds: list[tuple[list[pb.User], bool]]) -> None:
    async def run() -> None:
        staged = Staged()
        asked: dict[str, bytes] = {}
        for batch, full in rounds:
            named = list({user.email.lower(): user for user in reversed(batch)}.values())
            if full:
                asked.clear()
            for item in named:
                asked.pop(item.email.lower(), None)
                if item.inbounds:
                    asked[item.email.lower()] = item.SerializeToString(deterministic=True)
            await staged.sync(Kind.SYNC_USERS if full else Kind.SYNC_CHUNKED, pb.Users(users=named))
            table, failures = staged.users.table, staged.users.rejected
            wanted = accounts_of_users(table.desired, table.keys(), INBOUNDS)
            assert staged.core.users == {
                tag: {key: account for key, (_, account) in of_tag.items()} for tag, of_tag in wanted.items()
            }
            for key, raw in asked.items():
                failure = failures.get(key)
                assert (failure.user if failure is not None else table.get(key)) == raw
            assert set(failures) <= asked.keys()
            assert table.applied_count == len(table)

    asyncio.run(run())


def test_whoever_comes_on_the_list_is_told_of_once() -> None:
    told: list[tuple[str, str, int]] = []
    failures = RejectedUsers(Journal(), lambda: 10.0, lambda *what: told.append(what))
    for email in ("A", "B", "A"):
        failures.put(email.lower(), email, "no", b"user", by_core=False)
    assert told == [("A", "no", 1), ("B", "no", 2)]
    failures.put("a", "A", "another cause", b"user", by_core=False)
    assert told[2:] == [("A", "another cause", 2)]
