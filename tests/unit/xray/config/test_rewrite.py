"""What the node owns of a config is written anew; everything else stays as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgnode.errors import StartFailedError
from pgnode.xray.config import rewrite
from pgnode.xray.config.document import render
from pgnode.xray.config.geo_refs import PRIVATE_NETWORKS
from tests.unit.xray.config.configs import USER_ID, config, parse, sample


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
    }
    defaults = parse(config()).document["policy"]
    assert defaults["levels"]["0"]["statsUserOnline"] is True
    assert defaults["system"] == {"statsOutboundUplink": True, "statsOutboundDownlink": True}
    given = {"system": {"StatsInboundUplink": True}}
    assert parse(config(policy=given)).document["policy"]["system"]["statsInboundUplink"] is True, (
        "the core reads any case"
    )


def test_log_files_are_taken_out_and_none_stays() -> None:
    base = parse(sample("balancer"))
    assert (base.access_log_path, base.error_log_path) == ("/var/log/xray/access.log", "/var/log/xray/error.log")
    assert base.document["log"] == {"loglevel": "warning", "access": "", "error": ""}
    quiet = parse(config(log={"access": "none", "error": ""}))
    assert (quiet.access_log_path, quiet.error_log_path) == (None, None)
    assert quiet.document["log"] == {"access": "none", "error": ""}
    assert "log" not in parse(config()).document


@pytest.mark.parametrize("level", [{}, [], 5, True])
def test_a_log_level_is_a_string(level: object) -> None:
    with pytest.raises(StartFailedError, match=r"config: log\.loglevel must be a string, not"):
        parse(config(log={"LogLevel": level}))
    parse(config(log={"loglevel": None}))


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


@settings(suppress_health_check=[HealthCheck.too_slow])
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
