"""Maintenance of a real node: cores and geo files from a server on loopback, resets, and the operator's update command."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio

from pgnode.demo import people
from pgnode.demo.node import NodeProcess
from pgnode.demo.panel import PanelClient, Response
from pgnode.demo.target import Target
from pgnode.demo.traffic import ClientCore, link
from tests.e2e.conftest import FAST
from tests.support import geo_data, xray_command
from tests.support.certificates import make_certificate
from tests.support.core_lists import inbound_users
from tests.support.processes import core_pid
from tests.support.release_server import PROXIED_HOST, ReleaseServer

JSON = {"Content-Type": "application/json"}
USERS = 20
MIB = 1024 * 1024
GEO_CODES = {"iran": "ir", "china": "cn", "russia": "ru"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def folder() -> AsyncIterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pgn"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(folder: Path) -> AsyncIterator[ReleaseServer]:
    certificate, key = make_certificate(folder, [PROXIED_HOST], ["127.0.0.1"])
    async with ReleaseServer(certificate, key, platform.machine()) as running:
        running.release("26.11.1")
        running.latest("26.11.1")
        for region, code in GEO_CODES.items():
            running.files[f"/{region}/geoip.dat"] = geo_data.geoip({code: ["192.0.2.0/24"], "private": ["10.0.0.0/8"]})
            running.files[f"/{region}/geosite.dat"] = geo_data.geosite({code.upper(): [f"example.{code}"]})
            published = hashlib.sha256(running.files[f"/{region}/geosite.dat"]).hexdigest()
            running.files[f"/{region}/geosite.dat.sha256sum"] = f"{published}  geosite.dat\n".encode()
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(folder: Path, server: ReleaseServer) -> AsyncIterator[NodeProcess]:
    """A node with an executable core; releases come through a proxy, geo files come without one."""
    env = {
        **FAST,
        "XRAY_EXECUTABLE_PATH": str(xray_command.install(folder)),
        "CORE_RELEASES_URL": f"https://{PROXIED_HOST}/releases",
        "GEOFILES_IRAN_URL": f"http://127.0.0.1:{server.http_port}/iran",
        "GEOFILES_CHINA_URL": f"https://127.0.0.1:{server.https_port}/china",
        "GEOFILES_RUSSIA_URL": f"http://127.0.0.1:{server.http_port}/russia/",
        "SSL_CERT_FILE": str(folder / "cert.pem"),
        "HTTPS_PROXY": f"http://127.0.0.1:{server.proxy_port}",
        "NO_PROXY": "127.0.0.1",
        "DOWNLOAD_MAX_MIB": "1",
        "DOWNLOAD_TIMEOUT_SECONDS": "4",
        "CORE_START_TIMEOUT_SECONDS": "12",
        "UPDATE_COMMAND": f"{sys.executable} -c \"print('updated;', 'done $HOME')\"",
    }
    async with NodeProcess(env=env) as running:
        yield running


@dataclass
class Stage:
    node: NodeProcess
    server: ReleaseServer
    panel: PanelClient
    desk: PanelClient
    client: ClientCore
    config: dict[str, Any]

    @property
    def cores(self) -> Path:
        return self.node.state_dir / "cores"

    async def post(self, path: str, body: object | None = None) -> Response:
        data = None if body is None else json.dumps(body).encode()
        return await self.desk.request(
            "POST", path, data, headers=JSON if body is not None else None, timeout_seconds=60
        )

    async def update_core(self, version: str) -> Response:
        return await self.post("/node/core_update", {"core_version": version})

    async def version(self) -> str:
        return (await self.panel.info()).core_version

    async def works(self) -> None:
        """The core runs with its users, and lets one in."""
        assert (await self.panel.info()).started
        await self.panel.backend_stats()
        assert set(await inbound_users(self.node.run_dir / "core.sock", "VLESS")) == {
            user.email for user in people.crowd(USERS, ["VLESS"])
        }
        await self.client.move("VLESS", 2_000, 3_000)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(node: NodeProcess, server: ReleaseServer, target: Target) -> AsyncIterator[Stage]:
    config = people.config([people.inbound("VLESS", "vless")])
    links = [link(config["inbounds"][0], people.user("user7@demo", ["VLESS"]), name="VLESS")]
    async with (
        ClientCore(links, target) as client,
        node.panel() as panel,
        PanelClient(node.host, node.api_port, ca_file=node.ca_file, api_key=node.api_key) as desk,
    ):
        yield Stage(node, server, panel, desk, client, config)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """A core that runs with its users, and no job under way."""
    await whole_stage.panel.start(whole_stage.config, people.crowd(USERS, ["VLESS"]))
    return whole_stage


def detail_of(answer: Response, status: int) -> str:
    body = json.loads(answer.body)
    assert answer.status == status, body
    return str(body["detail"])


async def test_update_to_the_latest_core(stage: Stage) -> None:
    await stage.works()
    before, first = await stage.panel.traffic("user7@demo"), core_pid(stage.node)
    detail = detail_of(await stage.update_core("latest"), 200)
    assert "26.11.1" in detail
    assert await stage.version() == "26.11.1"
    await stage.works()
    assert core_pid(stage.node) != first
    assert (stage.cores / "26.11.1" / "xray").is_file()
    assert {path.name for path in stage.cores.iterdir()} == {"26.11.1", "chosen.json"}
    assert set(stage.server.proxied) == {f"{PROXIED_HOST}:443"}
    moved = await stage.panel.traffic("user7@demo")
    assert moved.uplink_bytes >= before.uplink_bytes + 2_000

    asked = len(stage.server.requests)
    assert "already" in detail_of(await stage.update_core("v26.11.1"), 200)
    assert len(stage.server.requests) == asked
