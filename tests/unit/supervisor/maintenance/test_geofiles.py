"""Geo files are replaced: what is checked before, and what is there when something goes wrong."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.errors import DeadlineExceededError, UpdateFailedError
from pgnode.settings import load
from pgnode.supervisor.maintenance.downloads import Downloads
from pgnode.supervisor.maintenance.geofiles import GeoFiles
from tests.support.certificates import make_certificate
from tests.support.geo_data import geoip, geosite
from tests.support.release_server import ReleaseServer
from tests.unit.supervisor.maintenance.fakes import BASE, GEO_BASE, FakeCore, FakeNode, base_config

NEW = {"geoip": geoip({"ir": ["10.0.0.0/8"], "private": ["127.0.0.0/8"]}), "geosite": geosite({"ir": ["example.ir"]})}


@pytest_asyncio.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ReleaseServer]:
    certificate, key = make_certificate(tmp_path, [], ["127.0.0.1"])
    # To read the machine's list of CAs, again and again, would take longer than all else here.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with ReleaseServer(certificate, key, platform.machine()) as running:
        for kind, content in NEW.items():
            running.files[f"/geo/{kind}.dat"] = content
        yield running


class Stage:
    def __init__(self, folder: Path, server: ReleaseServer, **options: Any) -> None:
        settings = load(state_dir=str(folder), geofiles_iran_url=f"http://127.0.0.1:{server.http_port}/geo", **options)
        self.assets = settings.assets_dir
        self.assets.mkdir(exist_ok=True)
        (self.assets / "geoip.dat").write_bytes(b"old")
        (self.assets / "custom.dat").write_bytes(b"custom")
        self.node, self.core = FakeNode(), FakeCore()
        self.job = GeoFiles(settings, self.node, self.core, Downloads(settings))

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.assets.iterdir()}

    async def refused(self, words: str) -> None:
        """The job fails with these words, and the folder is as it was."""
        before = self.content()
        with pytest.raises(UpdateFailedError, match=words):
            await self.job.run({"region": "iran"})
        assert self.content() == before


@pytest.fixture
def stage(tmp_path: Path, server: ReleaseServer) -> Stage:
    return Stage(tmp_path, server)


NOW = {"geoip.dat": NEW["geoip"], "geosite.dat": NEW["geosite"], "custom.dat": b"custom"}


async def test_with_nothing_to_run_they_are_put_in_place(stage: Stage) -> None:
    detail = await stage.job.run({"region": "iran"})
    assert detail == (
        "geo files of region iran are in place (geoip.dat with 2 codes, geosite.dat with 1 codes); the next start has them"
    )
    assert stage.content() == NOW
    assert stage.node.log == []
    assert "assets" in repr(stage.job)


async def test_a_core_that_uses_none_goes_on(stage: Stage) -> None:
    stage.node.running_base = stage.node.core_base = base_config(BASE)
    assert "uses none, so it went on" in await stage.job.run({"region": "iran"})
    assert stage.content() == NOW
    assert stage.core.checked == []


async def test_a_core_that_uses_them_is_started_with_them(stage: Stage) -> None:
    stage.node.running_base = stage.node.core_base = base_config(GEO_BASE, stage.assets)
    assert "the core was started with them" in await stage.job.run({"region": "iran"})
    assert stage.content() == NOW
    ((base, other),) = stage.core.checked
    assert base is stage.node.running_base
    assert other is not None
    assert stage.node.log == ["geo files of region iran"]


async def test_a_lingering_core_that_uses_them_is_ended(stage: Stage) -> None:
    stage.node.core_base = base_config(GEO_BASE, stage.assets)
    assert "the next start has them" in await stage.job.run({"region": "iran"})
    assert stage.node.log == ["geo files of region iran"]


async def test_a_published_digest_is_checked(stage: Stage, server: ReleaseServer) -> None:
    server.files["/geo/geoip.dat.sha256sum"] = b"0" * 64 + b"  geoip.dat\n"
    await stage.refused("wrong digest: geoip.dat")
    server.files["/geo/geoip.dat.sha256sum"] = hashlib.sha256(NEW["geoip"]).hexdigest().encode()
    await stage.job.run({"region": "iran"})


@pytest.mark.parametrize("content", [b"<html>", b"<html>a page that is no geo file</html>"])
async def test_a_file_that_is_none(stage: Stage, server: ReleaseServer, content: bytes) -> None:
    server.files["/geo/geosite.dat"] = content
    await stage.refused(r"broken geosite\.dat")


async def test_a_file_that_is_missing(stage: Stage, server: ReleaseServer) -> None:
    del server.files["/geo/geosite.dat"]
    await stage.refused(r"no geosite\.dat for region iran")


async def test_a_config_that_does_not_work_with_them(stage: Stage) -> None:
    stage.node.running_base = base_config(GEO_BASE, stage.assets)
    stage.core.refuses = "no code zz"
    await stage.refused("does not work with the files of region iran: no code zz")


async def test_when_the_core_does_not_come_up_the_previous_files_are_back(stage: Stage) -> None:
    stage.node.running_base = base_config(GEO_BASE, stage.assets)
    stage.node.fails = "no luck"
    await stage.refused("did not come up with the files of region iran: no luck; the previous files were restored")


async def test_a_folder_that_cannot_be_written(stage: Stage) -> None:
    for path in stage.assets.iterdir():
        path.unlink()
    stage.assets.rmdir()
    stage.assets.write_bytes(b"no folder")
    with pytest.raises(UpdateFailedError, match="XRAY_ASSETS_PATH"):
        await stage.job.run({"region": "iran"})


async def test_a_file_that_cannot_be_replaced(stage: Stage) -> None:
    (stage.assets / "geosite.dat").mkdir()
    (stage.assets / "geosite.dat" / "inside").touch()
    with pytest.raises(UpdateFailedError, match="cannot be replaced"):
        await stage.job.run({"region": "iran"})
    assert (stage.assets / "geoip.dat").read_bytes() == b"old"


async def test_too_slow(tmp_path: Path, server: ReleaseServer) -> None:
    stage = Stage(tmp_path, server, maintenance_timeout_seconds=1)
    server.slow.add("/geo/geoip.dat")
    with pytest.raises(DeadlineExceededError, match="MAINTENANCE_TIMEOUT_SECONDS"):
        await stage.job.run({"region": "iran"})
    assert (stage.assets / "geoip.dat").read_bytes() == b"old"
