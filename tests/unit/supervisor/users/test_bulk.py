"""A bulk change from its command to its answer: single changes in between, faults, redelivery, a core that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.commands import Command, Kind
from pgnode.errors import CoreNotStartedError, CoreUnavailableError, InternalError, NodeError
from pgnode.os_support.aio import end_tasks
from pgnode.store.changes import Journal, Scope, StoreChanges
from pgnode.store.rows import TAKEN_USERS
from pgnode.supervisor.users.bulk import BulkChange
from pgnode.supervisor.users.departures import Departures
from pgnode.supervisor.users.rollout import StepLimits
from pgnode.supervisor.users.sync import UserSync
from pgnode.supervisor.users.table import Phase
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.inbounds import InboundSpec
from tests.support.polling import next_turn
from tests.unit.supervisor.users.models import VLESS, CredentialCore, vless_user

NAMES = ["alice", "bob", "carol", "dave", "eve", "frank"]
#: One slice of two users in each step.
SMALL = StepLimits(slice_users=2, slice_calls=4, step_seconds=0.0, rollout_users=2)


class Stage:
    def __init__(self, *, swaps: bool = False) -> None:
        self.core = CredentialCore()
        self.journal = Journal()
        #: The number of the next line of the log.
        self.line = 1
        departures = Departures(self.journal, place=lambda: self.line, wanted=True)
        self.users = UserSync(cast(Any, self.core), self.journal, SMALL, lambda *_: swaps, departures)
        self.state: NodeError | None = None
        self.ended = 0

    def inbounds(self) -> Mapping[str, InboundSpec]:
        if self.state is not None:
            raise self.state
        return {"vless": VLESS}

    def bulk(self, numbers: Mapping[str, int], kind: Kind = Kind.SYNC_USERS, entry: str = "1-0") -> BulkChange:
        body = pb.Users(users=[vless_user(name, number) for name, number in numbers.items()]).SerializeToString()
        return self.users.bulk(Command(entry, entry, kind, "worker", 1000, body), self.inbounds, self._end)

    def _end(self) -> None:
        self.ended += 1

    async def run(self, bulk: BulkChange) -> NodeError | None:
        while (reply := await bulk.step()) is None:
            pass
        return reply.error

    async def one(self, user: pb.User) -> None:
        command = Command("9-0", "9", Kind.SYNC_USER, "worker", 1000, user.SerializeToString())
        [(_, reply)] = await self.users.sync([command], {"vless": VLESS})
        assert reply.error is None


def numbered(start: int = 0) -> dict[str, int]:
    return {name: start + number for number, name in enumerate(NAMES)}


async def test_it_is_read_made_desired_and_applied_and_then_answered() -> None:
    stage = Stage()
    bulk = stage.bulk(numbered())
    steps = 0
    while (reply := await bulk.step()) is None:
        steps += 1
        assert len(stage.users.table) in (0, len(NAMES)), "all of it becomes desired at once"
        assert stage.ended == 0
    assert reply.error is None
    assert steps > 3
    assert stage.core.numbers == numbered()
    assert stage.ended == 1
    assert stage.journal.taken == {"1-0": TAKEN_USERS}
    assert stage.users.table.differing_all() == []


async def test_a_delta_leaves_others_alone() -> None:
    stage = Stage()
    await stage.run(stage.bulk(numbered()))
    assert await stage.run(stage.bulk({"alice": 20, "new": 21}, Kind.SYNC_CHUNKED, "2-0")) is None
    assert stage.core.numbers == {**numbered(), "alice": 20, "new": 21}
    assert stage.journal.taken == {"1-0": None, "2-0": TAKEN_USERS}


async def test_single_changes_that_come_while_it_is_read_or_applied_hold() -> None:
    stage = Stage()
    await stage.run(stage.bulk(numbered()))
    bulk = stage.bulk(numbered(10), entry="2-0")
    assert await bulk.step() is None
    await stage.one(vless_user("alice", 30))
    assert stage.journal.superseded == {"alice": "2-0"}
    while not stage.users.table.has_pending:
        assert await bulk.step() is None
    await stage.one(vless_user("frank", 31))
    assert await stage.run(bulk) is None
    assert stage.core.numbers == {**numbered(10), "alice": 30, "frank": 31}
    assert stage.journal.superseded == {"alice": None}


async def test_a_command_that_comes_again_is_applied_and_not_taken_in_a_second_time() -> None:
    stage = Stage()
    bulk = stage.bulk(numbered())
    while not stage.users.table.has_pending:
        await bulk.step()
    await stage.one(vless_user("alice", 30))
    stage.users.rejected.put("bad", "Bad", "no", b"user", by_core=True)
    # Another supervisor: it knows what is desired, and nothing of the core.
    stage.users.table.core_has_nothing_certain()
    again = stage.bulk(numbered())
    error = await stage.run(again)
    assert error is not None
    assert error.text == "failed to update users: Bad: no"
    assert stage.core.numbers == {**numbered(), "alice": 30}


async def test_without_a_running_core_it_is_refused_and_nothing_is_desired() -> None:
    stage = Stage()
    bulk = stage.bulk(numbered())
    stage.state = CoreNotStartedError()
    assert await stage.run(bulk) is stage.state
    assert len(stage.users.table) == 0
    assert stage.ended == 1
    assert "not begun" in repr(bulk)


async def test_a_core_that_goes_away_meanwhile_leaves_users_unknown() -> None:
    stage = Stage()
    bulk = stage.bulk(numbered())
    while not stage.users.table.has_pending:
        await bulk.step()
    assert "Rollout" in repr(bulk)
    stage.state = CoreNotStartedError()
    assert await stage.run(bulk) is stage.state
    assert list(stage.users.table.in_phase(Phase.PENDING)) == []
    assert set(stage.users.table.in_phase(Phase.UNKNOWN)) == set(stage.users.table.differing_all()) != set()


async def test_a_core_that_ends_while_it_is_read_ends_the_reading() -> None:
    stage = Stage()
    bulk = stage.bulk(numbered())
    assert await bulk.step() is None
    assert "UserIntake" in repr(bulk)
    stage.state = CoreNotStartedError()
    await stage.run(bulk)
    assert not stage.users.superseded.reading


async def test_a_core_that_does_not_answer_is_told_of() -> None:
    stage = Stage()
    stage.core.silent_about = set(NAMES)
    error = await stage.run(stage.bulk(numbered()))
    assert isinstance(error, CoreUnavailableError)
    stage.core.silent_about = set()
    stage.core.there = False
    assert isinstance(await stage.run(stage.bulk(numbered(10), entry="2-0")), CoreUnavailableError)
    stage.core.there = True
    assert await stage.run(stage.bulk(numbered(10), entry="3-0")) is None
    assert stage.core.numbers == numbered(10)


async def test_users_whom_the_core_refuses_are_named() -> None:
    stage = Stage()
    stage.core.refuses = {"bob"}
    error = await stage.run(stage.bulk(numbered()))
    assert error is not None
    assert error.text == "failed to update users: bob: the core said no"
    assert stage.core.numbers == {name: number for name, number in numbered().items() if name != "bob"}


async def test_a_fault_is_answered_and_leaves_nothing_certain() -> None:
    stage = Stage()

    async def fault(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("a fault")

    stage.core.alter = fault  # type: ignore[assignment,method-assign]
    assert isinstance(await stage.run(stage.bulk(numbered())), InternalError)
    assert set(stage.users.table.in_phase(Phase.UNKNOWN)) == set(NAMES)


async def test_a_rollout_ends_when_a_new_core_was_started_with_everybody() -> None:
    stage = Stage()
    bulk = stage.bulk(numbered())
    while not stage.users.table.has_pending:
        await bulk.step()
    stage.users.table.core_has_all()
    calls = stage.core.calls
    assert await stage.run(bulk) is None
    assert stage.core.calls == calls


async def test_who_lost_a_credential_while_a_set_was_read_does_not_take_it_back() -> None:
    stage = Stage()
    await stage.run(stage.bulk(numbered()))
    alice = vless_user("alice", 0)
    # Parts in another order: the same user, and not the bytes that the node keeps.
    odd = [pb.User(inbounds=alice.inbounds), pb.User(proxies=alice.proxies), pb.User(email="alice")]
    given = {name: vless_user(name, number).SerializeToString() for name, number in numbered().items()}
    given["alice"] = b"".join(part.SerializeToString() for part in odd)
    body = b"".join(b"\x0a%c%b" % (len(one), one) for one in given.values())
    bulk = stage.users.bulk(Command("2-0", "2-0", Kind.SYNC_USERS, "worker", 1000, body), stage.inbounds)
    while "UserIntake(2" not in repr(bulk):
        assert await bulk.step() is None
    await stage.one(vless_user("zoe", 0))
    error = await stage.run(bulk)
    assert error is not None
    assert error.text == "failed to update users: alice: has the same VLESS id as 'zoe', in inbound 'vless'"
    assert stage.core.numbers == {"zoe": 0, **{name: number for name, number in numbered().items() if name != "alice"}}


async def test_whoever_loses_an_account_is_stored_together_with_what_is_desired() -> None:
    """A supervisor that comes after a crash finds the core without their accounts, and ends what is open of them."""
    for swaps in (False, True):
        stage = Stage(swaps=swaps)
        await stage.run(stage.bulk(numbered()))
        stage.journal.take(Scope.DESIRED)
        given = {name: number for name, number in numbered(10).items() if name != "bob"}
        bulk, stored = stage.bulk({**given, "frank": 5}, entry="2-0"), StoreChanges()
        while True:
            reply = await bulk.step()
            stored.add(stage.journal.take(Scope.DESIRED))
            if stored.users:
                assert stored.departed.keys() == {"alice", "bob", "carol", "dave", "eve"}
            if reply is not None:
                break


async def test_a_supervisor_that_is_ended_there_has_stored_all_who_lose_an_account() -> None:
    """Its last commit has the set as desired. Who is looked at a little at a time is looked at to the end first."""
    stage = Stage()
    await stage.run(stage.bulk(numbered()))
    stage.journal.take(Scope.DESIRED)
    bulk = stage.bulk(numbered(10), entry="2-0")
    stepping = asyncio.create_task(_all_steps(bulk))
    while stage.users.table.get("alice") != vless_user("alice", 10).SerializeToString(deterministic=True):
        await next_turn()
    before = set(stage.journal.take(Scope.DESIRED).departed)
    assert len(before) < len(NAMES)
    await end_tasks([stepping])
    assert before | set(stage.journal.take(Scope.DESIRED).departed) == set(NAMES)


async def _all_steps(bulk: BulkChange) -> None:
    while await bulk.step() is None:
        pass


@pytest.mark.parametrize("steps", range(1, 7))
async def test_one_that_nobody_goes_on_with_leaves_nothing_behind(steps: int) -> None:
    """The dispatcher's task failed, was begun again, and has the command delivered once more."""
    stage = Stage()
    await stage.run(stage.bulk(numbered()))
    left = stage.bulk(numbered(10), entry="2-0")
    for _ in range(steps):
        assert await left.step() is None
    await stage.one(vless_user("bob", 21))
    assert await stage.run(stage.bulk(numbered(10), entry="2-0")) is None
    assert stage.core.numbers == {**numbered(10), "bob": 21}
    assert stage.users.table.differing_all() == []
    index = stage.users.table.credentials
    [before] = index.numbers(stage.users.table.get("carol"))
    await stage.one(vless_user("carol", 30))
    await stage.one(vless_user("xavier", 12))
    assert index.holders(before) == ["xavier"], "who has it no longer is forgotten"


