"""A core is exchanged: what is downloaded and tried, and what is left as it was when something is wrong."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.errors import DeadlineExceededError, InvalidRequestError, UnavailableError, UpdateFailedError
from pgnode.settings import load
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.supervisor.maintenance.core_update import CoreUpdate
from pgnode.supervisor.maintenance.downloads import Downloads
from tests.support.certificates import make_certificate
from tests.support.release_server import ReleaseServer
from tests.unit.supervisor.maintenance.fakes import BASE, FakeCore, FakeNode, base_config

VERSION = "26.11.1"


def release(said: str) -> dict[str, bytes]:
    """A release whose core says a version, and can do nothing else."""
    return {"xray": f'#!/bin/sh\necho "Xray {said} (Xray, Penetrates Everything.) linux"\n'.encode()}


@pytest_asyncio.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ReleaseServer]:
    certificate, key = make_certificate(tmp_path, [], ["127.0.0.1"])
    # To read the machine's list of CAs, again and again, would take longer than all else here.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with ReleaseServer(certificate, key, platform.machine()) as running:
        yield running


class Stage:
    def __init__(self, folder: Path, server: ReleaseServer, **options: Any) -> None:
        settings = load(
            state_dir=str(folder), core_releases_url=f"http://127.0.0.1:{server.http_port}/releases", **options
        )
        self.node, self.core = FakeNode(), FakeCore()
        self.usual = self.core.core
        self.store = CoreStore(folder, None, 1024 * 1024)
        self.job = CoreUpdate(settings, self.node, self.core, self.store, Downloads(settings))

    async def refused(self, version: str, words: str) -> None:
        """The job fails with these words, and nothing has changed."""
        with pytest.raises(UpdateFailedError, match=words):
            await self.job.run({"core_version": version})
        assert self.core.core is self.usual
        assert self.store.selected() is None
        assert not self.store.staging.exists()
        assert not self.store.path_of(version).exists()
        assert self.store.begun() is None


@pytest.fixture
def stage(tmp_path: Path, server: ReleaseServer) -> Stage:
    return Stage(tmp_path, server)


async def test_with_nothing_to_run_the_next_start_runs_it(stage: Stage, server: ReleaseServer) -> None:
    server.release(VERSION, release(VERSION))
    server.latest(VERSION)
    assert await stage.job.run({"core_version": "latest"}) == f"core {VERSION} is what the next start will run"
    assert stage.store.selected() == stage.store.path_of(VERSION)
    assert str(stage.store.path_of(VERSION)) in str(stage.core.core)
    assert stage.node.log == [f"core {VERSION}"]
    assert not stage.store.staging.exists()
    assert "/releases" in repr(stage.job)


async def test_it_is_tried_with_the_config_that_runs_and_then_runs_it(stage: Stage, server: ReleaseServer) -> None:
    server.release(VERSION, release(VERSION))
    stage.node.running_base = base_config(BASE)
    assert await stage.job.run({"core_version": f"v{VERSION}"}) == f"core {VERSION} runs in place of 26.10.10"
    assert stage.store.begun() is None
    ((checked, other),) = stage.core.checked
    assert checked is stage.node.running_base
    assert other is stage.core.core


async def test_one_that_runs_already_is_not_downloaded(stage: Stage, server: ReleaseServer) -> None:
    assert "already" in await stage.job.run({"core_version": "26.10.10"})
    assert server.requests == []


async def test_going_back_needs_no_download(stage: Stage, server: ReleaseServer) -> None:
    server.release(VERSION, release(VERSION))
    await stage.job.run({"core_version": VERSION})
    asked = len(server.requests)
    await stage.job.run({"core_version": VERSION})
    assert len(server.requests) == asked


async def test_a_version_that_does_not_exist(stage: Stage, server: ReleaseServer) -> None:
    with pytest.raises(InvalidRequestError, match=r"1\.2\.3 is not known: known are \"latest\" and the other"):
        await stage.job.run({"core_version": "1.2.3"})
    server.latest(VERSION)
    with pytest.raises(InvalidRequestError, match=rf"\(now {VERSION}\)"):
        await stage.job.run({"core_version": "1.2.3"})


async def test_a_wrong_digest(stage: Stage, server: ReleaseServer) -> None:
    server.release(VERSION, release(VERSION), digest="0" * 128)
    await stage.refused(VERSION, "wrong digest|cannot be checked")


async def test_a_core_that_says_another_version_or_none(stage: Stage, server: ReleaseServer) -> None:
    server.release(VERSION, release("1.0.0"))
    await stage.refused(VERSION, r"says that it is 1\.0\.0")
    server.release(VERSION, {"xray": b"no program"})
    await stage.refused(VERSION, "cannot be run")


async def test_a_core_that_refuses_the_config(stage: Stage, server: ReleaseServer) -> None:
    server.release(VERSION, release(VERSION))
    stage.node.running_base = base_config(BASE)
    stage.core.refuses = "no such protocol"
    await stage.refused(VERSION, r"refuses the running config: no such protocol; core 26\.10\.10 stays")


async def test_a_core_that_does_not_come_up(stage: Stage, server: ReleaseServer) -> None:
    server.release(VERSION, release(VERSION))
    stage.node.running_base = base_config(BASE)
    stage.node.fails = "no luck"
    await stage.refused(VERSION, "did not come up: no luck")


async def test_too_slow(tmp_path: Path, server: ReleaseServer) -> None:
    stage = Stage(tmp_path, server, maintenance_timeout_seconds=1)
    server.release(VERSION, release(VERSION))
    server.slow.add(server.asset_path(VERSION))
    with pytest.raises(DeadlineExceededError, match="MAINTENANCE_TIMEOUT_SECONDS"):
        await stage.job.run({"core_version": VERSION})
    assert not stage.store.staging.exists()


async def test_a_node_that_exchanges_no_core_now(
    stage: Stage, server: ReleaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.release(VERSION, release(VERSION))

    async def refuse(*_: object) -> bool:
        assert stage.store.begun() == VERSION, "it is noted before anything ends"
        raise UnavailableError("start the node first")

    monkeypatch.setattr(stage.node, "exchange_core", refuse)
    with pytest.raises(UnavailableError, match="start the node first"):
        await stage.job.run({"core_version": VERSION})
    assert stage.store.begun() is None
    assert not stage.store.path_of(VERSION).exists()


async def test_one_that_is_interrupted_is_noted(
    stage: Stage, server: ReleaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.release(VERSION, release(VERSION))

    async def interrupted(*_: object) -> bool:
        raise asyncio.CancelledError

    monkeypatch.setattr(stage.node, "exchange_core", interrupted)
    with pytest.raises(asyncio.CancelledError):
        await stage.job.run({"core_version": VERSION})
    assert stage.store.begun() == VERSION
