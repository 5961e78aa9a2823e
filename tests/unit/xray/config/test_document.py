"""Parsing, rewriting and rendering of a panel's config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgnode.errors import StartFailedError
from pgnode.xray.config import rewrite
from pgnode.xray.config.document import PLACEHOLDER_EMAIL, BaseConfig, parse_config, render
from pgnode.xray.config.geo_refs import PRIVATE_NETWORKS

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
USER_ID = "5783a3e7-e373-51cd-8642-c83782b807c5"


def parse(config: object, *, exclude: tuple[str, ...] = (), socket_path: str = "/run/x/api.sock") -> BaseConfig:
    text = config if isinstance(config, str) else json.dumps(config)
    return parse_config(text, exclude_inbounds=exclude, api_socket=socket_path, assets_dir=None)


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return document


def vless(tag: str = "in", **more: Any) -> dict[str, Any]:
    return {
        "tag": tag,
        "listen": "127.0.0.1",
        "port": 20000,
        "protocol": "vless",
        "settings": {"decryption": "none"},
    } | more


def config(**more: Any) -> dict[str, Any]:
    return {"inbounds": [vless()], "outbounds": [{"tag": "DIRECT", "protocol": "freedom"}]} | more


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "config is not valid JSON: Expecting value at line 1, column 1"),
        ('{"inbounds": [}', "config is not valid JSON: Expecting value at line 1, column 15"),
        ('{\n // note\n "inbounds": [],,}', "at line 3, column 17"),
        ('{"a": NaN}', "NaN is no JSON value"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "config must be a JSON object, not a list"),
        ("{}", "config has no inbounds"),
        ('{"inbounds": []}', "config has no inbounds"),
        ('{"inbounds": [{"tag": "API_INBOUND"}]}', "config has no inbounds"),
        ('{"inbounds": {}}', "inbounds must be a list, not an object"),
        ('{"inbounds": [1]}', "inbounds[0] must be an object, not a number"),
        ('{"inbounds": [{"tag": 5}]}', "inbound #1: tag must be a string, not a number"),
        ('{"inbounds": [{"tag": "\\ud800"}]}', "half a surrogate pair"),
        ('{"inbounds": [{"tag": "a", "protocol": "vless"}, {"tag": "a"}]}', "two inbounds with the tag 'a'"),
        (
            '{"inbounds": [{"tag": "a", "protocol": "vless", "settings": []}]}',
            "inbound 'a': settings must be an object",
        ),
        ('{"inbounds": [{"tag": "a"}], "policy": []}', "policy must be an object, not a list"),
        ('{"inbounds": [{"tag": "a"}], "policy": {"levels": {"0": 1}}}', "policy.levels.0 must be an object"),
        ('{"inbounds": [{"tag": "a"}], "routing": {"rules": {}}}', "routing.rules must be a list"),
        ('{"inbounds": [{"tag": "a"}], "log": {"access": 1}}', "log.access must be a string"),
        (
            '{"inbounds": [{"tag": "a"}], "routing": {"rules": [{"domain": ["geosite:ads"]}]}}',
            "geo file 'geosite.dat' is missing ('geosite:ads' needs it); looked in /usr/local/share/xray",
        ),
    ],
)
def test_unusable_configs_are_refused_with_the_cause_first(text: str, cause: str) -> None:
    with pytest.raises(StartFailedError) as caught:
        parse(text)
    assert cause in str(caught.value)[:128]


def test_comments_are_accepted_but_not_inside_strings() -> None:
    text = '{ // one\n "inbounds": /* two */ [{"tag": "a//b /* c */ # d", "protocol": "vless"}] # three\n}'
    assert [spec.tag for spec in parse(text).inbounds] == ["a//b /* c */ # d"]


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


# --- what is rewritten -----------------------------------------------------------------------------------------------


def test_the_panels_own_api_is_gone_from_the_wide_sample() -> None:
    base = parse(sample("wide"), exclude=("Static clients",))
    assert "API_INBOUND" not in json.dumps(base.document)
    assert base.document["api"]["listen"] == "/run/x/api.sock"
    assert base.document["api"]["tag"] == rewrite.API_TAG
    assert not [rule for rule in base.document["routing"]["rules"] if rule["outboundTag"] in {"API", rewrite.API_TAG}]
    assert base.document["inbounds"][-1]["settings"]["clients"][0]["email"] == "static@node"
    assert "Static clients" not in base.managed_inbounds
    assert len(base.managed_inbounds) == 12


def test_an_outbound_keeps_its_rules_even_when_it_is_called_like_an_api() -> None:
    base = parse(
        config(
            api={"tag": "out"},
            outbounds=[{"tag": "out", "protocol": "freedom"}, {"tag": rewrite.API_TAG, "protocol": "freedom"}],
            routing={"rules": [{"port": "1", "outboundTag": "out"}, {"port": "2", "outboundTag": rewrite.API_TAG}]},
        )
    )
    assert [rule["port"] for rule in base.document["routing"]["rules"]] == ["1", "2"]
    assert base.document["api"]["tag"] == rewrite.API_TAG + "_"


def test_statistics_are_forced_or_defaulted() -> None:
    policy = {
        "levels": {"0": {"statsUserUplink": False, "statsUserOnline": False, "connIdle": 7}, "1": {"connIdle": 8}},
        "system": {"statsOutboundUplink": False, "statsInboundUplink": False},
    }
    document = parse(config(policy=policy)).document
    assert document["stats"] == {}
    level = document["policy"]["levels"]["0"]
    assert level == {"statsUserUplink": True, "statsUserOnline": False, "connIdle": 7, "statsUserDownlink": True}
    assert document["policy"]["levels"]["1"] == {"connIdle": 8}
    assert document["policy"]["system"] == {
        "statsOutboundUplink": True,
        "statsInboundUplink": False,
        "statsOutboundDownlink": True,
        "statsInboundDownlink": True,
    }
    assert parse(config()).document["policy"]["levels"]["0"]["statsUserOnline"] is True


def test_log_files_are_taken_out_and_none_stays() -> None:
    base = parse(sample("balancer"))
    assert (base.access_log_path, base.error_log_path) == ("/var/log/xray/access.log", "/var/log/xray/error.log")
    assert base.document["log"] == {"loglevel": "warning", "access": "", "error": ""}
    quiet = parse(config(log={"access": "none", "error": ""}))
    assert (quiet.access_log_path, quiet.error_log_path) == (None, None)
    assert quiet.document["log"] == {"access": "none", "error": ""}
    assert "log" not in parse(config()).document


def test_private_networks_and_the_domain_guard() -> None:
    rules = [
        {"source": "geoip:private,1.2.3.4", "outboundTag": "DIRECT"},
        {"ip": ["geoip:PRIVATE"], "outboundTag": "DIRECT"},
    ]
    outbounds = [{"tag": "", "protocol": "blackhole"}, {"tag": "B", "protocol": "BlackHole"}]
    document = parse(config(routing={"rules": rules}, outbounds=outbounds)).document
    guard, first, second = document["routing"]["rules"]
    assert (guard["ruleTag"], guard["outboundTag"]) == ("PG_NODE_MALFORMED_DOMAIN_GUARD", "B")
    assert first["source"] == [*PRIVATE_NETWORKS, "1.2.3.4"]
    assert second["ip"] == list(PRIVATE_NETWORKS)
    untagged = parse(config(outbounds=[{"protocol": "blackhole"}]))
    assert untagged.document["routing"] == {}, "rules may be added to the core later"
    assert any("blackhole" in warning for warning in untagged.warnings)


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (["exit-"], ["exit-"]),
        (["exit-", "BLOCK", "DNS"], ["exit-"]),
        (["D"], ["DIRECT", "DX"]),
        ([""], ["exit-1", "exit-2", "DIRECT", "DX"]),
        (["exit-", "DI", "D"], ["exit-", "DI", "DIRECT", "DX"]),
        (["nothing"], ["nothing"]),
        (["BLOCK"], []),
    ],
)
@pytest.mark.parametrize("name", ["observatory", "burstObservatory"])
def test_selectors_do_not_reach_what_cannot_be_observed(name: str, selectors: list[str], expected: list[str]) -> None:
    outbounds = [
        {"tag": tag, "protocol": protocol}
        for tag, protocol in [
            ("exit-1", "freedom"),
            ("exit-2", "socks"),
            ("DIRECT", "freedom"),
            ("BLOCK", "blackhole"),
            ("DNS", "dns"),
            ("DX", "freedom"),
            ("LOOP", "loopback"),
        ]
    ]
    base = parse(config(outbounds=outbounds, **{name: {"subjectSelector": selectors}}))
    assert base.document[name]["subjectSelector"] == expected
    assert base.observed_outbound_exclusions == {"BLOCK", "DNS", "LOOP"}
    assert "ObservatoryService" in base.document["api"]["services"]


def test_a_selector_that_is_an_outbound_itself_stays_and_is_warned_about() -> None:
    outbounds = [{"tag": "D", "protocol": "freedom"}, {"tag": "DNS", "protocol": "dns"}]
    base = parse(config(outbounds=outbounds, observatory={"subjectSelector": ["D"]}))
    assert base.document["observatory"]["subjectSelector"] == ["D"]
    assert any("'DNS'" in warning for warning in base.warnings)


def test_keys_in_another_case_are_the_same_keys() -> None:
    base = parse({"INBOUNDS": [{"TAG": "a", "Protocol": "vless", "settings": {"Clients": [{"id": USER_ID}]}}]})
    assert base.document["inbounds"][0]["settings"] == {"clients": []}
    assert [spec.tag for spec in base.inbounds] == ["a"]


# --- inbounds --------------------------------------------------------------------------------------------------------


def test_inbound_specs_of_the_wide_sample() -> None:
    specs = {spec.tag: spec for spec in parse(sample("wide")).inbounds}
    assert specs["VLESS TCP REALITY"].flow == "xtls-rprx-vision"
    assert [tag for tag, spec in specs.items() if spec.flow_allowed] == ["VLESS TCP REALITY", "VLESS TCP TLS fallbacks"]
    assert specs["Port range"].ports == ((20460, 20463), (20465, 20465))
    assert specs["Hysteria"].kinds == {"udp"}
    assert specs["Shadowsocks TCP+UDP"].kinds == {"tcp", "udp"}
    assert specs["Trojan unix"].kinds == frozenset()
    assert specs["Trojan unix"].is_unix
    assert (specs["Shadowsocks 2022"].is_shadowsocks_2022, specs["Shadowsocks 2022"].key_bytes) == (True, 16)
    assert (specs["Shadowsocks TCP+UDP"].is_shadowsocks_2022, specs["Shadowsocks TCP+UDP"].key_bytes) == (False, 0)


@pytest.mark.parametrize(
    ("inbound", "kinds"),
    [
        ({"protocol": "vless", "streamSettings": {"network": "kcp"}}, {"udp"}),
        ({"protocol": "vless", "streamSettings": {"network": "xhttp", "tlsSettings": {"alpn": ["h3"]}}}, {"udp"}),
        ({"protocol": "vless", "streamSettings": {"network": "xhttp"}}, {"tcp"}),
        ({"protocol": "socks", "settings": {"udp": True}}, {"tcp", "udp"}),
        ({"protocol": "socks"}, {"tcp"}),
        ({"protocol": "dokodemo-door", "settings": {"network": ["udp"]}}, {"udp"}),
        ({"protocol": "wireguard"}, {"udp"}),
        ({"protocol": "shadowsocks"}, {"tcp"}),
    ],
)
def test_socket_kinds(inbound: dict[str, Any], kinds: set[str]) -> None:
    assert parse({"inbounds": [{"tag": "a", "port": 1, **inbound}]}).inbounds[0].kinds == kinds


def test_inbounds_that_get_no_users() -> None:
    chacha = {"method": "2022-blake3-chacha20-poly1305", "password": "x"}
    base = parse(
        {
            "inbounds": [
                vless("out"),
                vless(""),
                {"tag": "s", "protocol": "socks", "port": 1},
                {"tag": "c", "protocol": "shadowsocks", "port": 1, "settings": chacha},
                vless("in"),
            ]
        },
        exclude=("out",),
    )
    assert list(base.managed_inbounds) == ["in"]
    assert base.document["inbounds"][3]["settings"] == chacha
    assert any("chacha20" in warning for warning in base.warnings)
    assert any("has no tag" in warning for warning in base.warnings)


def test_header_disguise_forbids_flow() -> None:
    stream = {"network": "tcp", "security": "tls", "tcpSettings": {"header": {"type": "http"}}}
    assert not parse({"inbounds": [vless(streamSettings=stream)]}).inbounds[0].flow_allowed
    stream["tcpSettings"] = {"header": {"type": "none"}}
    assert parse({"inbounds": [vless(streamSettings=stream)]}).inbounds[0].flow_allowed


# --- hash and rendering ----------------------------------------------------------------------------------------------


def test_what_changes_the_hash() -> None:
    base = parse(config()).base_hash
    assert len(base) == 64
    assert parse(config(), socket_path="/elsewhere").base_hash == base
    assert parse({key: config()[key] for key in ("outbounds", "inbounds")}).base_hash == base
    with_clients = vless(settings={"decryption": "none", "clients": [{"id": USER_ID, "email": "a"}]})
    assert parse(config(inbounds=[with_clients])).base_hash == base
    assert parse(config(inbounds=[with_clients]), exclude=("in",)).base_hash != base
    assert parse(config(), exclude=("in",)).base_hash != base
    assert parse(config(inbounds=[vless(port=20001)])).base_hash != base
    assert parse(config(unknown=1)).base_hash != base


def test_render_puts_in_what_it_is_given() -> None:
    base = parse(sample("wide"), exclude=("Static clients",))
    clients = {tag: [f'{{"email":"{tag}-{n}"}}' for n in range(3)] for tag in base.managed_inbounds}
    rendered = json.loads(render(base, clients))
    for inbound in rendered["inbounds"]:
        expected = clients.get(inbound["tag"], ['{"id":"%s","email":"static@node"}' % USER_ID])  # noqa: UP031
        assert inbound["settings"]["clients"] == [json.loads(client) for client in expected]
    with pytest.raises(KeyError, match="Static clients"):
        render(base, {"Static clients": []})


def test_an_empty_shadowsocks_2022_inbound_gets_a_placeholder_with_a_new_key() -> None:
    base = parse(sample("wide"))
    keys = []
    for _ in range(2):
        inbound = next(i for i in json.loads(render(base, {}))["inbounds"] if i["tag"] == "Shadowsocks 2022")
        assert [client["email"] for client in inbound["settings"]["clients"]] == [PLACEHOLDER_EMAIL]
        keys.append(inbound["settings"]["clients"][0]["password"])
    assert keys[0] != keys[1]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", max_size=4), inner, max_size=3),
    max_leaves=6,
)
unknown_keys = st.dictionaries(st.text("abcdefgh", min_size=3, max_size=6).map("x-".__add__), json_values, max_size=3)
tags = st.text("abD.-é中", max_size=3)
inbounds = st.lists(
    st.builds(
        lambda tag, protocol, users, extra: {
            "tag": tag,
            **extra,
            "protocol": protocol,
            "port": 1,
            "settings": {"clients": users},
        },
        tags | st.just("API_INBOUND"),
        st.sampled_from(["vless", "VMess", "trojan", "shadowsocks", "socks"]),
        st.lists(st.just({"email": "x"}), max_size=2),
        unknown_keys,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda inbound: inbound["tag"],
)
outbounds = st.lists(
    st.builds(
        lambda tag, protocol: {"protocol": protocol, "tag": tag},
        tags,
        st.sampled_from(["freedom", "blackhole", "dns", "loopback"]),
    ),
    max_size=5,
)
rules = st.lists(
    st.builds(
        lambda target, inbound, ip, extra: {"inboundTag": inbound, "ip": ip, **extra, "outboundTag": target},
        tags | st.just("API"),
        st.lists(tags | st.just("API_INBOUND"), max_size=2),
        st.lists(st.sampled_from(["geoip:private", "1.2.3.4"]), max_size=2),
        unknown_keys,
    ),
    max_size=4,
)
configs = st.builds(
    lambda ins, outs, rule_list, selectors, api, extra: {
        **extra,
        "inbounds": ins,
        "api": {"tag": api},
        "outbounds": outs,
        "routing": {"rules": rule_list, "x-kept": 1},
        "observatory": {"subjectSelector": selectors},
    },
    inbounds,
    outbounds,
    rules,
    st.lists(tags, max_size=3),
    st.just("API") | tags,
    unknown_keys,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(document=configs)
def test_rewriting_is_idempotent_and_keeps_the_rest(document: dict[str, Any]) -> None:
    try:
        base = parse(document)
    except StartFailedError as error:
        assert "no inbounds" in str(error)  # noqa: PT017
        return
    again = parse(render(base, {}))
    assert again.base_hash == base.base_hash
    assert again.document == base.document
    assert again.inbounds == base.inbounds

    rewritten = json.loads(render(base, {}))
    # Order of keys: those of the panel's config in its order, then the node's own.
    assert [key for key in rewritten if key in document] == list(document)
    kept = [inbound for inbound in document["inbounds"] if inbound["tag"] != "API_INBOUND"]
    for before, after in zip(kept, rewritten["inbounds"], strict=True):
        assert list(after) == list(before)
        assert {key: value for key, value in after.items() if key != "settings"} == {
            key: value for key, value in before.items() if key != "settings"
        }
    outbound_tags = {outbound["tag"] for outbound in document["outbounds"]}
    for rule in rewritten["routing"]["rules"]:
        assert rule.get("inboundTag") != ["API_INBOUND"]
        target = rule["outboundTag"]
        assert target != document["api"]["tag"] or not target or target in outbound_tags
        assert "geoip:private" not in rule.get("ip", ())
    assert {key: rewritten[key] for key in document if key.startswith("x-")} == {
        key: document[key] for key in document if key.startswith("x-")
    }
    assert rewritten["policy"]["levels"]["0"]["statsUserUplink"] is True
    assert rewritten["policy"]["system"]["statsOutboundDownlink"] is True
