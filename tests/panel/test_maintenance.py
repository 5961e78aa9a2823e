"""Maintenance as the panel's own client asks for it: cores and geo files from a server on loopback, resets."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_users
from tests.panel.client import Client, ClientError, Driver, Protocol
from tests.support import geo_data, xray_command
from tests.support.certificates import make_certificate
from tests.support.release_server import ReleaseServer

pytestmark = pytest.mark.needs_client

#: Each protocol's tests bring a core of their own.
VERSIONS = {"rest": "26.11.1", "grpc": "26.11.2"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node() -> AsyncIterator[NodeProcess]:
    """A node of its own: a new core, a reset, and releases from a server that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    certificate, key = make_certificate(folder, ["releases"], ["127.0.0.1"])
    async with ReleaseServer(certificate, key, platform.machine()) as server:
        for version in VERSIONS.values():
            server.release(version)
        server.files["/iran/geoip.dat"] = geo_data.geoip({"ir": ["192.0.2.0/24"], "private": ["10.0.0.0/8"]})
        server.files["/iran/geosite.dat"] = geo_data.geosite({"IR": ["example.ir"]})
        env = {
            "XRAY_EXECUTABLE_PATH": str(xray_command.install(folder)),
            "CORE_RELEASES_URL": f"https://127.0.0.1:{server.https_port}/releases",
            "GEOFILES_IRAN_URL": f"https://127.0.0.1:{server.https_port}/iran",
            "SSL_CERT_FILE": str(certificate),
            "NO_PROXY": "127.0.0.1",
            "CORE_CALL_TIMEOUT_SECONDS": "20",
        }
        async with NodeProcess(env=env) as running:
            yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="session")
async def panel(driver: Driver, node: NodeProcess, protocol: Protocol) -> AsyncIterator[Client]:
    client = await Client.create(driver, node, protocol)
    await client.start(make_config([make_inbound("VLESS", "vless")]), make_users(3, ["VLESS"]))
    yield client
    await client.drop()


def detail_of(answer: Any) -> str:
    assert answer["status"] == 200, answer
    return str(json.loads(answer["body"])["detail"])


async def refused(client: Client, method: str, **args: Any) -> tuple[int | None, str]:
    with pytest.raises(ClientError) as caught:
        await client.call(method, **args)
    return caught.value.code, caught.value.detail


async def test_another_core(panel: Client) -> None:
    assert await panel.call("check_connectivity")
    version = VERSIONS[panel.protocol]
    assert version in detail_of(await panel.call("update_core", json={"core_version": f"v{version}"}))
    info = await panel.call("info")
    assert (info.started, info.core_version) == (True, version)
    assert (await panel.call("get_backend_stats")).num_goroutine > 0
    code, detail = await refused(panel, "update_core", json={"core_version": "newest"})
    assert code == 400
    assert "newest" in detail


async def test_geo_files(panel: Client, node: NodeProcess) -> None:
    assert detail_of(await panel.call("update_geofiles", json={"region": "iran"}))
    assert {path.name for path in (node.state_dir / "assets").glob("geo*.dat")} == {"geoip.dat", "geosite.dat"}
    code, detail = await refused(panel, "update_geofiles", json={"region": "atlantis"})
    assert code == 400
    assert all(region in detail for region in ("iran", "china", "russia"))


async def test_an_update_of_the_node_that_has_no_command_for_it(panel: Client) -> None:
    code, detail = await refused(panel, "update_node")
    assert code == 501
    assert "UPDATE_COMMAND" in detail


async def test_a_hard_reset_and_the_start_after_it(panel: Client) -> None:
    assert detail_of(await panel.call("hard_reset"))
    assert not (await panel.call("info")).started
    code, _ = await refused(panel, "get_backend_stats")
    assert code == 503
    await panel.start(make_config([make_inbound("VLESS", "vless")]), make_users(3, ["VLESS"]))
    assert (await panel.call("get_backend_stats")).num_goroutine > 0


async def test_a_wrong_key(driver: Driver, node: NodeProcess, protocol: Protocol) -> None:
    stranger = await Client.create(driver, node, protocol, api_key="00000000-0000-0000-0000-000000000000")
    assert not await stranger.call("check_connectivity")
    assert (await refused(stranger, "hard_reset"))[0] == 503  # the client asks no further
    await stranger.drop()
