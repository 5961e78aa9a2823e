"""A node for each module of these tests, and a server on loopback with cores and geo files."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from tests.e2e.conftest import FAST
from tests.e2e.maintenance.stage import GEO_CODES, USERS, Stage
from tests.support import geo_data, xray_command
from tests.support.certificates import make_certificate
from tests.support.release_server import PROXIED_HOST, ReleaseServer


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
            running.files[f"/{region}/geosite.dat"] = geo_data.geosite({code: [f"example.{code}"]})
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
        "STOP_LINGER_SECONDS": "600",
        "CORE_CALL_TIMEOUT_SECONDS": "20",
        "UPDATE_COMMAND": f"{sys.executable} -c \"print('updated;', 'done $HOME')\"",
    }
    async with NodeProcess(env=env) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(node: NodeProcess, server: ReleaseServer, target: Target) -> AsyncIterator[Stage]:
    config = make_config([make_inbound("VLESS", "vless")])
    links = [link(config["inbounds"][0], make_user("user7@demo", ["VLESS"]), name="VLESS")]
    async with (
        ClientCore(links, target) as client,
        node.panel() as panel,
        PanelClient(node.host, node.api_port, ca_file=node.ca_file, api_key=node.api_key) as desk,
    ):
        yield Stage(node, server, panel, desk, client, config)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """A core that runs with its users, and no job under way."""
    await whole_stage.panel.start(whole_stage.config, make_users(USERS, ["VLESS"]))
    return whole_stage
