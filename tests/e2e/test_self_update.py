"""A node that pip installed is upgraded by the panel's button: from a folder of wheels, in place, with users connected."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from pgnode import __version__
from pgnode.os_support.container import MARKS as CONTAINER_MARKS
from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, run_to_end
from tests.support.wheels import make_environment, make_node_wheel

#: Pip is run some twenty times, and on a busy machine it takes seconds to begin.
pytestmark = pytest.mark.timeout(600)

TAG = "VLESS"
NEW = "9.9.9"


@dataclass
class Stage:
    node: NodeProcess
    client: ClientCore
    config: dict[str, Any]
    index: Path
    #: Its environment's packages.
    packages: Path

    def content(self) -> dict[Path, bytes]:
        """All files that are installed, but for what is compiled of them."""
        return {
            path: path.read_bytes() for path in self.packages.rglob("*") if path.is_file() and path.suffix != ".pyc"
        }

    async def update(self) -> tuple[int, str]:
        """Status and sentence of ``POST /node/update``."""
        context = await asyncio.to_thread(ssl.create_default_context, cafile=str(self.node.ca_file))
        async with httpx.AsyncClient(verify=context, timeout=300) as http:
            answer = await http.post(
                f"https://{self.node.host}:{self.node.api_port}/node/update",
                headers={"x-api-key": self.node.api_key},
            )
        return answer.status_code, str(json.loads(answer.text)["detail"])

    async def version(self) -> str:
        async with self.node.panel() as panel:
            return (await panel.info()).version


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tmp_path: Path, target: Target) -> AsyncIterator[Stage]:
    index = tmp_path / "index"
    # What a container's image has is not upgraded; what is on another file system is.
    folder = Path(
        tempfile.mkdtemp(prefix="pgn", dir="/dev/shm" if any(one.exists() for one in CONTAINER_MARKS) else None)
    )
    try:
        python = await asyncio.to_thread(make_environment, folder / "venv", with_ours=True)
        await asyncio.to_thread(make_node_wheel, index, __version__)
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_NO_COMPILE": "1"}
        command = [
            str(python),
            "-P",
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--ignore-installed",
            f"pgnode=={__version__}",
        ]
        code, output = await run_to_end(command, env=offline, timeout_seconds=120)
        assert code == 0, output
        config = make_config([item for item in plain_inbounds() if item["tag"] == TAG])
        user = make_user("user7@demo", [TAG])
        node = NodeProcess(env=offline, python=str(python))
        async with node, ClientCore([link(config["inbounds"][0], user, name=TAG)], target) as client:
            async with node.panel() as panel:
                await panel.start(config, make_users(20, [TAG]), timeout_seconds=60)
            [packages] = python.parents[1].glob("lib/python3*/site-packages")
            yield Stage(node, client, config, index, packages)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def test_an_upgrade(stage: Stage) -> None:
    node = stage.node
    pid, core = node.pid, core_pid(node)
    async with stage.client.hold(TAG) as held:
        assert await stage.update() == (
            200,
            f"pgnode {__version__} is the newest version that pip finds: nothing was changed",
        )
        before = await asyncio.to_thread(stage.content)
        broken = await asyncio.to_thread(
            make_node_wheel, stage.index, "9.9.8", {"supervisor/composition.py": "\nimport no_such_module\n"}
        )
        status, detail = await stage.update()
        assert (status, "pgnode 9.9.8 was not installed: it cannot start here" in detail) == (500, True), detail
        assert "no_such_module" in detail
        assert await stage.version() == __version__
        assert await asyncio.to_thread(stage.content) == before
        broken.unlink()
        await asyncio.to_thread(make_node_wheel, stage.index, NEW)
        status, detail = await stage.update()
        assert (status, f"pgnode {NEW} is installed in place of {__version__}" in detail) == (200, True), detail

        async def is_new() -> bool:
            return await stage.version() == NEW

        await eventually(is_new, "the new version runs", timeout_seconds=120, errors=(Exception,))
        await held.wait_rounds(2)
    held.check()
    assert [node.pid, core_pid(node)] == [pid, core]
    assert not (node.run_dir / "update").exists()