async def test_many_who_are_back_while_a_rollout_has_swapped_them_out_are_put_again() -> None:
    stage = Stage(swaps=True)
    await stage.run(stage.bulk(numbered()))
    bulk = stage.bulk({"carol": 2, "zoe": 20}, entry="2-0")
    while "zoe" not in stage.core.users:
        assert await bulk.step() is None
    back = pb.Users(users=[vless_user(name, number) for name, number in numbered().items()])
    command = Command("9-0", "9", Kind.SYNC_CHUNKED, "worker", 1000, back.SerializeToString())
    [(_, reply)] = await stage.users.sync([command], {"vless": VLESS})
    assert reply.error is None
    assert await stage.run(bulk) is None
    assert stage.users.table.differing_all() == []
    assert stage.core.numbers == {**numbered(), "zoe": 20}


async def test_what_was_connected_before_a_swap_is_told_from_what_came_after_it() -> None:
    stage = Stage(swaps=True)
    await stage.run(stage.bulk(numbered()))
    bulk, before = stage.bulk(numbered(10), entry="2-0"), dict(stage.core.numbers)
    while stage.core.numbers == before:
        stage.line += 1
        assert await bulk.step() is None
    swapped_in = stage.line
    while await bulk.step() is None:
        stage.line += 1
    assert {one.place for one in stage.users.departures.take()} == {swapped_in}


