"""Changes of many users, applied in steps to a model of the core: single changes in between, failing calls, redelivery."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from typing import Any, cast
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.commands import Command, Kind
from pgnode.errors import CoreUnavailableError
from pgnode.store.changes import Journal
from pgnode.supervisor.users.core_users import Outcome
from pgnode.supervisor.users.planning import Change, InboundPlan
from pgnode.supervisor.users.rollout import StepLimits
from pgnode.supervisor.users.sync import UserSync
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import canonical_id, email_key
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.proto import trojan_pb2, user_pb2, vless_pb2

INBOUNDS = {
    "vless": InboundSpec(tag="vless", protocol="vless", managed=True),
    "trojan": InboundSpec(tag="trojan", protocol="trojan", managed=True),
}
NAMES = ["alice", "bob", "carol", "dave", "eve", "frank"]
_numbers = itertools.count(1)


def user(name: str, tags: Sequence[str], key: int) -> pb.User:
    made = pb.User(email=name, inbounds=tags)
    made.proxies.vless.id = str(uuid.UUID(int=key + 1))
    made.proxies.trojan.password = f"key {key}"
    return made


def own_user(name: str, tags: Sequence[str], key: int) -> pb.User:
    """A user whose credentials nobody else has."""
    return user(name, tags, len(NAMES) * key + NAMES.index(name))


USERS = st.builds(
    own_user, st.sampled_from(NAMES), st.sampled_from([[], ["vless"], ["trojan"], list(INBOUNDS)]), st.integers(0, 3)
)
SETS = st.lists(USERS, max_size=6, unique_by=lambda item: item.email)


class ModelCore:
    """Inbound -> e-mail -> secret. What is drawn decides which calls fail, and how many users fit into a swap."""

    def __init__(self, data: st.DataObject) -> None:
        self.users: dict[str, dict[str, str]] = {tag: {} for tag in INBOUNDS}
        self.there = True
        self.well = False
        self._data = data

    def _draw(self, kind: st.SearchStrategy[Any], well: Any) -> Any:
        return well if self.well else self._data.draw(kind)

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        keys = sorted({change.key for plan in plans for change in plan.changes})
        failing = self._draw(st.sets(st.sampled_from(keys)), set()) if keys else set()
        outcome = Outcome(unanswered=set(failing), error="no answer" if failing else "")
        done = self._draw(st.booleans(), True)
        for plan in plans:
            for change in plan.changes:
                if change.old_email is not None and (change.key not in failing or done):
                    self.users[plan.tag].pop(change.old_email, None)
        for plan in plans:
            for change in plan.changes:
                if change.new is not None and change.new_email is not None and change.key not in failing:
                    assert change.new_email not in self.users[plan.tag], "added without being removed first"
                    self.users[plan.tag][change.new_email] = change.new.secret
        return outcome

    async def prepare_swap(self, tag: str) -> None:
        pass

    async def swap(self, tag: str, messages: Sequence[bytes], _before: object) -> int | None:
        what = self._draw(st.sampled_from(["done", "refused", "lost"]), "done")
        if what == "refused":
            return None
        if what == "lost":
            raise CoreUnavailableError("gone")
        left: int = self._draw(st.integers(0, len(messages)), 0)
        fitting = [user_pb2.User.FromString(message) for message in messages[: len(messages) - left]]
        self.users[tag] = {item.email: _secret(tag, item.account.value) for item in fitting}
        assert len(self.users[tag]) == len(fitting), "somebody twice"
        return left


def _secret(tag: str, account: bytes) -> str:
    if tag == "vless":
        # An id may come without its dashes.
        return canonical_id(vless_pb2.Account.FromString(account).id) or ""
    return trojan_pb2.Account.FromString(account).password


def _wanted(desired: dict[str, pb.User]) -> dict[str, dict[str, str]]:
    return {
        tag: {
            item.email: item.proxies.vless.id if tag == "vless" else item.proxies.trojan.password
            for item in desired.values()
            if tag in item.inbounds
        }
        for tag in INBOUNDS
    }


def _command(kind: Kind, message: pb.User | pb.Users) -> Command:
    number = next(_numbers)
    return Command(f"{number}-0", str(number), kind, "worker", 1000, message.SerializeToString())


def _merge(desired: dict[str, pb.User], changes: Sequence[pb.User]) -> None:
    for item in changes:
        desired.pop(item.email, None)
        if item.inbounds:
            desired[item.email] = item


def small_steps(*, slice_calls: int) -> StepLimits:
    """A few users are many, so that others come between them."""
    return StepLimits(slice_users=2, slice_calls=slice_calls, step_seconds=0.0, rollout_users=2)


@given(st.data())
def test_core_and_desired_end_alike_whatever_comes_in_between(data: st.DataObject) -> None:
    swaps = data.draw(st.sampled_from([set(), {"vless"}, set(INBOUNDS)]))

    def chosen(inbound: InboundSpec, calls: int, _users: int, _since: float = 0.0) -> bool:
        return inbound.tag in swaps and calls > 1

    async def run() -> None:
        core = ModelCore(data)
        users = UserSync(cast(Any, core), Journal(), small_steps(slice_calls=8), chosen)
        desired = {name: own_user(name, list(INBOUNDS), 0) for name in NAMES}
        core.well = True
        await users.sync([_command(Kind.SYNC_CHUNKED, pb.Users(users=desired.values()))], INBOUNDS)
        core.well = False
        for _round in range(data.draw(st.integers(1, 3))):
            kind = data.draw(st.sampled_from([Kind.SYNC_USERS, Kind.SYNC_CHUNKED]))
            many = data.draw(SETS)
            command = _command(kind, pb.Users(users=many))
            if kind is Kind.SYNC_USERS:
                desired.clear()
            _merge(desired, many)
            bulk = users.bulk(command, lambda: INBOUNDS)
            again = data.draw(st.booleans())
            while await bulk.step() is None:
                for single in data.draw(st.lists(USERS, max_size=2)):
                    _merge(desired, [single])
                    await users.sync([_command(Kind.SYNC_USER, single)], INBOUNDS)
                if again and data.draw(st.booleans()):
                    # Another supervisor has what is desired, and knows nothing of the core; the command comes again.
                    again = False
                    users.table.core_has_nothing_certain()
                    there = {email for of_tag in core.users.values() for email in of_tag}
                    users.table.core_uncertain(there)
                    command.body = pb.Users(users=many).SerializeToString()
                    bulk = users.bulk(command, lambda: INBOUNDS)
            assert not users.table.has_pending
        core.well = True
        await users.apply(users.table.all_known(), INBOUNDS)
        assert core.users == _wanted(desired)
        assert {email_key(email) for email in desired} == users.table.keys()
        assert users.table.differing(users.table.all_known()) == []

    asyncio.run(run())


async def test_an_unchanged_set_is_answered_at_once_without_a_call() -> None:
    core = mock.Mock(there=True)
    journal = Journal()
    users = UserSync(cast(Any, core), journal)
    many = [own_user(name, ["vless"], 1) for name in NAMES]
    for item in many:
        users.table.put(item.email, item.SerializeToString(deterministic=True))
    users.table.core_has_all()
    reply = await users.bulk(_command(Kind.SYNC_USERS, pb.Users(users=many)), lambda: INBOUNDS).step()
    assert reply is not None
    assert reply.error is None
    core.alter.assert_not_called()
    core.swap.assert_not_called()
    assert not journal.taken


class IdCore:
    """A core that forgets a key with whoever had it, also when another user has it by then."""

    def __init__(self, data: st.DataObject) -> None:
        self.users: dict[str, str] = {}
        self.owners: dict[str, str] = {}
        self.there = True
        self._data = data

    async def prepare_swap(self, tag: str) -> None:
        pass

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        changes = [change for plan in plans for change in plan.changes]
        if chained:
            for change in self._data.draw(st.permutations(changes)):
                self._remove(change)
                self._add(change)
        else:
            for step in (self._remove, self._add):
                for change in self._data.draw(st.permutations(changes)):
                    step(change)
        return Outcome()

    def _remove(self, change: Change) -> None:
        if change.old_email is not None and (secret := self.users.pop(change.old_email, None)) is not None:
            self.owners.pop(secret, None)

    def _add(self, change: Change) -> None:
        if change.new is not None and change.new_email is not None:
            self.users[change.new_email] = change.new.secret
            self.owners[change.new.secret] = change.new_email

    async def swap(self, _tag: str, messages: Sequence[bytes], _before: object) -> int:
        left: int = self._data.draw(st.integers(0, len(messages)))
        items = [user_pb2.User.FromString(message) for message in messages[: len(messages) - left]]
        self.users = {item.email: _secret("vless", item.account.value) for item in items}
        self.owners = {secret: email for email, secret in self.users.items()}
        return left


@given(st.data())
def test_ids_that_go_from_one_user_to_another_are_with_the_new_one(data: st.DataObject) -> None:
    """In one long change, from it to single changes that come before it was brought to its end, and between these."""
    swap = data.draw(st.booleans())

    async def run() -> None:
        core = IdCore(data)
        users = UserSync(
            cast(Any, core), Journal(), small_steps(slice_calls=2), lambda _inbound, calls, *_: swap and calls > 4
        )
        inbounds = {"vless": INBOUNDS["vless"]}
        keys = st.permutations(range(8))
        has = dict(zip(NAMES, data.draw(keys), strict=False))
        first = [user(name, ["vless"], key) for name, key in has.items()]
        await users.sync([_command(Kind.SYNC_CHUNKED, pb.Users(users=first))], inbounds)
        for _round in range(data.draw(st.integers(1, 2))):
            names = data.draw(st.lists(st.sampled_from(NAMES), unique=True))
            has = dict(zip(names, data.draw(keys), strict=False))
            many = pb.Users(users=[user(name, ["vless"], key) for name, key in has.items()])
            bulk = users.bulk(_command(Kind.SYNC_USERS, many), lambda: inbounds)
            while await bulk.step() is None:
                for _single in range(data.draw(st.integers(0, 2))):
                    # Two users who have the same id by what was asked for until now are beyond the core.
                    name = data.draw(st.sampled_from(NAMES))
                    has[name] = data.draw(st.sampled_from(sorted(set(range(8)) - set(has.values()))))
                    await users.sync([_command(Kind.SYNC_USER, user(name, ["vless"], has[name]))], inbounds)
            assert {email: int(uuid.UUID(secret)) - 1 for secret, email in core.owners.items()} == has

    asyncio.run(run())
