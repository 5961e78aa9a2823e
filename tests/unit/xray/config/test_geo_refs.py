"""Geo data in a config: which files it needs, and what needs none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.config.document import parse_config
from pgnode.xray.config.geo_refs import PRIVATE_NETWORKS, missing_geo_files, replace_private, uses_files
from tests.unit.xray.config.configs import config


@pytest.mark.parametrize(
    ("part", "file_name"),
    [
        ({"routing": {"rules": [{"ip": "1.1.1.1,geoip:cn"}]}}, "geoip.dat"),
        ({"routing": {"rules": [{"ip": ["!geoip:private"]}]}}, "geoip.dat"),
        ({"dns": {"servers": [{"address": "1.1.1.1", "domains": ["geosite:cn"]}]}}, "geosite.dat"),
        ({"dns": {"hosts": {"geosite:ads": "127.0.0.1"}}}, "geosite.dat"),
        ({"dns": {"servers": [{"address": "1.1.1.1", "expectIPs": ["geoip:cn"]}]}}, "geoip.dat"),
        ({"outbounds": [{"settings": {"finalRules": [{"ip": ["ext:own.dat:code"]}]}}]}, "own.dat"),
    ],
)
def test_geo_references_are_found_wherever_the_core_reads_them(
    part: dict[str, Any], file_name: str, tmp_path: Path
) -> None:
    text = json.dumps(config() | part)
    with pytest.raises(StartFailedError, match=file_name) as caught:
        parse_config(text, exclude_inbounds=(), api_socket="/s", assets_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "XRAY_ASSETS_PATH" in str(caught.value)
    (tmp_path / file_name).touch()
    assert parse_config(text, exclude_inbounds=(), api_socket="/s", assets_dir=tmp_path).inbounds


def test_which_configs_use_the_files() -> None:
    assert uses_files({"routing": {"rules": [{"ip": ["geoip:ir"]}]}})
    assert uses_files({"dns": {"servers": [{"domains": ["geosite:ir"]}]}})
    assert not uses_files({"routing": {"rules": [{"ip": ["ext:other.dat:ir", "10.0.0.0/8"]}]}})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("ip", ["geoip:private", "1.1.1.1"], [*PRIVATE_NETWORKS, "1.1.1.1"]),
        ("source", "10.1.2.3, geoip:PRIVATE", ["10.1.2.3", *PRIVATE_NETWORKS]),
        ("ip", ["!geoip:private"], ["!geoip:private"]),
        ("ip", "geoip:cn", "geoip:cn"),
        ("localIP", 5, 5),
        ("domain", ["geoip:private"], ["geoip:private"]),
    ],
)
def test_private_networks_in_a_rule(field: str, value: object, expected: object) -> None:
    rule = {field: value}
    replace_private(rule)
    assert rule == {field: expected}


def test_names_that_only_look_like_references() -> None:
    for text in ("ext:", "ext:file.dat", "geo:x", "ext::code"):
        assert missing_geo_files({"routing": [text]}, None) is None
    many = {"routing": [["geoip:a"] * 3, "ext:x.dat:a"], "inbounds": [{"clients": ["geosite:x"]}]}
    assert "'geoip.dat'" in (missing_geo_files(many, None) or "")
    assert not uses_files({"inbounds": many["inbounds"]}), "clients hold no geo data and may be many"
