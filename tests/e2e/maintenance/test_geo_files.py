"""Geo files of a real node: of each region, for a config that uses them, and broken ones."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.testing.panel import PanelError
from pgnode.testing.processes import is_running
from pgnode.testing.users import make_users
from tests.e2e.maintenance.stage import GEO_CODES, USERS, Stage, detail_of
from tests.support import geo_data
from tests.support.processes import core_pid


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
