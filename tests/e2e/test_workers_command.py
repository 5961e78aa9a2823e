"""``pgnode workers add``, ``remove`` and ``restart`` under load: no call fails, over REST and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest_asyncio

from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_user, make_users
from tests.e2e.conftest import WITH_GRPC
from tests.e2e.test_restart_in_place import TAGS, Callers
from tests.support.grpc_node import GrpcNode, asked_again
from tests.support.polling import eventually, pause
from tests.support.processes import run_to_end, stopped, worker_pids


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node() -> AsyncIterator[NodeProcess]:
    async with NodeProcess(env=WITH_GRPC) as running, running.panel() as panel:
        config = make_config([item for item in plain_inbounds() if item["tag"] in TAGS])
        await panel.start(config, make_users(20, TAGS), timeout_seconds=60)
        yield running


async def workers(node: NodeProcess, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pgnode", "workers", *arguments]
    return await run_to_end(command, env=node.environment(), timeout_seconds=200)


async def changed(node: NodeProcess, *arguments: str) -> dict[str, Any]:
    """What a command says that has to go well."""
    code, text = await workers(node, *arguments, "--json")
    assert code == 0, text
    found: dict[str, Any] = json.loads(text)
    return found


class GrpcCallers:
    """Each changes a user of its own, on a connection of its own, and asks again where a worker that leaves closes that."""

    def __init__(self, node: NodeProcess, count: int) -> None:
        self._node = node
        self._end = asyncio.Event()
        self.failures: list[str] = []
        self.answered = [0] * count
        self.tasks = [asyncio.create_task(self._run(number)) for number in range(count)]

    async def _run(self, number: int) -> None:
        certificate = await asyncio.to_thread(self._node.ca_file.read_bytes)
        address = f"{self._node.host}:{self._node.grpc_port}"
        async with GrpcNode(address, self._node.api_key, certificate) as caller:
            while not self._end.is_set():
                try:
                    user = make_user(f"grpc{number}@e2e", TAGS, key=str(self.answered[number] + 1))
                    await asked_again(partial(caller.stream, "SyncUser", [user]))
                    self.answered[number] += 1
                    await pause()
                except Exception as error:
                    self.failures.append(repr(error))

    async def progress(self, more: int) -> None:
        goal = [count + more for count in self.answered]
        await eventually(
            lambda: self.failures or all(a >= b for a, b in zip(self.answered, goal, strict=True)), "they are answered"
        )

    async def end(self) -> None:
        self._end.set()
        await asyncio.gather(*self.tasks)


@contextlib.asynccontextmanager
async def under_load(node: NodeProcess) -> AsyncIterator[None]:
    """Callers over both protocols, none of whom may fail."""
    grpc = GrpcCallers(node, 2)
    try:
        async with Callers(node, 3) as rest:
            await rest.progress(3)
            await grpc.progress(3)
            yield
            await rest.progress(3)
            await grpc.progress(3)
        assert rest.failures == []
    finally:
        await grpc.end()
    assert grpc.failures == []


async def test_no_call_fails_while_workers_come_and_go(node: NodeProcess) -> None:
    before = set(worker_pids(node))
    async with under_load(node):
        found = await changed(node, "add", "2")
        assert len(found["now"]["rest"]) == 4
        assert before <= set(found["now"]["rest"])
        found = await changed(node, "add", "--grpc")
        assert (len(found["now"]["grpc"]), found["added"]) == (2, {"rest": 2, "grpc": 1})
        code, text = await run_to_end([sys.executable, "-m", "pgnode", "status"], env=node.environment())
        assert "+2 REST, +1 gRPC than the settings say" in " ".join(text.split())
        found = await changed(node, "remove", "3")
        assert len(found["now"]["rest"]) == 1
        found = await changed(node, "remove", "--grpc")
        assert (len(found["now"]["grpc"]), found["added"]) == (1, {"rest": -1, "grpc": 0})
        code, text = await workers(node, "remove")
        assert (code, "one has to stay" in text) == (1, True)


async def test_no_call_fails_while_workers_are_replaced(node: NodeProcess) -> None:
    async with under_load(node):
        found = await changed(node, "restart")
        assert (found["left"], found["added"]) == ([], {"rest": 0, "grpc": 0})
        assert len(found["now"]["rest"]) == 2, "as the settings say"
        old = found["now"]
        for pid in (old["rest"][0], old["grpc"][0]):
            found = await changed(node, "restart", str(pid))
            assert pid not in [*found["now"]["rest"], *found["now"]["grpc"]]
    code, text = await workers(node, "restart", str(node.pid))
    assert (code, "no pid of a worker of this node" in text) == (1, True)


async def test_a_restart_takes_the_number_of_the_settings(node: NodeProcess) -> None:
    await changed(node, "add")
    await changed(node, "add", "--grpc")
    code, text = await run_to_end(
        [sys.executable, "-m", "pgnode", "restart"], env=node.environment(), timeout_seconds=200
    )
    assert code == 0, text

    async def those_of_the_settings() -> bool:
        _, text = await workers(node, "--json")
        return [worker["kind"] for worker in json.loads(text)["workers"]] == ["rest", "rest", "grpc"]

    await eventually(those_of_the_settings, "the others finish their last calls, and end", rest=True)


async def test_of_one_that_hangs_or_has_ended_that_is_told(node: NodeProcess) -> None:
    async with stopped(node.pid):
        for arguments in (["add"], ["restart"]):
            code, text = await workers(node, *arguments)
            assert (code, "kill -CONT it" in text) == (4, True)
    await node.stop()
    code, text = await workers(node, "add")
    assert (code, "no node runs with STATE_DIR=" in text) == (3, True)
