"""Two supervisors at one state folder, pids that belong to somebody else by now, and records that are damaged."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.processes import is_running
from pgnode.testing.users import make_users
from pgnode.xray.process.record import start_ticks
from tests.faults.conftest import PATIENT, READ_OFTEN, TAGS, Stage
from tests.faults.leftovers import TidyNode
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill

pytestmark = pytest.mark.timeout(400)

RACES = 3


@pytest.fixture(scope="module")
def settings(node_faults: ArmedFaults) -> Mapping[str, str]:
    return PATIENT | READ_OFTEN | {"WEB_CONCURRENCY": "1", "SERVICE_PROTOCOL": "rest"} | dict(node_faults.environment)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(settings: Mapping[str, str]) -> AsyncIterator[NodeProcess]:
    async with TidyNode(env=settings) as running:
        yield running


class Twin(NodeProcess):
    """A second process with the settings of a node, and its state folder."""

    def __init__(self, node: NodeProcess, settings: Mapping[str, str]) -> None:
        super().__init__(env=settings, state_dir=node.state_dir)
        self.port, self.api_port, self.grpc_port, self.api_key = node.port, node.api_port, node.grpc_port, node.api_key


@pytest.mark.fault("two supervisors started at one moment for one state folder, the one before killed")
async def test_two_supervisors_race(stage: Stage, settings: Mapping[str, str]) -> None:
    await stage.begin(make_users(20, TAGS))
    core, node = core_pid(stage.node), stage.node
    winner: NodeProcess = node
    for _ in range(RACES):
        kill(winner.pid)
        stage.trial.struck()
        await winner.wait()
        pair = node, Twin(node, settings)
        await asyncio.gather(*(one.spawn() for one in pair))
        ends = {asyncio.create_task(one.wait(60)): one for one in pair}
        done, waiting = await asyncio.wait(ends, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1, "one of them ends"
        loser = ends[done.pop()]
        winner = next(one for one in pair if one is not loser)
        for task in waiting:
            task.cancel()
        assert loser.returncode == 3
        assert loser.output_text.count("\n") < 3
        assert "another node holds STATE_DIR=" in loser.output_text
        await winner.wait_ready()
        await dataclasses.replace(stage, node=winner).check()
        assert core_pid(node) == core
    stage.trial.tried(RACES)
    if winner is not node:
        kill(winner.pid)
        await winner.wait()
        await node.start()


@pytest.fixture
def foreign() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with the node: any signal ends it."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.mark.fault(
    "supervisor and core killed, and the pids of all records given to another process",
    core_ends="the core itself was killed",
)
async def test_pids_of_others(stage: Stage, foreign: subprocess.Popen[bytes]) -> None:
    await stage.begin(make_users(20, TAGS))
    run = stage.node.run_dir
    children = json.loads((run / "children.json").read_text())
    first = core_pid(stage.node)
    stage.struck(stage.node.pid)
    await stage.node.wait()
    kill(first)
    ticks = start_ticks(foreign.pid)
    children["children"] = {name: [foreign.pid, ticks - 1] for name in children["children"]}
    (run / "children.json").write_text(json.dumps(children))
    for name in ("core.json", "core.copy.json"):
        record = json.loads((run / name).read_text())
        # As if the other process had been started in the same tick as the core.
        (run / name).write_text(json.dumps({**record, "pid": foreign.pid, "start_ticks": ticks}))
    await stage.node.start()
    await eventually(lambda: core_pid(stage.node) not in (0, first, foreign.pid), "another core", 60)
    await stage.check()
    assert is_running(foreign.pid)


GARBAGE = (b"", b"{" * 5000, b"\xff\x00" * 700, b'{"pid": "1", "children": [], "version": {}}')


@pytest.mark.fault("supervisor killed, and core.json, children.json and chosen.json damaged")
async def test_damaged_records(stage: Stage) -> None:
    """None of them ends the next supervisor, nor the core."""
    await stage.begin(make_users(20, TAGS))
    core = core_pid(stage.node)
    run, state = stage.node.run_dir, stage.node.state_dir
    for content in GARBAGE:
        kill(stage.node.pid)
        stage.trial.struck()
        await stage.node.wait()
        (state / "cores").mkdir(exist_ok=True)
        for path in (run / "core.json", run / "children.json", state / "cores" / "chosen.json"):
            path.write_bytes(content)
        await stage.node.start()
        await stage.check()
        assert core_pid(stage.node) == core
    shutil.rmtree(state / "cores")
    stage.trial.tried(len(GARBAGE))


@pytest.mark.fault("supervisor killed, and state.db and api_key damaged until an operator puts them right")
async def test_damaged_state(stage: Stage, tmp_path: Path) -> None:
    """No supervisor comes up meanwhile: each ends with a sentence, and the core goes on."""
    await stage.begin(make_users(20, TAGS))
    node, core, state = stage.node, core_pid(stage.node), stage.node.state_dir
    kill(node.pid)
    stage.trial.struck()
    await node.wait()
    (state / "api_key").write_bytes(b"\xff no key")
    keyless = NodeProcess(env={"API_KEY": ""}, state_dir=state)
    await keyless.spawn()
    assert await keyless.wait(60) == 2, keyless.output_text
    assert f"{state / 'api_key'} does not hold an API key" in keyless.output_text
    (state / "api_key").unlink()
    # With the log beside it the file would be whole again.
    files = [state / f"state.db{ending}" for ending in ("", "-wal", "-shm")]
    there = [path for path in files if path.exists()]
    for path in there:
        path.rename(tmp_path / path.name)
    files[0].write_bytes(b"no database " * 500)
    await node.spawn()
    assert await node.wait(60) == 2, node.output_text
    assert f"{files[0]} cannot be used: the file is damaged" in node.output_text
    for path in files:
        path.unlink(missing_ok=True)
    for path in there:
        shutil.copy2(tmp_path / path.name, path)
    await node.start()
    await stage.check()
    assert core_pid(node) == core
    stage.trial.tried(2)
