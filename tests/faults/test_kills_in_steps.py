"""The supervisor is killed right before each step of what it does; the next one comes up, and users notice nothing.

Each test goes through the steps of one thing, with the same connections held all the time. The steps are those of the machine
(``pgnode/supervisor/lifecycle/actions.py``), each of which has a fault point, and some moments inside them.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio

from pgnode.supervisor.lifecycle import actions
from pgnode.supervisor.lifecycle.actions import STEP_POINTS
from pgnode.testing.configs import make_inbound
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.ports import free_port
from pgnode.testing.processes import command_line, tree
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb
from tests.faults.conftest import PATIENT, READ_OFTEN, TAGS, Stage
from tests.faults.leftovers import TidyNode
from tests.faults.steps import RESET, RESET_NOT_STORED, RESET_STORED, UPDATE, Chosen, Step, killed_at_each
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill

pytestmark = pytest.mark.timeout(400)

#: Supervisors that are killed one after the other before one comes up.
IN_A_ROW = 3

STORED = ("commit.desired", 0), ("commit.desired_stored", 0)
SAME_CORE = (("step.take_in_users", 0), ("step.apply_users", 0), ("step.record", 0), *STORED)
HOT_CHANGE = (
    ("step.check_config", 0),
    ("step.prepare_hot_change", 0),
    ("step.take_in_users", 0),
    ("step.change_core", 0),
    ("core.record_again", 0),
    ("hot_change.half_done", 0),
    ("core.record_again", 1),
    ("step.follow_config", 0),
    *STORED,
)
BEFORE_THE_OLD_CORE_ENDS = (
    ("step.check_config", 0),
    ("step.warm_up", 0),
    ("step.take_in_users", 0),
    ("step.render_config", 0),
    ("step.end_core", 0),
)
AFTER_THE_OLD_CORE_ENDED = (
    ("step.start_core", 0),
    ("core.record", 0),
    ("step.complete_core", 0),
    *STORED,
)
RESTORE = (
    ("supervisor.store_opened", 0),
    ("supervisor.bus_ready", 0),
    ("supervisor.core_selected", 0),
    ("step.find_core", 0),
    ("step.take_over_core", 0),
    ("step.publish", 0),
)
RESTORE_WITHOUT_A_CORE = (
    ("step.find_core", 0),
    ("step.start_core", 0),
    ("core.record", 0),
    ("step.complete_core", 0),
    ("step.commit", 0),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    """One that comes up soon: it does so again and again."""
    small = {"WEB_CONCURRENCY": "1", "SERVICE_PROTOCOL": "rest"}
    async with TidyNode(env=PATIENT | READ_OFTEN | small | dict(node_faults.environment)) as running:
        yield running


def users_of(number: int) -> list[pb.User]:
    """Others in each turn, some of whom stay."""
    return make_users(20 + number % 3, TAGS, key=str(number // 2))


def with_other_entries(config: dict[str, Any], number: int) -> dict[str, Any]:
    """What a hot change makes of a config: a moved inbound, an added one, an outbound and a rule."""
    other = copy.deepcopy(config)
    other["inbounds"][-1]["port"] = free_port()
    other["inbounds"].append(make_inbound(f"Extra {number}", "vless"))
    other["outbounds"].append({"tag": f"OUT {number}", "protocol": "blackhole"})
    other["routing"] = {"rules": [{"domain": [f"full:{number}.example"], "outboundTag": f"OUT {number}"}]}
    return other


def with_another_base(config: dict[str, Any], number: int) -> dict[str, Any]:
    """What only a new core can do."""
    return {**config, "policy": {"levels": {"0": {"handshake": 4 + number % 5}}}}


@pytest.mark.fault("supervisor killed in each step of a start that changes users only")
async def test_start_with_the_same_core(stage: Stage, chosen: Chosen) -> None:
    await stage.begin(make_users(20, TAGS))

    async def act(number: int) -> bool:
        return await stage.record.start(stage.config, users_of(number))

    await killed_at_each(stage, chosen(SAME_CORE), act)


@pytest.mark.fault("supervisor killed in each step of a hot change")
async def test_hot_change(stage: Stage, chosen: Chosen) -> None:
    await stage.begin(make_users(20, TAGS))
    config = stage.config

    async def act(number: int) -> bool:
        return await stage.record.start(with_other_entries(config, number), users_of(number))

    core = core_pid(stage.node)
    await killed_at_each(stage, chosen(HOT_CHANGE), act)
    assert core_pid(stage.node) == core


@pytest.mark.fault("supervisor killed in each step of a start that needs a new core, while the old one runs")
async def test_new_core_before_the_old_one_ends(stage: Stage, chosen: Chosen) -> None:
    await stage.begin(make_users(20, TAGS))
    config, core = stage.config, core_pid(stage.node)

    async def act(number: int) -> bool:
        return await stage.record.start(with_another_base(config, number), users_of(number))

    await killed_at_each(stage, chosen(BEFORE_THE_OLD_CORE_ENDS), act)
    assert core_pid(stage.node) == core


@pytest.mark.fault(
    "supervisor killed in each step of a start that needs a new core, after the old one ended",
    core_ends="the start was checked and needs a new core",
)
async def test_new_core_after_the_old_one_ended(stage: Stage, chosen: Chosen) -> None:
    await stage.begin(make_users(20, TAGS))
    config = stage.config

    async def act(number: int) -> bool:
        return await stage.record.start(with_another_base(config, number), users_of(number))

    await killed_at_each(stage, chosen(AFTER_THE_OLD_CORE_ENDED), act)


@pytest.mark.fault(
    "supervisor killed in a start right after a stop",
    core_ends="the stop was answered and the start was not, so nothing had to run",
)
async def test_start_right_after_a_stop(stage: Stage) -> None:
    await stage.begin(make_users(20, TAGS))

    async def act(number: int) -> bool:
        await stage.panel.stop()
        return await stage.record.start(stage.config, users_of(number))

    stage.faults.arm("step.probe_core", "kill")
    assert not await act(0)
    await stage.struck_down()
    assert await stage.record.start(stage.config, users_of(1))
    await stage.check()


async def killed_while_it_comes_up(stage: Stage, steps: Sequence[Step], before: Callable[[], None]) -> None:
    """A supervisor is killed, up to three next ones in a step of their own start, and the one after that comes up.

    However often it is killed from outside, that is no fault of the stored config.
    """
    for some in (steps[first : first + IN_A_ROW] for first in range(0, len(steps), IN_A_ROW)):
        stage.trial.struck()
        kill(stage.node.pid)
        await stage.node.wait()
        for point, skip in some:
            before()
            stage.faults.arm(point, "kill", skip=skip)
            await stage.node.spawn()
            pid = stage.node.pid
            assert await stage.faults.reached(point, 60) == pid
            await stage.node.wait()
        await stage.node.start()
        await stage.check()
    stage.trial.tried(len(steps))


@pytest.mark.fault("supervisor killed in each step of taking over a core")
async def test_restore(stage: Stage, chosen: Chosen) -> None:
    await stage.begin(make_users(20, TAGS))
    core = core_pid(stage.node)
    assert await stage.record.several(make_users(10, TAGS, key="after the start"))
    await killed_while_it_comes_up(stage, chosen(RESTORE), lambda: None)
    assert core_pid(stage.node) == core


@pytest.mark.fault(
    "supervisor and core killed, and each further supervisor in a step of bringing the core back",
    core_ends="the core itself was killed",
)
async def test_restore_without_a_core(stage: Stage, chosen: Chosen) -> None:
    await stage.begin(make_users(20, TAGS))

    def core_killed() -> None:
        if pid := core_pid(stage.node):
            kill(pid)

    await killed_while_it_comes_up(stage, chosen(RESTORE_WITHOUT_A_CORE), core_killed)


@pytest.mark.fault("core killed between its start and its record", core_ends="the core itself was killed")
async def test_core_killed_before_its_record(stage: Stage) -> None:
    await stage.begin(make_users(20, TAGS))
    first = core_pid(stage.node)
    stage.faults.arm("core.record", "wait")
    stage.struck(first)
    await stage.faults.reached("core.record")
    [young] = [p.pid for p in tree(stage.node.pid) if "multiprocess.spawn" in command_line(p)]
    kill(young)
    stage.faults.let_go("core.record")
    await eventually(lambda: core_pid(stage.node) not in (0, first), "another core", 60)
    await stage.check()


def test_every_step_of_the_machine_is_tried() -> None:
    """Put a new one into the list of what it belongs to, or say why not."""
    listed = (
        *(SAME_CORE, HOT_CHANGE, BEFORE_THE_OLD_CORE_ENDS, AFTER_THE_OLD_CORE_ENDED),
        *(RESTORE, RESTORE_WITHOUT_A_CORE, UPDATE, RESET, RESET_NOT_STORED, RESET_STORED),
    )
    tried = {point for steps in listed for point, _ in steps} | {"step.probe_core", "step.undo_change"}
    untried = {kind for kind, point in STEP_POINTS.items() if issubclass(kind, actions.Question) and point not in tried}
    assert untried == set()
