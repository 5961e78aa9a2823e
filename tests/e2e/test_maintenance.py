"""Maintenance of a real node: cores and geo files from a server on loopback, resets, and the operator's update command."""

from __future__ import annotations

import asyncio
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

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError, Response
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from pgnode.xray.process.embedded import EmbeddedCore
from tests.e2e.conftest import FAST
from tests.support import geo_data, xray_command
from tests.support.certificates import make_certificate
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, valkey_pid
from tests.support.release_server import PROXIED_HOST, ReleaseServer, good_release
from tests.support.stored import stored_state

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
            "POST", path, data, headers=JSON if body is not None else None, timeout_seconds=120
        )

    async def update_core(self, version: str) -> Response:
        return await self.post("/node/core_update", {"core_version": version})

    async def version(self) -> str:
        return (await self.panel.info()).core_version

    async def stop(self) -> None:
        """Stop the node; a kept connection would be waited for."""
        await self.panel.close()
        await self.desk.close()
        assert await self.node.stop() == 0

    async def works(self) -> None:
        """The core runs with its users, and lets one in."""
        assert (await self.panel.info()).started
        await self.panel.backend_stats()
        assert set(await inbound_users(self.node.run_dir / "core.sock", "VLESS")) == {
            user.email for user in make_users(USERS, ["VLESS"])
        }
        await self.client.move("VLESS", 2_000, 3_000)


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

    async def counted() -> bool:
        return (await stage.panel.traffic("user7@demo")).uplink_bytes >= before.uplink_bytes + 2_000

    await eventually(counted, "what went through the new core is counted beside what went through the old one")

    asked = len(stage.server.requests)
    assert "already" in detail_of(await stage.update_core("v26.11.1"), 200)
    assert len(stage.server.requests) == asked


@pytest.mark.parametrize(
    ("version", "members", "words"),
    [
        ("26.12.1", good_release("26.12.1", "dies"), ["26.12.1 did not come up", "the previous core was restored"]),
        ("26.12.2", good_release("26.12.2", "refuses"), ["refuses the running config", "this core likes no config"]),
        ("26.12.3", good_release("26.11.9"), ["says that it is 26.11.9"]),
        ("26.12.4", {"xray": b"\x7fELF of another machine"}, ["cannot be run"]),
        ("26.12.5", {"bin/xray": b"", "geoip.dat": b""}, ["holds no 'xray'"]),
        ("26.12.6", {"xray": b"#!/bin/sh\n" + bytes(2 * MIB)}, ["too large", "DOWNLOAD_MAX_MIB"]),
    ],
)
async def test_a_core_that_is_no_good_is_not_kept(
    stage: Stage, version: str, members: dict[str, bytes], words: list[str]
) -> None:
    await stage.works()
    before, pid = await stage.version(), core_pid(stage.node)
    kept = {path.name for path in stage.cores.iterdir()}
    stage.server.release(version, members)
    answer = await stage.update_core(version)
    detail = detail_of(answer, 500)
    assert json.loads(answer.body)["code"] == "UPDATE_FAILED"
    assert all(word in detail for word in words), detail
    assert await stage.version() == before
    assert {path.name for path in stage.cores.iterdir()} == kept
    if version != "26.12.1":
        assert core_pid(stage.node) == pid, "the core was not touched"
    await stage.works()


async def test_names_in_a_zip_lead_nowhere(stage: Stage) -> None:
    evil = {"../../evil": b"x", "xray/../../evil": b"x"}
    stage.server.release("26.12.7", {**evil, **good_release("26.12.7")})
    detail_of(await stage.update_core("26.12.7"), 200)
    assert await stage.version() == "26.12.7"
    assert not list(stage.node.state_dir.parent.rglob("*evil*"))
    await stage.works()


@pytest.mark.parametrize("digest", ["0" * 128, "no digest"])
async def test_a_wrong_digest(stage: Stage, digest: str) -> None:
    before, pid = await stage.version(), core_pid(stage.node)
    stage.server.release("26.12.8", digest=digest)
    detail = detail_of(await stage.update_core("26.12.8"), 500)
    assert ("wrong digest" if len(digest) == 128 else "cannot be checked") in detail
    assert (await stage.version(), core_pid(stage.node)) == (before, pid)
    assert not (stage.cores / "26.12.8").exists()


