"""Parts die while users change: afterwards core and store agree, and every answered call holds."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json

import pytest
from redis.asyncio import Redis

from pgnode.bus.connection import connect
from pgnode.bus.keys import GROUP, Keys
from pgnode.testing.panel import PanelError
from pgnode.testing.ports import free_port
from pgnode.testing.users import make_user, make_users
from pgnode.xray.client.api import CoreApi
from pgnode.xray.proto import core_pb2, proxyman_pb2
from tests.faults.checker import in_core, in_store
from tests.faults.conftest import ALTERED, SWAPPED, TAGS, Stage
from tests.faults.load import under_load
from tests.faults.table import SECONDS
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, valkey_pid, worker_pids
from tests.support.said import said
from tests.support.stored import stored_state

pytestmark = pytest.mark.timeout(400)

KILLED = "the core itself was killed"
NOTHING_BREAKS = {SECONDS: "nothing is out of order at any time"}


@pytest.mark.fault("20 of 10,000 users are such as the core refuses", unmeasured=NOTHING_BREAKS)
async def test_bad_users_among_ten_thousand(stage: Stage) -> None:
    await stage.begin(make_users(100, TAGS))
    users = make_users(10_000, TAGS, key="new")
    bad = users[50::500]
    for user in bad:
        user.proxies.vless.id = "no uuid"
    with pytest.raises(PanelError) as caught:
        await stage.panel.sync_users([*users, *stage.record.kept])
    assert caught.value.status == 500
    assert caught.value.text.startswith(f"failed to update users: {bad[0].email}: vless id is not a UUID")
    named = {user.email for user in bad}
    # The first of them was there before, and stays as it was.
    stage.record.initial = {
        user.email: user.SerializeToString(deterministic=True) for user in (*users, *stage.record.kept)
    }
    for user in bad:
        stage.record.initial[user.email] = None
    first = make_users(100, TAGS)[50]
    stage.record.initial[first.email] = first.SerializeToString(deterministic=True)
    await stage.check()
    assert (await in_store(stage.node)).failed.keys() == named
    for user in bad:
        user.CopyFrom(make_user(user.email, TAGS, key="cured"))
    assert await stage.record.several(bad)
    await stage.check()
    assert not (await in_store(stage.node)).failed


async def killed_at(stage: Stage, point: str, pid: int, *, skip: int = 0) -> None:
    """Kill the process when the supervisor comes to the point, which then goes on."""
    stage.faults.arm(point, "wait", skip=skip)
    await stage.faults.reached(point, 60)
    stage.struck(pid)
    stage.faults.let_go(point)


@pytest.mark.fault("core killed while 4,000 users are changed one by one", core_ends=KILLED)
async def test_core_killed_in_the_middle_of_an_alter_run(stage: Stage) -> None:
    users = make_users(4_000, [ALTERED])
    await stage.begin(users)

    changed = [make_user(user.email, [ALTERED], key="new") for user in users]
    async with asyncio.TaskGroup() as group:
        group.create_task(killed_at(stage, "rollout.slice_done", core_pid(stage.node), skip=2))
        group.create_task(stage.record.several(changed))
    await stage.check()
    assert await stage.record.several(changed[:100])
    await stage.check()


@pytest.mark.fault("core killed between the end of an inbound of 15,000 users and its successor", core_ends=KILLED)
async def test_core_killed_in_the_middle_of_a_swap(stage: Stage) -> None:
    """Between the end of the old inbound and the beginning of the new one."""
    users = make_users(15_000, [SWAPPED])
    await stage.begin(users)
    async with asyncio.TaskGroup() as group:
        killed = group.create_task(killed_at(stage, "swap.taken_out", core_pid(stage.node)))
        turn = 0
        # An inbound that was swapped a moment ago is altered for some seconds.
        while not killed.done():
            turn += 1
            await stage.record.several([make_user(user.email, [SWAPPED], key=str(turn)) for user in users])
    await stage.check()


async def commands_taken(store: Redis, count: int) -> None:
    """Wait until the supervisor has taken so many commands that it has not answered."""
    keys = Keys("pgnode")

    async def taken() -> bool:
        return bool((await store.xpending(keys.commands, GROUP))["pending"] >= count)

    await eventually(taken, f"{count} commands were taken", 60)


@pytest.mark.fault("supervisor killed in the middle of a full set of 10,000 users, after a later change was answered")
async def test_supervisor_killed_in_the_middle_of_a_long_change(lasting_stage: tuple[Stage, str]) -> None:
    """What was accepted after a full set, while it was applied, is still there when the set comes again."""
    stage, bus = lasting_stage
    users = make_users(10_000, [ALTERED])
    await stage.begin(users[:9_000])
    after = [make_user("after@demo", TAGS), make_user(users[9_999].email, TAGS, key="after")]
    async with (
        asyncio.TaskGroup() as group,
        contextlib.aclosing(connect(bus)) as store,
    ):
        stage.faults.arm("rollout.slice_done", "wait", skip=2)
        full = group.create_task(stage.record.all([make_user(user.email, [ALTERED], key="full") for user in users]))
        await stage.faults.reached("rollout.slice_done")
        changed = group.create_task(stage.record.several(after))
        await commands_taken(store, 2)
        # They are done between this part of the set and the next, which does not come.
        stage.faults.arm("long_change.next_part", "wait")
        stage.faults.let_go("rollout.slice_done")
        await stage.faults.reached("long_change.next_part")
        while not (await asyncio.wait({changed}, timeout=2))[0]:
            # Redis had handed them out, and the supervisor had not read them yet: then they come before a later part.
            stage.faults.arm("long_change.next_part", "wait")
            await stage.faults.reached("long_change.next_part")
        assert await changed
        assert not full.done()
        kill(stage.node.pid)
        stage.trial.struck()
    await stage.struck_down()
    await stage.check()
    stored = (await in_store(stage.node)).desired
    assert {user.email: stored[user.email] for user in after} == {user.email: user for user in after}
    # Those of the set, one who came after it, and who holds connections.
    assert len(stored) == 10_002


@pytest.mark.fault("supervisor killed while it takes in a full set of 40,000 users, after a later change was answered")
async def test_supervisor_killed_while_a_set_is_looked_at(lasting_stage: tuple[Stage, str]) -> None:
    """Changes that were asked for after the set, and answered while nothing of it was done, are there when it has come again."""
    stage, bus = lasting_stage
    users = make_users(40_000, [SWAPPED], key="full")
    await stage.begin(make_users(200, [SWAPPED]))
    after = [
        make_user(users[100].email, TAGS, key="changed by the set"),
        make_user(users[0].email, TAGS, key="removed by the set"),
        make_user(users[200].email, []),
        make_user("after@demo", TAGS),
    ]
    async with (
        asyncio.TaskGroup() as group,
        contextlib.aclosing(connect(bus)) as store,
    ):
        stage.faults.arm("long_change.begun", "wait")
        stage.faults.arm("long_change.next_part", "wait", skip=1)
        full = group.create_task(stage.record.all(users[100:]))
        await stage.faults.reached("long_change.begun")
        changed = group.create_task(stage.record.several(after))
        await commands_taken(store, 2)
        # The first part of the set is looked at, then they are changed, and the second part does not come.
        stage.faults.let_go("long_change.begun")
        await stage.faults.reached("long_change.next_part")
        assert await changed
        overtaken = len((await asyncio.to_thread(stored_state, stage.node)).superseded)
        kill(stage.node.pid)
    assert overtaken == len(after), "the set is looked at, and nothing of it desired"
    assert not full.result()
    await stage.struck_down()

    async def taken() -> bool:
        return len((await in_store(stage.node)).desired) > len(users) // 2

    await eventually(taken, "the set has come again", 60)
    await stage.check()
    wanted = {user.email: user for user in [*users[100:], *after, *stage.record.kept]}
    assert (await in_store(stage.node)).desired == {email: user for email, user in wanted.items() if user.inbounds}


@pytest.mark.fault("core killed in the middle of a hot change", core_ends=KILLED)
async def test_core_killed_in_the_middle_of_a_base_config_change(stage: Stage) -> None:
    users = make_users(2_000, TAGS)
    await stage.begin(users)
    other = copy.deepcopy(stage.config)
    for item in other["inbounds"]:
        item["port"] = free_port()
    async with asyncio.TaskGroup() as group:
        group.create_task(killed_at(stage, "hot_change.half_done", core_pid(stage.node)))
        started = group.create_task(stage.record.start(other, users[:1_500]))
    stage.config = other
    assert started.result(), stage.record.unexpected
    await stage.check()
    await said(stage.node, "the core could not be changed, starting a new one")


@pytest.mark.fault("supervisor killed in the middle of a hot change of every inbound")
async def test_supervisor_killed_in_the_middle_of_a_base_config_change(stage: Stage) -> None:
    """The core that is neither the old config nor the new one goes on, and becomes one of them."""
    await stage.begin(make_users(2_000, TAGS))
    other = copy.deepcopy(stage.config)
    for item in other["inbounds"]:
        item["port"] = free_port()
    core = core_pid(stage.node)
    stage.faults.arm("hot_change.half_done", "kill")
    assert not await stage.record.start(other, make_users(1_500, TAGS))
    await stage.struck_down()
    await stage.check()
    assert core_pid(stage.node) == core
    # What the core listens on is what is stored, whichever of the two that is.
    stored = json.loads((await in_store(stage.node)).config)
    async with CoreApi(stage.node.run_dir / "core.sock") as api:
        listed = {item.tag: ports_of(item) for item in await api.inbounds.list_inbounds(30)}
    assert listed == {item["tag"]: item["port"] for item in stored["inbounds"]}
    stage.config = other
    assert await stage.record.start(other, make_users(1_500, TAGS))
    await stage.check()


def ports_of(inbound: core_pb2.InboundHandlerConfig) -> int:
    """The one port that an inbound listens on."""
    receiver = proxyman_pb2.ReceiverConfig.FromString(inbound.receiver_settings.value)
    (only,) = receiver.port_list.range
    return only.From


@pytest.mark.fault("Valkey killed while 4,000 users are changed, and right after an answer")
async def test_valkey_killed_before_and_after_the_store_step(stage: Stage) -> None:
    """The core has half of a change when the store dies; then the store dies right after its answer."""
    users = make_users(4_000, [ALTERED])
    await stage.begin(users)
    changed = [make_user(user.email, [ALTERED], key="new") for user in users]
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.record.several(changed))
        group.create_task(killed_at(stage, "rollout.slice_done", valkey_pid(stage.node), skip=2))
    await stage.check()
    assert await stage.record.several(changed[:2_000])
    assert await stage.record.one(make_user("after@demo", TAGS))
    stage.struck(valkey_pid(stage.node))
    await stage.check()


@pytest.mark.fault("Valkey killed under 30 callers who change users")
async def test_valkey_killed(stage: Stage) -> None:
    async with under_load(stage):
        stage.struck(valkey_pid(stage.node))


@pytest.mark.fault("REST worker killed under 30 callers who change users")
async def test_worker_killed_while_its_callers_wait(stage: Stage) -> None:
    async with under_load(stage):
        stage.struck(worker_pids(stage.node)[0])


@pytest.mark.fault("core killed under 30 callers who change users", core_ends=KILLED)
async def test_core_killed(stage: Stage) -> None:
    async with under_load(stage):
        stage.struck(core_pid(stage.node))


@pytest.mark.fault("{what} killed under 30 callers who change users")
@pytest.mark.parametrize(("what", "with_its_store"), [("supervisor", False), ("supervisor and Valkey", True)])
async def test_supervisor_killed_in_the_middle_of_a_group(stage: Stage, what: str, with_its_store: bool) -> None:
    """With its store gone at the same moment nobody is left to write again what was answered and not stored."""
    async with under_load(stage):
        if with_its_store:
            stage.struck(valkey_pid(stage.node))
        await stage.struck_down()


@pytest.mark.fault("50 callers change one user at once", unmeasured=NOTHING_BREAKS)
async def test_fifty_callers_change_the_same_user(stage: Stage) -> None:
    await stage.begin(make_users(5, TAGS))
    async with stage.callers(50, lambda _number: "user0@demo") as load:
        await load.progress(500)
    await stage.check()
    # Who comes after all of them wins.
    assert await stage.record.one(make_user("user0@demo", ["Trojan"], key="last"))
    await stage.check()
    assert "user0@demo" not in (await in_core(stage.node, TAGS))[SWAPPED]


@pytest.mark.fault("a full set races 1,000 single changes", unmeasured=NOTHING_BREAKS)
async def test_a_full_set_races_a_thousand_single_changes(stage: Stage) -> None:
    """From four workers: what was accepted after the set survives it, what was before does not."""
    assert len(worker_pids(stage.node)) == 4
    await stage.begin(make_users(500, TAGS))
    numbers = iter(range(1_000))
    full = make_users(700, TAGS, key="full")

    async def caller() -> None:
        for number in numbers:
            await stage.record.one(make_user(f"user{number}@demo", TAGS, key="single"))

    async def sets() -> None:
        await eventually(lambda: len(stage.record.calls) > 300, "a third of the changes", 60)
        assert await stage.record.all(full)

    async with asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(caller())
        group.create_task(sets())
    assert len(stage.record.calls) == 1_001
    assert all(call.done for call in stage.record.calls)
    await stage.check()
    allowed = stage.record.allowed()
    sure = sum(len(states) == 1 for states in allowed.values())
    assert sure > 500, "nearly every user's end is certain"
