"""Which way leads from one base config to another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.ports import free_port
from pgnode.xray.config.diff import (
    Capabilities,
    ConfigDiff,
    Decision,
    StartStrategy,
    decide,
    why_only_with_a_new_core,
    with_changed_files,
)
from pgnode.xray.config.document import BaseConfig, parse_config

Config = dict[str, Any]
ABLE = Capabilities()

CONFIG: Config = make_config([make_inbound("A", "vless"), make_inbound("B", "trojan")])
CONFIG["outbounds"] += [
    {"tag": "ONE", "protocol": "freedom"},
    {"tag": "TWO", "protocol": "socks", "settings": {"servers": [{"address": "192.0.2.1", "port": 1080}]}},
    {"protocol": "blackhole", "settings": {"response": {"type": "http"}}},
]
CONFIG["routing"] = {
    "domainStrategy": "AsIs",
    "rules": [{"inboundTag": ["A"], "outboundTag": "ONE"}],
    "balancers": [{"tag": "any", "selector": ["ONE", "TWO"]}],
}
REALITY = {
    "network": "raw",
    "security": "reality",
    "realitySettings": {
        "target": "example.com:443",
        "serverNames": ["example.com"],
        "privateKey": "one",
        "shortIds": [""],
    },
}


def base_of(config: Config, exclude: tuple[str, ...] = ()) -> BaseConfig:
    return parse_config(
        json.dumps(config), exclude_inbounds=exclude, api_socket="/run/core.sock", assets_dir=Path("/none")
    )


def decided(change: Callable[[Config], object], start: Config = CONFIG, **exclude: tuple[str, ...]) -> Decision:
    """The way from the config to one that ``change`` made of it."""
    after = copy.deepcopy(start)
    change(after)
    return decide(base_of(start), base_of(after, exclude.get("exclude", ())), ABLE)


def test_order_of_keys_and_clients_mean_the_same_core() -> None:
    def change(config: Config) -> None:
        config["inbounds"][0] = dict(reversed(config["inbounds"][0].items()))
        config["inbounds"][1]["settings"]["clients"] = [{"email": "x", "password": "y"}]

    assert decided(change).strategy is StartStrategy.SAME


@pytest.mark.parametrize(
    ("change", "parts", "reason"),
    [
        (
            lambda c: c["inbounds"].append(make_inbound("C", "vmess")),
            ConfigDiff(add_inbounds=("C",)),
            "inbound 'C' added",
        ),
        (lambda c: c["inbounds"].pop(0), ConfigDiff(remove_inbounds=("A",)), "inbound 'A' removed"),
        (
            lambda c: c["inbounds"][1].update(port=free_port()),
            ConfigDiff(remove_inbounds=("B",), add_inbounds=("B",)),
            "inbound 'B' changed",
        ),
        (
            lambda c: c["inbounds"][1].update(tag="C"),
            ConfigDiff(remove_inbounds=("B",), add_inbounds=("C",)),
            "inbound 'B' removed; inbound 'C' added",
        ),
        (lambda c: c["inbounds"].reverse(), ConfigDiff(), "only the order changed"),
        (
            lambda c: c["outbounds"].append({"tag": "NEW", "protocol": "blackhole"}),
            ConfigDiff(add_outbounds=("NEW",)),
            "outbound 'NEW' added",
        ),
        (lambda c: c["outbounds"].pop(2), ConfigDiff(remove_outbounds=("ONE",)), "outbound 'ONE' removed"),
        (
            lambda c: c["outbounds"][3]["settings"]["servers"][0].update(port=1081),
            ConfigDiff(remove_outbounds=("TWO",), add_outbounds=("TWO",)),
            "outbound 'TWO' changed",
        ),
        (lambda c: c["routing"]["rules"].clear(), ConfigDiff(rules=True), "routing rules changed"),
        (lambda c: c["routing"]["balancers"].clear(), ConfigDiff(rules=True), "routing rules changed"),
        (lambda c: c["inbounds"][0].update(listen="::1"), ConfigDiff(("A",), ("A",)), "inbound 'A' changed"),
        (lambda c: c["inbounds"][0].update(listen="@abstract"), ConfigDiff(("A",), ("A",)), "inbound 'A' changed"),
        (lambda c: c["inbounds"][0].update(port="20000, 20002-20004"), ConfigDiff(("A",), ("A",)), "inbound 'A' changed"),
        # What a running core does not change, or of which it is not certain that it does.
        (lambda c: c.update(dns={"servers": ["localhost"]}), None, "dns changed"),
        (lambda c: c["outbounds"].pop(0), None, "the first outbound changed"),
        (lambda c: c["outbounds"].reverse(), None, "the first outbound changed"),
        (lambda c: c["outbounds"].pop(4), None, "an outbound without a tag changed"),
        (lambda c: c["outbounds"].append({"tag": "LOOP", "protocol": "loopback"}), None, "outbound 'LOOP' (loopback) changed"),
        (lambda c: c["routing"].update(domainStrategy="IPOnDemand"), None, "routing.domainStrategy changed"),
        (lambda c: c["inbounds"].append(make_inbound("T", "tun")), None, "inbound 'T' (tun) changed"),
        (lambda c: c["inbounds"][0].update(port="env:PORT"), None, "only the core can tell where inbound 'A' listens"),
        (lambda c: c["inbounds"][0].update(port="20000,x"), None, "only the core can tell where inbound 'A' listens"),
        (lambda c: c["inbounds"][0].update(listen="example.com"), None, "only the core can tell where inbound 'A' listens"),
        (lambda c: c["inbounds"][0].update(streamSettings=REALITY), None, "REALITY of inbound 'A' changed"),
        (
            lambda c: c["outbounds"].append({"tag": "R", "protocol": "vless", "settings": {"reverse": {"tag": "r"}}}),
            None,
            "outbound 'R' is a reverse bridge",
        ),
        (lambda c: c.update(observatory={"subjectSelector": ["ONE"]}), None, "observatory changed"),
    ],
)  # fmt: skip
def test_the_way_and_the_reason(change: Callable[[Config], object], parts: ConfigDiff | None, reason: str) -> None:
    decision = decided(change)
    assert decision.strategy is (StartStrategy.NEW_CORE if parts is None else StartStrategy.HOT_CHANGE)
    assert decision.diff == (parts or ConfigDiff())
    assert reason in decision.reason


def test_everything_at_once() -> None:
    def change(config: Config) -> None:
        config["inbounds"][0]["port"] = free_port()
        config["outbounds"].pop(3)
        config["routing"]["rules"].append({"inboundTag": ["B"], "outboundTag": "BLOCK"})

    decision = decided(change)
    assert decision.diff == ConfigDiff(("A",), ("A",), ("TWO",), (), rules=True)
    assert decision.reason == "inbound 'A' changed; outbound 'TWO' removed; routing rules changed"


def test_who_owns_the_clients_belongs_to_the_inbound() -> None:
    assert decided(lambda _config: None, exclude=("A",)).diff == ConfigDiff(("A",), ("A",))


def test_an_observatory_ties_the_outbounds() -> None:
    start = {**CONFIG, "observatory": {"subjectSelector": ["ONE"]}}
    decision = decided(lambda c: c["outbounds"].append({"tag": "N", "protocol": "freedom"}), start)
    assert (decision.strategy, decision.reason) == (StartStrategy.NEW_CORE, "outbounds changed under the observatory")


def test_an_inbound_with_reality_may_come_and_go() -> None:
    inbound = make_inbound("R", "vless", stream=REALITY)
    assert decided(lambda c: c["inbounds"].append(inbound)).diff == ConfigDiff(add_inbounds=("R",))
    start = copy.deepcopy(CONFIG)
    start["inbounds"].append(inbound)
    assert decided(lambda c: c["inbounds"].pop(), start).diff == ConfigDiff(remove_inbounds=("R",))


@pytest.mark.parametrize(
    ("version", "able"),
    [("26.10.10", True), ("26.4.0", True), ("27.1.1", True), ("26.3.27", False), ("1.8.24", False), ("", False), ("x", False)],
)  # fmt: skip
def test_old_and_unknown_cores_get_no_parts(version: str, able: bool) -> None:
    assert Capabilities.of(version).hot_changes is able
    after = copy.deepcopy(CONFIG)
    after["inbounds"].pop()
    decision = decide(base_of(CONFIG), base_of(after), Capabilities.of(version))
    assert decision.strategy is (StartStrategy.HOT_CHANGE if able else StartStrategy.NEW_CORE)


_PARTS = {
    "inbounds": [make_inbound(tag, "vless") for tag in "ABC"] + [make_inbound(tag, "trojan") for tag in "AB"],
    "outbounds": [{"tag": tag, "protocol": kind} for tag in ("X", "Y", "Z") for kind in ("freedom", "blackhole")],
    "rules": [{"inboundTag": [tag], "outboundTag": target} for tag in "AB" for target in ("X", "Y")],
}


def _subset(section: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(
        st.sampled_from(_PARTS[section]), max_size=4, unique_by=lambda item: item.get("tag") or json.dumps(item)
    )


_CONFIGS = st.builds(
    lambda inbounds, outbounds, rules: {
        "inbounds": [_PARTS["inbounds"][2], *(item for item in inbounds if item["tag"] != "C")],
        "outbounds": [{"tag": "FIRST", "protocol": "freedom"}, *outbounds],
        "routing": {"rules": rules},
    },
    _subset("inbounds"),
    _subset("outbounds"),
    _subset("rules"),
)


@given(_CONFIGS, _CONFIGS)
def test_the_parts_make_one_config_of_the_other(start: Config, end: Config) -> None:
    """On a model of the core: what is removed is there, what is added is not, and in the end all is as configured."""
    old, new = base_of(start), base_of(end)
    decision = decide(old, new, ABLE)
    if decision.strategy is not StartStrategy.HOT_CHANGE:
        # The guard against malformed domains goes to the first blackhole, so rules may change with outbounds.
        assert decision.strategy is StartStrategy.SAME
        return
    for section, removed, added in (
        ("inbounds", decision.diff.remove_inbounds, decision.diff.add_inbounds),
        ("outbounds", decision.diff.remove_outbounds, decision.diff.add_outbounds),
    ):
        model = {item["tag"]: item for item in old.document[section]}
        wanted = {item["tag"]: item for item in new.document[section]}
        for tag in removed:
            del model[tag]
        assert not model.keys() & set(added)
        model |= {tag: wanted[tag] for tag in added}
        assert model == wanted
    assert decision.diff.rules or old.document["routing"] == new.document["routing"]


def test_the_log_makes_no_other_core() -> None:
    assert decided(lambda c: c["log"].update(loglevel="debug")).strategy is StartStrategy.SAME


FILE = Path("/etc/cert.pem")
SAME = Decision(StartStrategy.SAME, "the base config is the running one")


def base_with(**first: Any) -> BaseConfig:
    document = copy.deepcopy(CONFIG)
    document["inbounds"][0] |= first
    return parse_config(json.dumps(document), exclude_inbounds=(), api_socket="/x.sock", assets_dir=None)


def test_readers_of_a_changed_file_are_replaced() -> None:
    found = with_changed_files(SAME, {FILE: {("B", True), ("routing rules", False)}}, base_with(), ABLE)
    assert found.strategy is StartStrategy.HOT_CHANGE
    assert found.diff == ConfigDiff(("B",), ("B",), rules=True)
    assert found.reason == "file /etc/cert.pem changed: inbound 'B', routing rules read again"
    # Beside what changes anyway.
    other = Decision(StartStrategy.HOT_CHANGE, "inbound 'A' changed", ConfigDiff(("A",), ("A",)))
    found = with_changed_files(other, {FILE: {("A", True), ("B", True)}}, base_with(), ABLE)
    assert found.diff == ConfigDiff(("A", "B"), ("A", "B"))
    assert found.reason.startswith("inbound 'A' changed; file /etc/cert.pem changed")


@pytest.mark.parametrize(
    ("readers", "able", "first"),
    [
        ({("the rest of the config", False)}, ABLE, {}),
        ({("A", True)}, Capabilities(hot_changes=False), {}),
        ({("A", True)}, ABLE, {"port": "env:PORT"}),
    ],
)
def test_what_cannot_be_replaced_is_a_new_core(readers: Any, able: Capabilities, first: dict[str, Any]) -> None:
    found = with_changed_files(SAME, {FILE: readers}, base_with(**first), able)
    assert found.strategy is StartStrategy.NEW_CORE
    assert found.reason.startswith("file /etc/cert.pem changed: ")


def test_without_changed_files_all_stays() -> None:
    new = Decision(StartStrategy.NEW_CORE, "dns changed")
    assert with_changed_files(SAME, {}, base_with(), ABLE) is SAME
    assert with_changed_files(new, {FILE: {("A", True)}}, base_with(), ABLE) is new


def test_why_a_running_core_cannot_be_given_an_inbound() -> None:
    for first, why in (({}, ""), ({"port": "env:PORT"}, "only the core can tell where inbound 'A' listens")):
        base = base_with(**first)
        assert why_only_with_a_new_core(base.document["inbounds"][0], base.inbounds[0]) == why
