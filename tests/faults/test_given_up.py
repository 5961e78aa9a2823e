"""A core that does not stay up is given up for a while, and comes back by itself when what was wrong is over."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelError
from pgnode.testing.users import make_users
from pgnode.wire import service_pb2 as pb
from tests.faults.conftest import PATIENT, READ_OFTEN, TAGS, Stage
from tests.faults.leftovers import TidyNode
from tests.support.polling import eventually
from tests.support.processes import core_pid, run_to_end

pytestmark = pytest.mark.timeout(300)

#: Deaths within a minute after which the core is given up.
DEATHS = 9
#: What the log says once.
GIVEN_UP = "the core is given up for a while"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(node_faults: ArmedFaults) -> AsyncIterator[NodeProcess]:
    """A node that hurries: its pauses before it brings the core back are short."""
    env = {"PYTHONPATH": str(Path(__file__).parent / "hurry"), "WEB_CONCURRENCY": "2", "GRPC_WORKERS": "0"}
    async with TidyNode(env=PATIENT | READ_OFTEN | env | dict(node_faults.environment)) as running:
        yield running


async def status(node: NodeProcess) -> dict[str, Any]:
    """What ``pgnode status --json`` says."""
    environment = dict(os.environ) | {"STATE_DIR": str(node.state_dir)}
    _, output = await run_to_end([sys.executable, "-m", "pgnode", "status", "--json"], env=environment)
    said: dict[str, Any] = json.loads(output)
    return said


async def next_core(node: NodeProcess, before: int) -> int:
    """Wait for a core that runs and is another one than that."""
    await eventually(lambda: core_pid(node) not in (0, before), "another core runs", 60)
    return core_pid(node)


@pytest.mark.fault(
    "core killed nine times within a minute, given up, killed once more at the next try, and then left alone",
    core_ends="the core itself was killed",
)
async def test_a_core_that_was_given_up_comes_back_by_itself(stage: Stage) -> None:
    node = stage.node
    await stage.begin(make_users(50, TAGS))
    # The start above has made this node as good as new, whatever became of the core before.
    before = (await status(node))["report"]["core"]["given_up"]
    lines = sum(GIVEN_UP in line for line in node.output)
    core = core_pid(node)
    for _ in range(DEATHS - 2):
        stage.struck(core)
        core = await next_core(node, core)
    stage.faults.arm("step.complete_core", "wait")
    stage.struck(core)
    await stage.faults.reached("step.complete_core", 60)
    # It is killed while it comes up. That it runs is told; what comes then, when somebody has looked. The next try has to wait.
    stage.faults.arm("step.publish", "wait", skip=1)
    stage.faults.arm("step.start_core", "wait")
    core = core_pid(node)
    stage.struck(core)
    stage.faults.let_go("step.complete_core")
    await stage.faults.reached("step.publish", 60)
    said = await status(node)
    assert (said["status"], said["report"]["core"]["given_up"]) == ("failed", before + 1)
    assert 0 <= said["report"]["core"]["next_try_seconds"] <= 3
    assert any("the core does not stay up and is tried again" in reason for reason in said["because"])

    stage.faults.let_go("step.publish")
    await stage.faults.reached("step.start_core", 60)
    with pytest.raises(PanelError, match="backend not initialized"):
        await stage.panel.stats(pb.Inbounds)
    stage.faults.let_go("step.start_core")
    # The first try fails as well, and is no news in the log.
    stage.struck(await next_core(node, core))

    async def given_up_again() -> bool:
        return bool((await status(node))["report"]["core"]["given_up"] == before + 2)

    await eventually(given_up_again, "it is given up again", 60)
    await stage.check()
    said = await status(node)
    assert (said["status"], said["report"]["core"]["given_up"], said["report"]["core"]["next_try_seconds"]) == (
        "running",
        before + 2,
        None,
    )
    assert sum(GIVEN_UP in line for line in node.output) == lines + 1
    assert await stage.record.several(make_users(10, TAGS))
    await stage.check()