async def test_a_version_that_is_not_known(stage: Stage) -> None:
    detail = detail_of(await stage.update_core("26.99.9"), 400)
    assert all(word in detail for word in ("26.99.9 is not known", '"latest" (now 26.11.1)')), detail
    await stage.works()


async def test_downloads_that_are_too_large_or_not_there(stage: Stage) -> None:
    path = stage.server.asset_path("26.13.1")
    stage.server.release("26.13.1")
    stage.server.files[path] += bytes(MIB)
    assert "too large" in detail_of(await stage.update_core("26.13.1"), 500)
    redirects, stage.server.redirects = stage.server.redirects, {}
    try:
        answer = await stage.update_core("latest")
    finally:
        stage.server.redirects = redirects
    assert "the latest release is not known" in detail_of(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert json.loads(answer.body)["code"] == "DOWNLOAD_FAILED"
    await stage.works()


async def test_the_last_two_cores_are_kept_and_one_can_go_back_without_a_download(stage: Stage) -> None:
    for version in ("26.14.1", "26.14.2", "26.14.3"):
        stage.server.release(version)
        detail_of(await stage.update_core(version), 200)
        assert await stage.version() == version
    assert {path.name for path in stage.cores.iterdir()} == {"26.14.2", "26.14.3", "chosen.json"}
    asked = len(stage.server.requests)
    detail_of(await stage.update_core("26.14.2"), 200)
    assert await stage.version() == "26.14.2"
    assert len(stage.server.requests) == asked
    await stage.works()


async def test_the_choice_survives_a_restart(stage: Stage) -> None:
    before = await stage.version()
    assert before != (await embedded_version())
    await stage.stop()
    await stage.node.start()
    assert await stage.version() == before
    await stage.works()


async def embedded_version() -> str:
    return await EmbeddedCore().version(60)


async def test_one_job_at_a_time_beside_everything_else_and_a_caller_that_goes_away(stage: Stage) -> None:
    stage.server.release("26.15.1")
    path = stage.server.asset_path("26.15.1")
    held = stage.server.held[path] = asyncio.Event()
    connection = await stage.desk.connect()
    body = b'{"core_version": "26.15.1"}'
    connection.send(
        stage.desk.head(
            "POST", "/node/core_update", {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        )
        + body
    )
    await eventually(lambda: path in stage.server.requests, "the download has begun")
    await connection.close()
    for other in ("/node/hard_reset", "/node/update"):
        detail = detail_of(await stage.post(other), 409)
        assert "core_update 26.15.1 is under way since" in detail
    assert (await stage.desk.request("GET", "/")).status == 200
    await stage.panel.sync_user(make_user("meanwhile@e2e", ["VLESS"]))
    await stage.panel.sync_user(make_user("meanwhile@e2e", []))
    async with stage.panel.logs() as viewer:
        held.set()
        await viewer.wait_for("core 26.15.1 runs in place of", 30)
    assert await stage.version() == "26.15.1"
    await stage.works()


async def test_a_job_is_not_run_twice_after_the_store_was_away(stage: Stage) -> None:
    stage.server.release("26.15.3")
    path = stage.server.asset_path("26.15.3")
    held = stage.server.held[path] = asyncio.Event()
    job = asyncio.ensure_future(stage.update_core("26.15.3"))
    await eventually(lambda: path in stage.server.requests, "the download has begun")
    kill(valkey_pid(stage.node))
    held.set()

    async def updated() -> bool:
        return await stage.version() == "26.15.3"

    await eventually(updated, "the job went on", errors=(PanelError,))
    answer = await job  # the job's own, or that the store was away
    assert answer.status in (200, 503), answer
    assert stage.server.requests.count(path) == 1
    assert "already" in detail_of(await stage.update_core("26.15.3"), 200)

    def begun() -> int:
        return sum("maintenance job begins" in line and "26.15.3" in line for line in stage.node.output)

    await eventually(lambda: begun() >= 2, "the log tells of both")
    assert begun() == 2
    await stage.works()


async def test_a_job_is_not_run_twice_after_a_crash(stage: Stage) -> None:
    before = await stage.version()
    stage.server.release("26.15.2")
    path = stage.server.asset_path("26.15.2")
    held = stage.server.held[path] = asyncio.Event()
    job = asyncio.ensure_future(stage.update_core("26.15.2"))
    await eventually(lambda: path in stage.server.requests, "the download has begun")
    core = core_pid(stage.node)
    kill(stage.node.pid)
    await stage.node.wait()
    with pytest.raises((NoAnswerError, OSError)):
        await job
    assert is_running(core)
    await stage.node.start()
    held.set()
    await eventually(lambda: "maintenance job interrupted" in stage.node.output_text, "the job is broken off")
    assert await stage.version() == before
    assert core_pid(stage.node) == core, "the core was taken over"
    await stage.works()
    assert stage.server.requests.count(path) == 1
    detail_of(await stage.update_core("26.15.2"), 200)
    assert await stage.version() == "26.15.2"


def geo_config(stage: Stage, code: str) -> dict[str, Any]:
    """The stage's config with rules that need both geo files."""
    rules = [
        {"type": "field", "domain": [f"geosite:{code}"], "outboundTag": "BLOCK"},
        {"type": "field", "ip": [f"geoip:{code}"], "outboundTag": "BLOCK"},
    ]
    return {**stage.config, "routing": {"rules": rules}}


@pytest.mark.parametrize("region", list(GEO_CODES))
async def test_geo_files_of_each_region(stage: Stage, region: str) -> None:
    pid = core_pid(stage.node)
    detail = detail_of(await stage.post("/node/geofiles", {"region": region}), 200)
    assert region in detail
    assert core_pid(stage.node) == pid, "a config without geo rules goes on"
    assets = stage.node.state_dir / "assets"
    assert {path.name for path in assets.iterdir()} == {"geoip.dat", "geosite.dat"}
    for kind in ("geoip.dat", "geosite.dat"):
        assert (assets / kind).read_bytes() == stage.server.files[f"/{region}/{kind}"]
    # The files are what the real core reads.
    await stage.panel.start(geo_config(stage, GEO_CODES[region]), make_users(USERS, ["VLESS"]))
    await stage.works()
    with pytest.raises(PanelError):
        await stage.panel.start(geo_config(stage, "xx"), make_users(USERS, ["VLESS"]))
    await stage.works()


async def test_geo_files_for_a_config_that_uses_them(stage: Stage) -> None:
    detail_of(await stage.post("/node/geofiles", {"region": "russia"}), 200)
    await stage.panel.start(geo_config(stage, "ru"), make_users(USERS, ["VLESS"]))
    pid = core_pid(stage.node)
    assets = stage.node.state_dir / "assets"
    # This region's files lack what the config names.
    detail = detail_of(await stage.post("/node/geofiles", {"region": "iran"}), 500)
    assert "running config does not work with the files of region iran" in detail
    assert core_pid(stage.node) == pid
    assert (assets / "geoip.dat").read_bytes() == stage.server.files["/russia/geoip.dat"]
    # These have it, and more.
    more = stage.server.files["/russia/geoip.dat"] + geo_data.geoip({"more": ["2001:db8::/32"]})
    stage.server.files["/russia/geoip.dat"] = more
    assert "started with them" in detail_of(await stage.post("/node/geofiles", {"region": "russia"}), 200)
    assert core_pid(stage.node) != pid
    assert (assets / "geoip.dat").read_bytes() == more
    await stage.works()
    # Nor does a core that lingers after a stop go on with the previous files.
    pid = core_pid(stage.node)
    await stage.panel.stop()
    assert is_running(pid)
    assert "next start" in detail_of(await stage.post("/node/geofiles", {"region": "russia"}), 200)
    assert not is_running(pid)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("geoip.dat", b"<html>please log in</html>", "broken"),
        ("geoip.dat", geo_data.geosite({"cn": ["example.cn"]}), "geoip"),
        ("geosite.dat", geo_data.geosite({"cn": ["example.org"]}), "wrong digest"),
        ("geosite.dat", None, "no geosite.dat for region china"),
        ("geoip.dat", geo_data.geoip({"cn": ["192.0.2.0/24", "2001:db8::/32"]})[:-3], "cut off"),
    ],
)
async def test_broken_geo_files_change_nothing(stage: Stage, name: str, content: bytes | None, words: str) -> None:
    assets = stage.node.state_dir / "assets"
    before = {path.name: path.read_bytes() for path in assets.iterdir()}
    path = f"/china/{name}"
    good = stage.server.files.pop(path)
    try:
        if content is not None:
            stage.server.files[path] = content
        detail = detail_of(await stage.post("/node/geofiles", {"region": "china"}), 500)
    finally:
        stage.server.files[path] = good
    assert words in detail, detail
    assert {path.name: path.read_bytes() for path in assets.iterdir()} == before
    await stage.works()


