"""What a drain takes out of a core, and what is kept of the order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgnode.supervisor.lifecycle.drain_plan import DrainOrder, plan_drain
from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.config.document import BaseConfig, parse_config

NEW_CORE = "the running core could not be given it again: "


def base_of(*inbounds: dict[str, Any]) -> BaseConfig:
    config = json.dumps(make_config(inbounds))
    return parse_config(config, exclude_inbounds=frozenset(), api_socket="/core.sock", assets_dir=Path("/none"))


def inbound(protocol: str, transport: str = "raw", /, **settings: Any) -> dict[str, Any]:
    return make_inbound("in", protocol, stream={"network": transport}, **settings)


@pytest.mark.parametrize(
    "taken",
    [
        inbound("vless"),
        inbound("vless", "tcp"),
        inbound("vmess", "ws"),
        inbound("vless", "httpupgrade"),
        inbound("trojan"),
        inbound("shadowsocks", network="tcp"),
        inbound("socks"),
        inbound("http"),
        inbound("mixed"),
        inbound("dokodemo-door", address="127.0.0.1", port=80),
        {**inbound("trojan"), "listen": "/run/in.sock"},
    ],
)
def test_what_outlives_its_listener_is_taken_out(taken: dict[str, Any]) -> None:
    plan = plan_drain(base_of(taken))
    assert (plan.taken, plan.kept) == (("in",), {})


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (inbound("trojan", "grpc"), "its connections would end with it (grpc)"),
        (inbound("vless", "xhttp"), "its connections would end with it (xhttp)"),
        (inbound("vless", "mkcp"), "its connections would end with it (mkcp)"),
        (inbound("hysteria", "hysteria", version=2), "its connections would end with it (hysteria)"),
        (inbound("vless", "new"), "its connections would end with it (new)"),
        (inbound("shadowsocks", network="tcp,udp"), "what goes over UDP would end with it"),
        (inbound("socks", udp=True), "what goes over UDP would end with it"),
        (inbound("dokodemo-door", address="127.0.0.1", port=80, network="udp"), "what goes over UDP would end with it"),
        (inbound("wireguard", secretKey="A" * 43), f"{NEW_CORE}inbound 'in' (wireguard) changed"),
        (inbound("unknown"), f"{NEW_CORE}inbound 'in' (unknown) changed"),
        ({**inbound("vless"), "listen": "a name"}, f"{NEW_CORE}only the core can tell where inbound 'in' listens"),
        (inbound("vless", reverse={"tag": "r"}), f"{NEW_CORE}inbound 'in' is a reverse portal"),
    ],
)
def test_all_others_stay(kept: dict[str, Any], why: str) -> None:
    plan = plan_drain(base_of(kept, make_inbound("other", "vless")))
    assert (plan.taken, plan.kept) == (("other",), {"inbound 'in'": why})


def test_one_without_a_tag_stays() -> None:
    unnamed = inbound("socks")
    del unnamed["tag"]
    assert plan_drain(base_of(unnamed)).kept == {"inbound #1": "it has no tag, by which the core could find it"}


def test_an_order_is_kept_as_it_was() -> None:
    for order in (DrainOrder(1000.5), DrainOrder(1000.0, 1600.0, hold=True)):
        assert DrainOrder.decode(order.encode()) == order


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"since": "soon"}', '{"since": 1, "until": []}', "{"])
def test_a_damaged_order_is_none(text: str) -> None:
    assert DrainOrder.decode(text) is None


def test_it_is_never_longer_than_it_was_meant_to_be() -> None:
    order = DrainOrder(1000.0, 1600.0)
    assert [order.seconds_left(now) for now in (0.0, 1000.0, 1599.0, 1600.0, 9000.0)] == [600.0, 600.0, 1.0, 0.0, 0.0]
    assert DrainOrder(1000.0).seconds_left(9000.0) is None
