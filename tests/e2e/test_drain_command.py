"""``pgnode drain`` on a node that runs, hangs, has ended, or is another user's; and its wait for the last connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio
from grpc.aio import AioRpcError

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.e2e.conftest import FAST
from tests.support.core_lists import inbound_tags
from tests.support.polling import eventually
from tests.support.processes import run_to_end, stopped

USER = make_user("one@e2e", ["VLESS"])

#: Runs a command as nobody, with all modules read before, since nobody may read this installation.
AS_NOBODY = """
import os, sys
import pgnode.cli.drain, pgnode.cli.target
from pgnode.cli import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main(sys.argv[1:])
"""


@dataclass
class Stage:
    node: NodeProcess
    client: ClientCore

    async def drain(self, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pgnode", "drain", *arguments]
        return await run_to_end(command, env=self.node.environment(), timeout_seconds=200)

    async def there(self) -> list[str]:
        return await inbound_tags(self.node.run_dir / "core.sock")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(target: Target) -> AsyncIterator[Stage]:
    inbound = make_inbound("VLESS", "vless")
    async with (
        NodeProcess(env=FAST) as node,
        node.panel() as panel,
        ClientCore([link(inbound, USER, name="VLESS")], target) as client,
    ):
        await panel.start(make_config([inbound]), [USER], timeout_seconds=60)
        yield Stage(node, client)


async def test_the_wait_for_the_last_connection(stage: Stage) -> None:
    async with contextlib.AsyncExitStack() as stack:
        held = await stack.enter_async_context(stage.client.hold("VLESS"))
        code, text = await stage.drain("--wait", "1s")
        assert code == 4, text
        assert text.splitlines()[0] == "the node is being drained: /readyz says 503, and those who are connected go on"
        assert "the node is still being drained: 1 connection open over TCP: VLESS 1" in text.splitlines()[-1]
        code, text = await stage.drain("--wait", "1s", "--json")
        found = json.loads(text)
        assert (code, found["drained"], found["connections"]) == (4, False, {"VLESS": 1})
        waiting = asyncio.create_task(stage.drain("--wait", "5m"))
        await held.wait_rounds(3)
        held.check()
        await stack.aclose()
        code, text = await waiting
        assert (code, "drained after" in text.splitlines()[-1]) == (0, True), text
    code, text = await stage.drain("--for", "10m", "--wait", "5m", "--json")
    assert (code, json.loads(text)["drained"]) == (0, True)
    assert (await stage.drain("--cancel"))[0] == 0
    assert await stage.there() == ["VLESS"]


async def test_a_wait_ends_with_the_drain(stage: Stage) -> None:
    async with stage.client.hold("VLESS") as held:
        code, text = await stage.drain("--for", "2s", "--wait", "5m")
        assert (code, "the drain was ended after" in text.splitlines()[-1]) == (4, True), text
        await held.wait_rounds(3)
    held.check()


async def test_it_is_in_the_audit_trail(stage: Stage) -> None:
    assert (await stage.drain())[0] == 0
    assert (await stage.drain("--cancel"))[0] == 0
    trail = (stage.node.state_dir / "audit.log").read_text()
    for text in ("drain begun", "drain ended", "the node is being drained", "the node is no longer drained"):
        assert text in trail


async def test_what_is_no_time_and_what_does_not_go_together(stage: Stage) -> None:
    for arguments, said in (
        (["--for", "soon"], "--for soon is not allowed"),
        (["--wait", "0s"], "--wait 0s is not allowed"),
        (["--cancel", "--hold"], "do not go with it"),
    ):
        code, text = await stage.drain(*arguments)
        assert (code, said in text) == (2, True), text
    assert await stage.there() == ["VLESS"]


async def test_another_user_is_refused(stage: Stage) -> None:
    node = stage.node
    if os.geteuid() == 0:
        # The folder above would be in nobody's way as well: a node's own is private.
        command, closed = [sys.executable, "-c", AS_NOBODY, "drain"], node.state_dir.parent
    else:
        command, closed = [sys.executable, "-m", "pgnode", "drain"], node.state_dir
        closed.chmod(0)
    try:
        code, text = await run_to_end(command, env={**node.environment(), "HOME": "/"})
    finally:
        closed.chmod(0o700)
    assert code == 1
    assert text.startswith(f"pgnode: STATE_DIR={node.state_dir} "), text
    assert "root" in text
    assert await stage.there() == ["VLESS"]


async def test_one_that_hangs_and_one_that_has_ended(stage: Stage) -> None:
    async with stopped(stage.node.pid):
        for arguments in ([], ["--cancel"]):
            code, text = await stage.drain(*arguments)
            assert (code, "kill -CONT it" in text) == (4, True), text
    await stage.node.stop()
    code, text = await stage.drain()
    assert (code, "no node runs with STATE_DIR=" in text) == (3, True), text
    # What is begun on one that ends is over with it.
    await stage.node.start()
    assert (await stage.drain())[0] == 0
    await stage.node.stop()
    await stage.node.start()
    # It answers before its core runs.
    assert await eventually(stage.there, "the core is back", errors=(AioRpcError,)) == ["VLESS"]
