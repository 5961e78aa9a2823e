"""The parts of the node know each other."""

from __future__ import annotations

from pgnode.bus.commands import Kind
from tests.unit.supervisor.lifecycle.stage import Stage, config_of


async def test_every_command_of_the_node_is_served(stage: Stage) -> None:
    changes = {Kind.START, Kind.STOP, Kind.ADD_RULE, Kind.REMOVE_RULE, Kind.OVERRIDE_BALANCER}
    assert set(stage.node.changes) == changes
    looks = {Kind.LIST_RULES, Kind.BALANCER_INFO, Kind.TEST_ROUTE, Kind.LATENCY}
    assert set(stage.node.inspections) == looks


async def test_routing_goes_by_what_runs(stage: Stage) -> None:
    await stage.start(config_of("a", routing={"balancers": [{"tag": "bal", "selector": ["D"]}]}))
    balancer = b"\x0a\x03bal\x12\x06DIRECT"
    await stage.do(Kind.OVERRIDE_BALANCER, balancer)
    assert stage.core.api is not None
    assert stage.core.api.channel.overrides == {"bal": "DIRECT"}
    assert "overrides" in stage.committer.routing