async def test_a_credential_that_was_asked_for_and_given_up_meanwhile_is_known_to_be_the_sets() -> None:
    """Somebody else had it for a moment while the set was read. Who asks for it later takes it from the set's user."""
    stage = Stage()
    await stage.run(stage.bulk({"alice": 1, "bob": 2, "carol": 3}))
    bulk = stage.bulk({"alice": 7, "bob": 2, "carol": 3}, entry="2-0")
    await bulk.step()
    await stage.one(vless_user("xavier", 7))
    await stage.one(vless_user("xavier", 8))
    assert await stage.run(bulk) is None
    assert stage.core.numbers == {"alice": 7, "bob": 2, "carol": 3, "xavier": 8}
    await stage.one(vless_user("yves", 7))
    assert stage.core.numbers == {"yves": 7, "bob": 2, "carol": 3, "xavier": 8}
    assert [user.email for user in stage.users.rejected.all()] == ["alice"]


async def test_who_asked_later_than_a_set_keeps_what_it_got() -> None:
    stage = Stage()
    await stage.run(stage.bulk({"alice": 1, "bob": 2, "carol": 3}))
    bulk = stage.bulk({"alice": 7, "bob": 2, "carol": 3}, entry="2-0")
    await bulk.step()
    await stage.one(vless_user("xavier", 7))
    error = await stage.run(bulk)
    assert str(error) == "failed to update users: alice: has the same VLESS id as 'xavier', in inbound 'vless'"
    assert stage.core.numbers == {"alice": 1, "xavier": 7, "bob": 2, "carol": 3}


