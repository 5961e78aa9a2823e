"""Rules, balancers and routes: what is asked of the core, and what its sentences mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from pgnode.xray.client.channel import CoreChannel
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.client.routing import Balancer, ListedRule, RoutingApi, takes_rules
from pgnode.xray.proto import observatory_command_pb2, router_pb2
from pgnode.xray.proto import routing_command_pb2 as pb
from tests.unit.xray.client.builders import DEADLINE_SECONDS
from tests.unit.xray.fake_core import FakeCore, Refusal

ROUTING = "/xray.app.router.command.RoutingService/"
OBSERVED = "/xray.core.app.observatory.command.ObservatoryService/GetOutboundStatus"


@pytest.fixture
async def routing(fake: FakeCore) -> AsyncIterator[RoutingApi]:
    channel = CoreChannel(fake.socket_path)
    yield RoutingApi(channel, DEADLINE_SECONDS)
    await channel.aclose()


def refuse_all(fake: FakeCore, text: str) -> None:
    def refuse(_request: bytes) -> bytes:
        raise Refusal(text)

    refuse_one: Callable[[bytes], bytes] = refuse
    methods = ["ListRule", "AddRule", "RemoveRule", "GetBalancerInfo", "OverrideBalancerTarget", "TestRoute"]
    fake.answers = {ROUTING + method: refuse_one for method in methods} | {OBSERVED: refuse_one}


@pytest.mark.parametrize(
    ("version", "able"), [("26.10.10", True), ("26.4.0", True), ("26.3.27", False), ("25.12.1", False), ("dev", True)]
)
def test_which_cores_take_rules(version: str, able: bool) -> None:
    assert takes_rules(version) is able


async def test_rules(fake: FakeCore, routing: RoutingApi) -> None:
    seen: list[bytes] = []
    listed = pb.ListRuleResponse(
        rules=[pb.ListRuleItem(tag="out", ruleTag="one"), pb.ListRuleItem(tag="", ruleTag="two")]
    )
    fake.answers[ROUTING + "ListRule"] = lambda _request: listed.SerializeToString()

    def take(request: bytes) -> bytes:
        seen.append(request)
        return b""

    fake.answers |= {ROUTING + method: take for method in ("AddRule", "RemoveRule")}
    assert await routing.rules() == [ListedRule("out", "one"), ListedRule("", "two")]
    config = router_pb2.Config(rule=[router_pb2.RoutingRule(tag="out", rule_tag="one")])
    await routing.add_rules(config, append=True)
    await routing.remove_rule("one")
    added, removed = pb.AddRuleRequest.FromString(seen[0]), pb.RemoveRuleRequest.FromString(seen[1])
    assert added.shouldAppend
    assert router_pb2.Config.FromString(added.config.value) == config
    assert added.config.type == "xray.app.router.Config"
    assert removed.ruleTag == "one"
    assert "RoutingApi" in repr(routing)


async def test_balancers(fake: FakeCore, routing: RoutingApi) -> None:
    answer = pb.GetBalancerInfoResponse()
    answer.balancer.override.target = "fixed"
    answer.balancer.principle_target.tag.extend(["best", "", "next"])
    fake.answers[ROUTING + "GetBalancerInfo"] = lambda _request: answer.SerializeToString()
    fake.answers[ROUTING + "OverrideBalancerTarget"] = lambda _request: b""
    assert await routing.balancer("b") == Balancer("fixed", ("best", "next"))
    assert await routing.override("b", "out")
    refuse_all(fake, "app/router: cannot find tag")
    assert await routing.balancer("none") is None
    assert not await routing.override("none", "out")


async def test_where_a_connection_goes(fake: FakeCore, routing: RoutingApi) -> None:
    asked: list[pb.TestRouteRequest] = []

    def answer(request: bytes) -> bytes:
        asked.append(pb.TestRouteRequest.FromString(request))
        return pb.RoutingContext(OutboundTag="out").SerializeToString()

    fake.answers[ROUTING + "TestRoute"] = answer
    found = await routing.test_route(pb.RoutingContext(TargetDomain="example.com"), ["outbound"])
    assert found is not None
    assert found.OutboundTag == "out"
    assert asked[0].RoutingContext.TargetDomain == "example.com"
    assert list(asked[0].FieldSelectors) == ["outbound"]
    refuse_all(fake, "not enough information for making a decision")
    assert await routing.test_route(pb.RoutingContext()) is None


async def test_what_is_observed(fake: FakeCore, routing: RoutingApi) -> None:
    assert await routing.observed() == [], "a core without an observatory has no such service"
    answer = observatory_command_pb2.GetOutboundStatusResponse()
    answer.status.status.add(outbound_tag="out", alive=True)
    fake.answers[OBSERVED] = lambda _request: answer.SerializeToString()
    assert [status.outbound_tag for status in await routing.observed()] == ["out"]


async def test_other_errors_come_through(fake: FakeCore, routing: RoutingApi) -> None:
    refuse_all(fake, "app/router: broken")
    for call in (
        routing.balancer("b"),
        routing.override("b", "x"),
        routing.test_route(pb.RoutingContext()),
        routing.observed(),
        routing.rules(),
    ):
        with pytest.raises(CoreApiError, match="broken"):
            await call
