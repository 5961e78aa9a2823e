"""Destinations that lead to the node's own metrics are found, and others are left alone."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.xray.config.destinations import own_port_fault

PORT = 9100


def with_inbound(settings: Any, **more: Any) -> dict[str, Any]:
    return {"inbounds": [{"tag": "in", "port": PORT, "listen": "127.0.0.9", "settings": settings, **more}]}


def with_tunnel(settings: Any, protocol: str = "dokodemo-door") -> dict[str, Any]:
    return with_inbound(settings, protocol=protocol)


def with_outbound(settings: Any) -> dict[str, Any]:
    return {"outbounds": [{"settings": settings}]}


PLACES = pytest.mark.parametrize(
    ("document", "place"),
    [
        (with_inbound({"fallbacks": [{}, {"dest": PORT}]}), "inbound 'in': settings.fallbacks[1].dest 9100"),
        (with_inbound({"fallbacks": [{"dest": "+9100"}]}), "inbound 'in': settings.fallbacks[0].dest '+9100'"),
        (with_inbound({"fallbacks": [{"dest": "127.0.0.1:009100"}]}), "inbound 'in': settings.fallbacks[0].dest"),
        (with_inbound({"fallbacks": [{"dest": "127.0.0.1: 9100"}]}), "inbound 'in': settings.fallbacks[0].dest"),
        (with_inbound({"fallbacks": [{"dest": "9100"}]}), "inbound 'in': settings.fallbacks[0].dest '9100'"),
        (with_inbound({"fallbacks": [{"Dest": "localhost:9100"}]}), "inbound 'in': settings.fallbacks[0].Dest"),
        (with_inbound({"fallbacks": [{"dest": "[::ffff:127.0.0.1]:9100"}]}), "inbound 'in': settings.fallbacks[0]"),
        (with_inbound({}, streamSettings={"realitySettings": {"target": "0.0.0.0:9100"}}), "inbound 'in': stream"),
        (
            with_inbound({"masquerade": {"url": "http://x@127.8.8.8:9100/metrics"}}),
            "inbound 'in': settings.masquerade.url",
        ),
        (with_inbound({"address": "LOCALHOST.", "port": PORT}), "inbound 'in': settings.port 9100"),
        (with_inbound({"rewriteAddress": "::1", "rewritePort": PORT}), "inbound 'in': settings.rewritePort"),
        (
            with_tunnel({"portMap": {"5": "1.2.3.4:1", "6": "localhost:9100"}}),
            "inbound 'in': settings.portMap.6 'localhost",
        ),
        (with_tunnel({"address": "10.0.0.1", "PORTMAP": {"5": ":9100"}}), "inbound 'in': settings.PORTMAP.5 ':9100'"),
        (with_tunnel({"port": PORT}), "inbound 'in': settings.port 9100"),
        (with_tunnel({"address": "", "port": "9100"}), "inbound 'in': settings.port '9100'"),
        (with_tunnel({"rewritePort": PORT}, "Tunnel"), "inbound 'in': settings.rewritePort 9100"),
        (with_outbound({"redirect": ":9100"}), "config: outbounds[4].settings.redirect ':9100'"),
        (
            with_outbound({"servers": [{"address": "a.localhost", "port": PORT}]}),
            "config: outbounds[4].settings.servers",
        ),
    ],
)


def test_names_of_this_host_lead_there_as_well() -> None:
    names = {"node-1", "10.0.0.5"}
    for dest in ("Node-1:9100", "10.0.0.5:9100", "[::ffff:10.0.0.5]:9100"):
        document = with_inbound({"fallbacks": [{"dest": dest}]})
        assert own_port_fault(document, PORT, {}) is None, dest
        fault = own_port_fault(document, PORT, {}, names)
        assert (fault or "").startswith(f"inbound 'in': settings.fallbacks[0].dest '{dest}'"), fault
    assert own_port_fault(with_inbound({"address": "node-1", "port": PORT}), PORT, {}, names) is not None
    assert own_port_fault(with_inbound({"address": "node-2", "port": PORT}), PORT, {}, names) is None


@PLACES
def test_what_leads_to_the_metrics_is_named(document: dict[str, Any], place: str) -> None:
    fault = own_port_fault(document, PORT, {"outbounds": (5,)})
    assert (fault or "").startswith(place), fault
    assert (fault or "").endswith("is METRICS_PORT of the node itself, which is not for users")
    assert own_port_fault(document, None, {}) is None
    assert own_port_fault(document, PORT + 1, {}) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"dest": "example.com:9100"},
        {"dest": "10.0.0.1:9100"},
        {"dest": "/run/9100"},
        {"dest": None},
        {"dest": ["127.0.0.1:9100"]},
        {"address": "example.com", "port": PORT},
        {"address": 1, "port": PORT},
        {"port": PORT},
        {"portMap": [":9100"]},
        {"portMap": {"9100": "10.0.0.1:1"}},
        {"url": "http://localhost/9100"},
        {"dest": "localhost:"},
        {"dest": "+"},
    ],
)
def test_others_are_left_alone(settings: Any) -> None:
    assert own_port_fault(with_inbound(settings), PORT, {}) is None


def test_a_tunnel_to_another_machine_is_left_alone() -> None:
    assert own_port_fault(with_tunnel({"address": "10.0.0.1", "port": PORT, "portMap": None}), PORT, {}) is None
