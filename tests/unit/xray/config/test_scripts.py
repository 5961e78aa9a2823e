"""Scripts that a config names are run where an operator allows them, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgnode.xray.config.scripts import script_fault, scripts_of


@pytest.fixture
def allowed(tmp_path: Path) -> list[Path]:
    for name in ("scripts", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "scripts" / "link.lua").symlink_to(tmp_path / "other" / "x.lua")
    (tmp_path / "way").symlink_to(tmp_path / "scripts")
    return [tmp_path / "way", tmp_path / "one.lua"]


@pytest.mark.parametrize("path", ["{top}/scripts/a.lua", "{top}/way/deep/a.lua", "{top}/one.lua"])
def test_what_an_operator_allows_may_be_run(tmp_path: Path, allowed: list[Path], path: str) -> None:
    document = {"routing": {"script": path.format(top=tmp_path)}, "dns": {"script": "", "servers": ["/x"]}}
    assert script_fault(document, allowed) is None
    assert "in SCRIPT_PATHS" in (script_fault(document, ()) or "")


@pytest.mark.parametrize(
    "path",
    [
        "{top}/other/x.lua",
        "{top}/scripts/link.lua",
        "{top}/scripts/../other/x.lua",
        "{top}/scripts-too/x.lua",
        "one.lua",
        "/proc/self/cwd/etc/x.lua",
        "function HandleRoute() end",
    ],
)
@pytest.mark.parametrize("place", ["routing.script", "dns.script", "Routing.Script"])
def test_others_are_refused_by_their_place(tmp_path: Path, allowed: list[Path], place: str, path: str) -> None:
    section, _, field = place.partition(".")
    fault = script_fault({section: {field: path.format(top=tmp_path)}}, allowed)
    assert (fault or "").startswith(f"config: {place} ")


@pytest.mark.parametrize("value", [{"a": ["/x.lua"]}, ["/x.lua"]])
def test_whatever_shape_they_have(value: Any) -> None:
    assert [path for _, path in scripts_of({"routing": {"script": value}, "dns": 1, "inbounds": []})] == ["/x.lua"]
