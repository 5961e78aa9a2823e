"""Readings as differences: what changed is found, once, whoever comes and goes; and what fails leaves nothing half known."""

from __future__ import annotations

from array import array
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.bus.indexed import IndexedBlock
from pgnode.supervisor.traffic.counter_reader import GONE_MAX, CounterReader, _hashed_difference
from pgnode.supervisor.traffic.lately_online import LatelyOnline
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from tests.unit.supervisor.traffic.fake_counters import IN, OUT, FakeCounters


def both(core: FakeCounters) -> tuple[CounterReader, CoreApi]:
    return CounterReader(5.0), cast(CoreApi, core)


def counter(email: str, direction: str) -> str:
    return f"user>>>{email}>>>traffic>>>{direction}"


async def test_a_whole_reading_finds_what_changed_since_the_one_before() -> None:
    core = FakeCounters()
    readings, api = both(core)
    core.move("alice", 10, 20)
    core.move("bob", 1, 0)
    assert dict(await readings.all(api)) == dict(core.counters)
    assert readings.counters == len(core.counters)
    assert await readings.all(api) == []
    core.move("bob", 0, 5)
    assert dict(await readings.all(api)) == {
        name: core.counters[name]
        for name in (
            counter("bob", "downlink"),
            f"outbound>>>{OUT}>>>traffic>>>downlink",
            f"inbound>>>{IN}>>>traffic>>>downlink",
        )
    }


async def test_of_another_core_everything_is_new() -> None:
    core = FakeCounters()
    readings, api = both(core)
    core.move("alice", 10, 20)
    core.online = {"alice"}
    await readings.all(api)
    await readings.online_users(api)
    readings.begin()
    assert not readings.somebody_online
    assert dict((await readings.online_users(api))[0]) == {
        counter("alice", "uplink"): 10,
        counter("alice", "downlink"): 20,
    }
    assert dict(await readings.all(api)) == dict(core.counters)


async def test_online_users_are_read_once_per_change_and_shown_with_their_addresses() -> None:
    core = FakeCounters(counts_inbounds=False)
    readings, api = both(core)
    core.move("alice", 10, 0)
    core.online = {"alice"}
    assert await readings.online_users(api) == ([(counter("alice", "uplink"), 10)], 0)
    assert await readings.online_users(api) == ([], 0)
    block = IndexedBlock(await readings.online_block())
    entry = pb.StatsOnlineIpListResponse.FromString(block.get("alice") or b"")
    assert (entry.name, dict(entry.ips)) == ("alice", {"192.0.2.1": 1})
    core.move("alice", 0, 7)
    assert dict((await readings.online_users(api))[0]) == {
        counter("alice", "uplink"): 10,
        counter("alice", "downlink"): 7,
    }


async def test_who_went_offline_is_asked_for_by_name_one_last_time() -> None:
    core = FakeCounters(counts_inbounds=False)
    readings, api = both(core)
    core.online = {"alice"}
    await readings.online_users(api)
    core.move("alice", 3, 4)
    core.online = set()
    assert dict((await readings.online_users(api))[0]) == {
        counter("alice", "uplink"): 3,
        counter("alice", "downlink"): 4,
    }
    core.move("alice", 1, 1)
    assert await readings.online_users(api) == ([], 0)
    assert len(IndexedBlock(await readings.online_block())) == 0


async def test_how_many_of_those_who_went_were_not_asked_for_is_told() -> None:
    core = FakeCounters(counts_inbounds=False)
    readings, api = both(core)
    core.online = {f"user{number}" for number in range(GONE_MAX + 5)}
    await readings.online_users(api)
    core.online = set()
    assert (await readings.online_users(api))[1] == 5


async def test_a_core_that_does_not_answer_changes_nothing() -> None:
    core = FakeCounters(counts_inbounds=False)
    readings, api = both(core)
    core.move("alice", 3, 4)
    core.online = {"alice"}
    core.silent = True
    for call in (readings.all, readings.online_users):
        with pytest.raises(CoreApiError):
            await call(api)
    core.silent = False
    assert len((await readings.online_users(api))[0]) == 2
    assert dict(await readings.all(api)) == dict(core.counters)


USERS = [f"user{number}" for number in range(6)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("move"), st.sampled_from(USERS), st.integers(0, 9), st.integers(0, 9)),
            st.tuples(st.sampled_from(["come", "go"]), st.sampled_from(USERS), st.just(0), st.just(0)),
            st.tuples(st.sampled_from(["online", "whole"]), st.just(""), st.just(0), st.just(0)),
        ),
        max_size=40,
    )
)
async def test_the_last_value_of_each_counter_is_the_cores_after_a_whole_reading(
    steps: list[tuple[str, str, int, int]],
) -> None:
    core, known = FakeCounters(counts_inbounds=False), dict[str, int]()
    readings, api = both(core)
    for what, email, up, down in [*steps, ("whole", "", 0, 0)]:
        if what == "move":
            core.move(email, up, down)
        elif what == "come":
            core.online.add(email)
        elif what == "go":
            core.online.discard(email)
        elif what == "online":
            known |= dict((await readings.online_users(api))[0])
            for name in (counter(present, "uplink") for present in core.online):
                assert known.get(name, 0) == core.counters[name]
        else:
            known |= dict(await readings.all(api))
    assert known == {name: value for name, value in core.counters.items() if value}


async def test_a_wireguard_user_is_online_after_its_last_connection_and_after_traffic_that_nobody_saw() -> None:
    core = FakeCounters(counts_inbounds=False)
    wanted = [45.0]
    lately = LatelyOnline(lambda: wanted[0], lambda email: "10.66.0.9" if email == "bob" else "")
    readings, api = CounterReader(5.0, lately), cast(CoreApi, core)
    core.move("alice", 10, 0)
    core.move("bob", 10, 0)
    core.online = {"alice"}
    await readings.all(api)
    await readings.online_users(api)
    assert readings.online == (1, 1), "what was counted before it was looked at says nothing of when"
    core.online = set()
    await readings.online_users(api)
    assert not readings.somebody_online
    assert readings.online_addresses() == {"alice": 1}
    core.move("bob", 1, 0)
    await readings.all(api)
    assert (readings.online, readings.addresses_of("bob")) == ((2, 2), 1)
    block = IndexedBlock(await readings.online_block())
    assert block.get("alice") is not None
    entry = pb.StatsOnlineIpListResponse.FromString(block.get("bob") or b"")
    assert list(entry.ips) == ["10.66.0.9"]
    wanted[0] = 0.0
    assert IndexedBlock(await readings.online_block()).get("alice") is None
    assert readings.online == (0, 0)


@given(st.lists(st.sets(st.binary(min_size=1, max_size=4), max_size=12), min_size=1, max_size=4))
def test_what_is_new_since_the_last_reading_is_told_by_hashes(readings: list[set[bytes]]) -> None:
    held, before = array("q"), set[bytes]()
    for pieces in readings:
        changed, held = _hashed_difference(list(pieces), held)
        assert set(changed) == pieces - before
        assert len(held) == len(pieces)
        before = pieces
