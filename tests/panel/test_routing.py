"""Routing rules, balancers and outbound latency through the panel's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.panel.client import Client, ClientError
from tests.panel.conftest import Stage
from tests.support.polling import eventually
from tests.support.probe_target import answer_probe

pytestmark = pytest.mark.needs_client

GUARD = ("BLOCK", "PG_NODE_MALFORMED_DOMAIN_GUARD")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def routing_config(config: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """The config with a rule, and a balancer over two outbounds that are observed."""
    server = await asyncio.start_server(answer_probe, "127.0.0.1", 0)
    direct, block = config["outbounds"]
    async with server:
        yield config | {
            "outbounds": [direct, block, direct | {"tag": "exit-1"}, direct | {"tag": "exit-2"}],
            "observatory": {
                "subjectSelector": ["exit-"],
                "probeURL": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/204",
                "probeInterval": "1s",
            },
            "routing": {
                "balancers": [{"tag": "exits", "selector": ["exit-"]}],
                "rules": [{"ruleTag": "configured", "domain": ["full:configured.example"], "balancerTag": "exits"}],
            },
        }


@pytest_asyncio.fixture(loop_scope="session")
async def routed(whole_stage: Stage, routing_config: dict[str, Any]) -> Stage:
    """The stage with that config, and no rules but its own."""
    # What was added goes with a start that brings another config.
    await whole_stage.panel.start(whole_stage.config, whole_stage.users)
    await whole_stage.panel.start(routing_config, whole_stage.users)
    return whole_stage


async def rules(panel: Client) -> list[tuple[str, str]]:
    return [(rule.outbound_tag, rule.rule_tag) for rule in (await panel.call("list_routing_rules")).rules]


async def refused(client: Client, method: str, **args: Any) -> tuple[int | None, str]:
    with pytest.raises(ClientError) as caught:
        await client.call(method, **args)
    return caught.value.code, caught.value.detail


async def test_rules_are_added_replaced_and_removed_and_traffic_goes_by_them(routed: Stage) -> None:
    panel = routed.panel
    configured = await rules(panel)
    assert configured[0] == GUARD
    assert configured[-1] == ("", "configured")
    blocked = json.dumps({"ruleTag": "blocked", "user": [routed.users[0].email], "outboundTag": "BLOCK"})

    await panel.call("add_routing_rule", rule=blocked)
    assert await rules(panel) == [*configured, ("BLOCK", "blocked")]
    assert await routed.core.refused("VLESS")
    await routed.core.move("VMess", 1_000, 1_000)
    found = await panel.call("test_route", user=routed.users[0].email, target_domain="some.example", target_port=443)
    assert found.outbound_tag == "BLOCK"

    await panel.call("remove_routing_rule", rule_tag="blocked")
    assert await rules(panel) == configured
    await routed.core.move("VLESS", 1_000, 1_000)

    await panel.call("add_routing_rule", rule=blocked, should_reset=True)
    assert await rules(panel) == [GUARD, ("BLOCK", "blocked")]


async def test_what_the_core_refuses_leaves_the_rules_as_they_were(routed: Stage) -> None:
    panel = routed.panel
    before = await rules(panel)
    for rule in ("no json", '{"ruleTag": "bad", "outboundTag": "BLOCK", "ip": ["no address"]}', "[]"):
        code, detail = await refused(panel, "add_routing_rule", rule=rule)
        assert code == 400
        assert detail
    code, detail = await refused(panel, "remove_routing_rule", rule_tag="nobody")
    assert code == 404
    assert "not found" in detail
    assert await rules(panel) == before


async def test_a_balancer_told_and_overridden(routed: Stage) -> None:
    panel = routed.panel
    info = await panel.call("get_balancer_info", tag="exits")
    assert info.override_target == ""
    assert set(info.principle_target) <= {"exit-1", "exit-2"}
    await panel.call("override_balancer_target", balancer_tag="exits", target="exit-2")
    assert (await panel.call("get_balancer_info", tag="exits")).override_target == "exit-2"
    found = await panel.call("test_route", target_domain="configured.example", target_port=443, network="tcp")
    assert found.outbound_tag == "exit-2"
    assert (await refused(panel, "get_balancer_info", tag="nobody"))[0] == 404


async def test_latency_of_observed_outbounds(routed: Stage) -> None:
    panel = routed.panel

    async def both_alive() -> bool:
        answer = await panel.call("get_outbounds_latency")
        return {latency.name for latency in answer.latencies if latency.alive} == {"exit-1", "exit-2"}

    await eventually(both_alive, "both observed outbounds are alive", errors=(ClientError,))
    answer = await panel.call("get_outbounds_latency", name="exit-1")
    assert [(latency.name, latency.source) for latency in answer.latencies] == [("exit-1", "xray-observatory")]
    # Nothing is observed in the usual config.
    await panel.start(routed.config, routed.users)
    code, detail = await refused(panel, "get_outbounds_latency")
    assert code == 503
    assert "xray outbound latency is not available" in detail
