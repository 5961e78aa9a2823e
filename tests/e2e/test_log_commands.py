"""``pgnode logs`` and ``pgnode log-level`` of a node that runs, that hangs, and that has ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_user
from tests.e2e.conftest import WITH_GRPC
from tests.support.polling import eventually
from tests.support.processes import gunicorn_master_pid, run_to_end, stopped, worker_pids

TAG = "VLESS"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node() -> AsyncIterator[NodeProcess]:
    async with NodeProcess(env=WITH_GRPC) as running:
        yield running


async def pgnode(node: NodeProcess, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    return await run_to_end([sys.executable, "-m", "pgnode", *arguments], env=node.environment())


async def lines(node: NodeProcess, *arguments: str) -> list[dict[str, str]]:
    code, text = await pgnode(node, "logs", "--lines", "0", "--json", *arguments)
    assert code == 0, text
    return [json.loads(line) for line in text.splitlines()]


async def test_lines_of_core_and_node_are_shown(node: NodeProcess) -> None:
    async with node.panel() as panel:
        config = {**make_config([make_inbound(TAG, "vless")]), "log": {"loglevel": "debug"}}
        await panel.start(config, [make_user("one@e2e", [TAG])])
    own = await lines(node, "--no-core")
    assert {"supervisor"} <= {line["source"] for line in own}
    assert any("child is ready" in line["text"] for line in own)

    async def core_said() -> bool:
        return bool(await lines(node, "--core"))

    await eventually(core_said, "the core's lines are there")
    found = await lines(node)
    assert [line["at"] for line in found] == sorted(line["at"] for line in found)
    assert not [line for line in await lines(node, "--level", "error") if line["level"] != "error"]
    assert node.api_key not in json.dumps(found)
    code, text = await pgnode(node, "logs", "--lines", "1", "--no-core")
    assert (code, len(text.splitlines())) == (0, 1)


async def test_the_level_is_of_all_processes_and_lasts_until_a_restart(node: NodeProcess) -> None:
    assert await pgnode(node, "log-level") == (0, "info, as the settings say\n")
    before = set(worker_pids(node))

    async def booted(since: set[int]) -> bool:
        return len(set(worker_pids(node)) - since) == 2

    async def says_booting() -> list[str]:
        return [line["text"] for line in await lines(node, "--grep", "Booting worker")]

    assert await says_booting() == []
    code, text = await pgnode(node, "log-level", "debug", "--for", "1h")
    assert (code, text.startswith("debug until ")) == (0, True)
    os.kill(gunicorn_master_pid(node), signal.SIGHUP)
    await eventually(lambda: booted(before), "Gunicorn has new workers")

    async def all_told() -> bool:
        return len(await says_booting()) >= 2

    await eventually(all_told, "Gunicorn's own lines are shown")
    code, text = await pgnode(node, "status")
    assert "log       level debug, usually info" in text
    assert (await pgnode(node, "restart"))[0] == 0
    assert await pgnode(node, "log-level") == (0, "info, as the settings say\n")
    kept = [line["text"] for line in await lines(node)]
    assert len([text for text in kept if "Booting worker" in text]) >= 2, "the next supervisor has them, too"
    assert any("restarted in place" in text for text in kept)


async def test_what_comes_is_shown(node: NodeProcess) -> None:
    following = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgnode", "logs", "--follow", "--lines", "1", "--no-core"),
        env=node.environment(),
        stdout=asyncio.subprocess.PIPE,
        # Tests that a shell runs in the background have it ignored, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert following.stdout is not None
    try:
        async with asyncio.timeout(60):
            await following.stdout.readline()
            assert (await pgnode(node, "log-level", "warning"))[0] == 0
            while b"the level of the log is changed" not in await following.stdout.readline():
                pass
            following.send_signal(signal.SIGINT)
            assert await following.wait() == 0
    finally:
        if following.returncode is None:
            following.kill()
            await following.wait()
    assert (await pgnode(node, "log-level", "info"))[0] == 0


async def test_of_a_supervisor_that_hangs_the_bus_has_lines(node: NodeProcess) -> None:
    async with stopped(node.pid):
        code, text = await pgnode(node, "logs")
        assert (code, "does not answer" in text, "child is ready" in text) == (4, True, True), text
        code, text = await pgnode(node, "log-level", "debug")
        assert (code, "does not answer" in text) == (4, True), text
        for command in ("reload", "restart"):
            code, text = await pgnode(node, command, "--json")
            assert (code, "kill -CONT it" in text) == (4, True), text

    async def answers() -> bool:
        return await pgnode(node, "log-level") == (0, "info, as the settings say\n")

    await eventually(answers, "it goes on, and nothing is done for who gave up")


async def test_a_node_in_a_container_prints_json_and_begins_with_the_level_of_its_settings() -> None:
    env = {"LOG_FORMAT": "auto", "LOG_LEVEL": "debug", "container": "podman", "SERVICE_PROT": "1"}
    async with NodeProcess(env=env) as node:
        assert await pgnode(node, "log-level") == (0, "debug, as the settings say\n")
        said = [json.loads(line) for line in node.output]
    assert any("SERVICE_PORT?" in one["message"] for one in said)
    assert "debug" in {one["level"] for one in said}


async def test_of_a_node_that_has_ended_it_is_told_where_lines_are(node: NodeProcess) -> None:
    await node.stop()
    for arguments in (["logs"], ["logs", "--follow"]):
        code, text = await pgnode(node, *arguments)
        assert (code, "journalctl -u pgnode" in text) == (3, True), text
    code, text = await pgnode(node, "log-level", "debug")
    assert (code, "no node runs with STATE_DIR=" in text) == (3, True), text
