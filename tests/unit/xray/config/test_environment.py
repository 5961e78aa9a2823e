"""Variables that a config may not set."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.xray.config.environment import variable_fault


@pytest.mark.parametrize(
    "name", ["XRAY_LOCATION_ASSET", "xray.location.asset", "Xray_Location.Cert", " XRAY_LOCATION_CONFDIR"]
)
@pytest.mark.parametrize("section", ["env", "ENV"])
def test_where_the_core_finds_its_files_is_the_nodes(section: str, name: str) -> None:
    fault = variable_fault({section: {"A": "b", name: "/etc"}})
    assert (fault or "").startswith(f"config: {section} {name!r} is not for a config")


@pytest.mark.parametrize("part", [{}, None, ["XRAY_LOCATION_ASSET=/etc"], {"XRAY_BUF_SPLICE": "auto", "PORT": "1"}])
def test_others_are(part: Any) -> None:
    assert variable_fault({"env": part, "dns": {"XRAY_LOCATION_ASSET": "x"}}) is None