async def test_hard_reset(stage: Stage) -> None:
    await stage.client.move("VLESS", 4_000, 5_000)
    version, pid = await stage.version(), core_pid(stage.node)
    certificate = stage.node.ca_file.read_bytes()
    detail_of(await stage.post("/node/hard_reset"), 200)
    assert not is_running(pid)
    info = await stage.panel.info()
    assert (info.started, info.core_version) == (False, version)
    answer = await stage.panel.request("GET", "/stats/backend")
    assert (answer.status, b"backend not initialized" in answer.body) == (503, True)
    # It is forgotten for good: the store has none of it, and a node that restarts has nothing to run.
    state = stored_state(stage.node)
    assert not state.users
    assert state.backend is None
    assert state.counters
    await stage.stop()
    await stage.node.start()
    assert not (await stage.panel.info()).started
    assert stage.node.ca_file.read_bytes() == certificate
    await stage.panel.start(stage.config, [make_user("new@e2e", ["VLESS"])])
    assert set(await inbound_users(stage.node.run_dir / "core.sock", "VLESS")) == {"new@e2e"}
    owed = {stat.type: stat.value for stat in await stage.panel.stats(pb.UserStat, "user7@demo", reset=True)}
    assert owed["uplink"] >= 4_000
    assert owed["downlink"] >= 5_000
    assert detail_of(await stage.post("/node/hard_reset"), 200)
    assert detail_of(await stage.post("/node/hard_reset"), 200), "twice is fine"


