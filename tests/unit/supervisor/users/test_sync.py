"""Small changes of users, by single calls and in groups: every caller is answered, and the core has what the answers say."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence, Set
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.commands import Command, Kind
from pgnode.errors import CoreNotStartedError, CoreUnavailableError, InternalError, InvalidRequestError, NodeError
from pgnode.store.changes import Journal, Scope, StoreChanges
from pgnode.store.rows import TAKEN_USERS, RejectedUser
from pgnode.store.state import StoredState
from pgnode.supervisor.users.core_users import Outcome
from pgnode.supervisor.users.planning import InboundPlan
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.sync import UserSync
from pgnode.supervisor.users.table import Phase
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.users.models import INBOUNDS, VLESS, CredentialCore, vless_user

NAMES = ["alice", "bob", "carol", "dave", "eve"]
ONE_INBOUND = {"vless": VLESS}
_numbers = itertools.count(1)


def command(message: pb.User | pb.Users, kind: Kind | None = None) -> Command:
    number = next(_numbers)
    kind = kind or (Kind.SYNC_USER if isinstance(message, pb.User) else Kind.SYNC_CHUNKED)
    return Command(f"{number}-0", str(number), kind, "worker", 1000, message.SerializeToString())


def users_over(core: CredentialCore, journal: Journal | None = None) -> UserSync:
    return UserSync(cast(Any, core), journal if journal is not None else Journal())


async def ask(users: UserSync, *messages: pb.User | pb.Users) -> list[NodeError | None]:
    """The error of each."""
    answers = await users.sync([command(message) for message in messages], ONE_INBOUND)
    return [reply.error for _, reply in answers]


async def test_whoever_got_an_id_keeps_it_when_the_one_who_had_it_gets_another() -> None:
    core = CredentialCore()
    users = users_over(core)
    await ask(users, vless_user("alice", 1), vless_user("bob", 2))
    await ask(users, vless_user("bob", 1))
    await ask(users, vless_user("alice", 3))
    assert core.numbers == {"alice": 3, "bob": 1}


async def test_a_user_who_is_renamed_gets_in_before_and_after_the_old_name_is_removed() -> None:
    core = CredentialCore()
    users = users_over(core)
    await ask(users, vless_user("old", 1))
    await ask(users, vless_user("new", 1))
    assert core.numbers == {"new": 1}
    await ask(users, vless_user("old", 1, tags=()))
    assert core.numbers == {"new": 1}
    assert users.table.differing_all() == []


async def test_who_is_put_again_stays_on_the_list_of_rejected_users() -> None:
    core = CredentialCore()
    users = users_over(core)
    await ask(users, vless_user("alice", 1), vless_user("bob", 2))
    await ask(users, vless_user("bob", 1))
    core.refuses.add("bob")
    core.refuses.clear()
    users.rejected.put("bob", "bob", "asked for and refused", b"another message", by_core=True)
    await ask(users, vless_user("alice", 3))
    assert core.numbers == {"alice": 3, "bob": 1}
    assert "bob" in users.rejected


async def test_an_id_is_with_its_last_owner_when_a_call_about_the_other_one_failed() -> None:
    core = CredentialCore()
    users = users_over(core)
    await ask(users, vless_user("alice", 1), vless_user("bob", 2))
    await ask(users, vless_user("bob", 1))
    core.silent_about.add("alice")
    [error] = await ask(users, vless_user("alice", 3))
    assert isinstance(error, CoreUnavailableError)
    assert users.table.phase("alice") is Phase.UNKNOWN
    core.silent_about.clear()
    assert await ask(users, vless_user("alice", 3)) == [None]
    assert core.numbers == {"alice": 3, "bob": 1}


@given(st.data())
def test_ids_that_are_swapped_by_single_changes_are_with_their_last_owners(data: st.DataObject) -> None:
    """Everybody gets the id of somebody else, one by one or several together, in any order."""

    async def run() -> None:
        core = CredentialCore(
            lambda changes: data.draw(st.permutations(list(changes))) if len(changes) > 1 else changes
        )
        users = users_over(core)
        for _round in range(2):
            numbers = data.draw(st.permutations(range(len(NAMES))))
            left = data.draw(st.permutations(list(zip(NAMES, numbers, strict=True))))
            while left:
                size = data.draw(st.integers(1, 3))
                group, left = left[:size], left[size:]
                assert await ask(users, *(vless_user(name, number) for name, number in group)) == [None] * len(group)
                for name, number in group:
                    assert core.numbers.get(name) == number
            assert core.numbers == dict(zip(NAMES, numbers, strict=True))

    import asyncio

    asyncio.run(run())


async def test_the_same_user_again_is_no_call() -> None:
    core = CredentialCore()
    users = users_over(core)
    await ask(users, vless_user("alice", 1))
    calls = core.calls
    assert await ask(users, vless_user("alice", 1), pb.Users(users=[vless_user("alice", 1)])) == [None, None]
    assert core.calls == calls


async def test_one_unusable_user_alone_is_a_wrong_request_and_in_a_list_a_rejected_user() -> None:
    users = users_over(CredentialCore())
    bad = vless_user("bad", 1)
    bad.proxies.vless.id = "no id"
    single, among = await ask(users, bad, pb.Users(users=[bad, vless_user("good", 2)]))
    assert single is not None
    assert isinstance(single, InvalidRequestError)
    assert among is not None
    assert among.text.startswith("failed to update users: bad: ")
    assert set(users.rejected) == {"bad"}
    assert users.table.keys() == {"good"}


async def test_a_fault_in_a_group_is_answered_and_nothing_is_certain_after_it() -> None:
    core = CredentialCore()
    users = users_over(core)

    async def fault(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a fault")

    core.alter = fault  # type: ignore[assignment,method-assign]
    [error] = await ask(users, vless_user("alice", 1))
    assert error is not None
    assert isinstance(error, InternalError)
    assert users.table.phase("alice") is Phase.UNKNOWN


async def test_users_are_taken_over_from_the_store_and_a_bulk_change_that_came_before_is_known() -> None:
    journal = Journal()
    users = users_over(CredentialCore(), journal)
    raw = vless_user("alice", 1).SerializeToString(deterministic=True)
    rejected = {"bad": RejectedUser("bad", "why", 1, b"")}
    users.restore(StoredState(users={"alice": raw}, rejected=rejected, taken={"1-0": "other", "2-0": TAKEN_USERS}))
    assert dict(users.table.items()) == {"alice": raw}
    assert users.rejected.copy() == rejected
    assert users.is_taken("2-0")
    assert not journal
    users.note_taken("3-0")
    assert journal.taken == {"2-0": None, "3-0": TAKEN_USERS}


async def test_whoever_cannot_be_had_is_set_aside_for_good() -> None:
    journal = Journal()
    users = users_over(CredentialCore(), journal)
    raw, long = vless_user("alice", 1).SerializeToString(), "e" * 300
    rejected = {long: RejectedUser(long, "why", 1, b"")}
    users.restore(
        StoredState(users={"alice": raw, "a>>>b": vless_user("a>>>b", 2).SerializeToString()}, rejected=rejected)
    )
    assert dict(users.table.items()) == {"alice": raw}
    assert users.table.differing_all() == []
    assert {user.email for user in users.rejected.all()} == {f"'{'e' * 40}…'", "'a>>>b'"}
    assert journal.users == {"a>>>b": None}
    assert journal.rejected == {long: None} | users.rejected.copy()


class ComparedCore(CredentialCore):
    """Says whom it has as desired."""

    fine: set[str] = set()  # noqa: RUF012

    async def compare(self, _users: object, _inbounds: object) -> set[str]:
        return self.fine


async def test_a_core_that_is_taken_over_is_brought_in_step_and_whoever_is_in_step_is_left_alone() -> None:
    core = ComparedCore()
    users = users_over(core)
    raws = {name: vless_user(name, number).SerializeToString(deterministic=True) for number, name in enumerate(NAMES)}
    users.restore(StoredState(users=raws))
    core.fine = set(NAMES[1:])
    core.users, core.owners = {"alice": "something else"}, {"something else": "alice"}
    await users.reconcile_all(ONE_INBOUND)
    assert core.numbers == {"alice": 0}
    assert users.table.differing_all() == []

    core.silent_about, core.fine = {"bob"}, {"alice"}
    with pytest.raises(CoreUnavailableError):
        await users.reconcile_all(ONE_INBOUND)
    core.there = False
    with pytest.raises(CoreNotStartedError):
        await users.reconcile_all(ONE_INBOUND)


async def test_a_start_that_failed_leaves_the_users_as_they_were() -> None:
    journal = Journal()
    users = users_over(CredentialCore(), journal)
    await ask(users, vless_user("alice", 1))
    journal.take()
    remembered = users.remember()
    cache = ClientJsonCache(INBOUNDS)
    from pgnode.supervisor.users.verdicts import Check

    assert await users.replace([vless_user("bob", 2)], ONE_INBOUND, check=Check.ALL, clients=cache) == []
    assert cache.missing(users.table.desired) == []
    assert users.table.keys() == {"bob"}
    users.return_to(remembered)
    assert users.table.keys() == {"alice"}
    assert journal.users == {"alice": remembered[0]["alice"], "bob": None}


async def test_nobody_is_left_after_everybody_was_forgotten() -> None:
    journal = Journal()
    users = users_over(CredentialCore(), journal)
    await ask(users, *(vless_user(name, number) for number, name in enumerate(NAMES)))
    users.rejected.put("bad", "bad", "why", b"", by_core=True)
    await users.forget_all()
    assert users.table.all_known() == set()
    assert journal.users == dict.fromkeys(NAMES)
    assert list(users.rejected) == []


def everybody(users: UserSync) -> Sequence[str]:
    return sorted(users.table.keys())


class Interrupted:
    """Users of whom one is removed and one gets another id, over a core that has done it when ``end`` comes."""

    def __init__(self) -> None:
        self.core, self.journal = CredentialCore(), Journal()
        self.users = users_over(self.core, self.journal)
        self.users.departures.wanted = True

    async def change(self, end: BaseException | None = None) -> list[NodeError | None]:
        await ask(self.users, vless_user("alice", 1), vless_user("bob", 2))
        alter = self.core.alter

        async def ends(plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
            outcome = await alter(plans, chained=chained)
            if end is not None:
                raise end
            return outcome

        self.core.alter = ends  # type: ignore[method-assign]
        return await ask(self.users, vless_user("alice", 1, tags=()), vless_user("bob", 3))


async def test_who_departs_is_stored_where_a_change_is_interrupted() -> None:
    """As when the supervisor is restarted in place: what is in the journal is stored then."""
    stage = Interrupted()
    with pytest.raises(asyncio.CancelledError):
        await stage.change(asyncio.CancelledError())
    assert stage.core.numbers == {"bob": 3}
    assert stage.journal.users["alice"] is None
    assert stage.journal.departed.keys() == {"alice", "bob"}


async def test_who_departs_is_stored_where_a_change_fails() -> None:
    stage = Interrupted()
    errors = await stage.change(ValueError("a fault"))
    assert all(isinstance(error, InternalError) for error in errors)
    assert stage.journal.departed.keys() == {"alice", "bob"}


async def test_who_departs_is_stored_where_the_core_does_not_answer() -> None:
    stage = Interrupted()
    stage.core.silent_about = {"alice"}
    await stage.change()
    # Of her it is not known; he is known to have departed.
    assert stage.journal.departed.keys() == {"alice", "bob"}
    assert [one.key for one in stage.users.departures.take()] == ["bob"]


class Stored:
    """Takes what is to be stored, in one go at the end of a change or also before the core is called."""

    def __init__(self, *, early: bool) -> None:
        self.core, self._journal = CredentialCore(), Journal()
        self.users = users_over(self.core, self._journal)
        self.users.departures.wanted = True
        self.all = StoreChanges()
        self._early = early
        #: How much was taken early, and later.
        self.taken = [0, 0]

    def take(self, *, late: bool = True) -> None:
        changes = self._journal.take(Scope.DESIRED)
        self.taken[late] += changes.rows
        self.all.add(changes)

    async def change(self, users: Sequence[pb.User], refuses: Set[str], silent_about: Set[str]) -> None:
        self.core.refuses, self.core.silent_about = set(refuses), set(silent_about)
        commands = [command(user) for user in users]
        if self._early:
            await self.users.sync(commands, ONE_INBOUND, lambda: self.take(late=False))
        else:
            await self.users.sync(commands, ONE_INBOUND)
        self.take()

    def cut(self) -> None:
        """End the connections of all who departed."""
        for departure in self.users.departures.take():
            self.users.departures.done(departure.key)
        self.take()


async def test_all_that_is_stored_is_noted_before_the_core_is_called() -> None:
    stage = Stored(early=True)
    await stage.change([vless_user("alice", 1), vless_user("bob", 2)], set(), set())
    await stage.change([vless_user("alice", 3), vless_user("bob", 2, tags=())], set(), set())
    assert stage.taken == [2 + 2 + 2, 0], "two users and two users, who departed"
    assert stage.all.departed.keys() == {"alice", "bob"}
    stage.cut()
    assert stage.all.departed_done == 1


@given(st.data())
def test_what_is_stored_early_and_later_is_what_would_be_stored_at_once(data: st.DataObject) -> None:
    some = st.sets(st.sampled_from(NAMES), max_size=1)
    changes = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 4), st.booleans()), min_size=1, max_size=4)
    rounds = data.draw(st.lists(st.tuples(changes, some, some), max_size=5))

    async def run() -> None:
        at_once, early = Stored(early=False), Stored(early=True)
        for changed, refuses, silent_about in rounds:
            users = [vless_user(name, number, ("vless",) if stays else ()) for name, number, stays in changed]
            for stage in (at_once, early):
                await stage.change(users, refuses, silent_about)
            assert early.all.users == at_once.all.users
            assert early.all.rejected.keys() == at_once.all.rejected.keys()
            assert early.all.departed.keys() >= at_once.all.departed.keys()
            assert early.core.numbers == at_once.core.numbers
        for stage in (at_once, early):
            # Everybody is brought in step, and nothing is left to do.
            await stage.change([vless_user(name, 10 + number) for number, name in enumerate(NAMES)], set(), set())
            stage.cut()
            left = [row for row in stage.all.departed.values() if row.generation > (stage.all.departed_done or 0)]
            assert left == []

    asyncio.run(run())
