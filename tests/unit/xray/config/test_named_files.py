"""Files that a config names, with their readers."""

from __future__ import annotations

from pathlib import Path

from pgnode.xray.config.named_files import REST, RULES, files_of


def test_certificates_and_geo_files_with_their_readers() -> None:
    certificate = {"certificateFile": "/c.pem", "KeyFile": "/k.pem", "usage": "encipherment"}
    stream = {"tlsSettings": {"certificates": [certificate, {"certificateFile": "relative.pem"}]}}
    document = {
        "inbounds": [
            {"tag": "a", "streamSettings": stream, "settings": {"clients": [{"keyFile": "/not.pem"}]}},
            {"tag": "b", "streamSettings": stream},
            {"streamSettings": {"tlsSettings": {"certificates": [{"certificateFile": "/u.pem"}]}}},
            5,
        ],
        "outbounds": [{"tag": "o", "streamSettings": {"certificates": [{"certificateFile": "/o.pem"}]}}],
        "routing": {"rules": [{"domain": ["ext:my.dat:x", "geosite:y"], "ip": ["!geoip:z"]}]},
        "dns": {"servers": [{"domains": ["geosite:q"]}]},
    }
    found = files_of(document, Path("/assets"))
    assert found[Path("/c.pem")] == found[Path("/k.pem")] == {("a", True), ("b", True)}
    assert found[Path("/u.pem")] == found[Path("/o.pem")] == {(REST, False)}
    assert found[Path("/assets/my.dat")] == found[Path("/usr/share/xray/geoip.dat")] == {(RULES, False)}
    assert found[Path("/assets/geosite.dat")] == {(RULES, False), (REST, False)}
    assert Path("/not.pem") not in found
    assert files_of(document, None, Path("/certs"))[Path("/certs/relative.pem")] == {("a", True), ("b", True)}
    assert files_of({"routing": 5, "inbounds": 5}, None) == {}


def test_a_script_is_read_by_no_part_that_can_be_replaced_alone() -> None:
    found = files_of({"routing": {"script": "/r.lua"}, "dns": {"Script": "/d.lua"}}, None)
    assert found == {Path("/r.lua"): {(REST, False)}, Path("/d.lua"): {(REST, False)}}
    assert files_of({"routing": {"script": "relative.lua"}}, None) == {}