async def test_a_core_for_the_next_start(stage: Stage) -> None:
    stage.server.release("26.16.1")
    await stage.panel.stop()
    assert "next start" in detail_of(await stage.update_core("26.16.1"), 200)
    info = await stage.panel.info()
    assert (info.started, info.core_version) == (False, "26.16.1")
    answer = await stage.panel.start(stage.config, make_users(USERS, ["VLESS"]))
    assert (answer.started, answer.core_version) == (True, "26.16.1")
    await stage.works()


async def test_update_command(stage: Stage) -> None:
    assert detail_of(await stage.post("/node/update"), 200) == "updated; done $HOME"


async def test_choices_that_do_not_count_any_more(stage: Stage, short_dir: Path) -> None:
    """A chosen core that is broken is left aside, and a setting that was changed later wins. The last test: other cores run."""
    chosen = stage.cores / await stage.version() / "xray"
    good = chosen.read_bytes()
    await stage.stop()
    chosen.write_bytes(b"\x7fELF damaged")
    await stage.node.start()
    assert await stage.version() == await embedded_version()
    await stage.works()
    await stage.stop()
    chosen.write_bytes(good)

    environment = {**stage.node.environment(), "XRAY_EXECUTABLE_PATH": str(xray_command.install(short_dir, "26.9.9"))}
    other = NodeProcess(env=environment, state_dir=stage.node.state_dir)
    other.api_key = stage.node.api_key
    other.port, other.api_port = stage.node.port, stage.node.api_port
    async with other, other.panel() as panel:
        assert (await panel.info()).core_version == "26.9.9"