async def test_who_lost_what_the_set_gives_up_for_it_is_rejected_no_longer() -> None:
    stage = Stage()
    await stage.run(stage.bulk({"alice": 1, "bob": 2, "carol": 3}))
    bulk = stage.bulk({"alice": 7, "bob": 2, "carol": 3}, entry="2-0")
    await bulk.step()
    await stage.one(vless_user("xavier", 1))
    assert [user.email for user in stage.users.rejected.all()] == ["alice"]
    assert await stage.run(bulk) is None
    assert stage.core.numbers == {"alice": 7, "xavier": 1, "bob": 2, "carol": 3}
    assert stage.users.rejected.all() == []


async def test_who_is_back_while_a_set_is_read_loses_to_the_set_that_asks_for_the_same() -> None:
    stage = Stage()
    await stage.run(stage.bulk({"alice": 1, "bob": 2, "carol": 3}))
    await stage.one(vless_user("dave", 9))
    assert await stage.run(stage.bulk({"alice": 1, "bob": 2, "carol": 9, "dave": 9}, entry="2-0")) is not None
    assert [user.email for user in stage.users.rejected.all()] == ["dave"]
    bulk = stage.bulk({"alice": 9, "bob": 2, "frank": 4}, Kind.SYNC_CHUNKED, entry="3-0")
    await bulk.step()
    await stage.one(vless_user("carol", 5))
    assert stage.core.numbers["dave"] == 9, "it is back"
    await stage.run(bulk)
    assert stage.core.numbers == {"alice": 9, "bob": 2, "carol": 5, "frank": 4}
    assert [user.email for user in stage.users.rejected.all()] == ["dave"]


@given(st.data())
def test_whatever_others_change_meanwhile_nobody_shares_a_credential_and_everybody_is_known(
    data: st.DataObject,
) -> None:
    numbers = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 7))
    single = st.tuples(st.sampled_from([*NAMES, "xavier"]), st.integers(0, 7), st.booleans())

    async def run() -> None:
        stage = Stage(swaps=data.draw(st.booleans()))
        await stage.run(stage.bulk(data.draw(numbers)))
        kind = data.draw(st.sampled_from([Kind.SYNC_USERS, Kind.SYNC_CHUNKED]))
        bulk = stage.bulk(data.draw(numbers), kind, entry="2-0")
        while await bulk.step() is None:
            for name, number, is_there in data.draw(st.lists(single, max_size=2)):
                user = vless_user(name, number, ("vless",) if is_there else ())
                command = Command("9-0", "9", Kind.SYNC_USER, "worker", 1000, user.SerializeToString())
                await stage.users.sync([command], {"vless": VLESS})
        table = stage.users.table
        index, holders = table.credentials, dict[int, str]()
        for key, raw in table.items():
            for number in index.numbers(raw):
                assert key in index.holders(number)
                assert holders.setdefault(number, key) == key
        assert stage.core.numbers.keys() == table.keys()
        assert not index.shared

    asyncio.run(run())
