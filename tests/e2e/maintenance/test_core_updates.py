"""Another core for a real node: downloaded, tried, kept, gone back to, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgnode.testing.node import NodeProcess
from pgnode.testing.users import make_users
from pgnode.xray.process.embedded import EmbeddedCore
from tests.e2e.maintenance.stage import USERS, Stage, detail_of
from tests.support import xray_command
from tests.support.polling import eventually
from tests.support.processes import core_pid
from tests.support.release_server import PROXIED_HOST, good_release

MIB = 1024 * 1024


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


async def embedded_version() -> str:
    return await EmbeddedCore().version(60)


async def test_the_choice_survives_a_restart(stage: Stage) -> None:
    before = await stage.version()
    assert before != (await embedded_version())
    await stage.stop()
    await stage.node.start()
    assert await stage.version() == before
    await stage.works()


async def test_a_core_for_the_next_start(stage: Stage) -> None:
    stage.server.release("26.16.1")
    await stage.panel.stop()
    assert "next start" in detail_of(await stage.update_core("26.16.1"), 200)
    info = await stage.panel.info()
    assert (info.started, info.core_version) == (False, "26.16.1")
    answer = await stage.panel.start(stage.config, make_users(USERS, ["VLESS"]))
    assert (answer.started, answer.core_version) == (True, "26.16.1")
    await stage.works()


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
