"""Questions about the running core's routing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgnode.bus.commands import Kind
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from pgnode.metrics.catalogue import TAGS_MAX
from pgnode.supervisor.routing.queries import LATENCY_SOURCE
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.routing.stage import SILENT, Stage

QUESTIONS = [
    (Kind.BALANCER_INFO, pb.BalancerInfoRequest(tag="bal")),
    (Kind.TEST_ROUTE, pb.TestRouteRequest()),
    (Kind.LATENCY, pb.LatencyRequest()),
]


async def test_rules_are_listed(stage: Stage) -> None:
    answer = pb.RoutingRulesResponse.FromString(await stage.ask(Kind.LIST_RULES))
    assert [rule.rule_tag for rule in answer.rules][-1] == "a"
    assert "RoutingQueries" in repr(stage.queries)


async def test_a_balancer_is_described(stage: Stage) -> None:
    await stage.override("DIRECT")
    found = pb.BalancerInfoResponse.FromString(await stage.ask(*QUESTIONS[0]))
    assert (found.override_target, list(found.principle_target)) == ("DIRECT", ["DIRECT"])
    with pytest.raises(NotFoundError, match="balancer 'x' not found"):
        await stage.ask(Kind.BALANCER_INFO, pb.BalancerInfoRequest(tag="x"))
    with pytest.raises(InvalidRequestError, match="empty tag"):
        await stage.ask(Kind.BALANCER_INFO, pb.BalancerInfoRequest())


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ((), ("DIRECT", "in", "tcp", "b.example")),
        (("outbound",), ("DIRECT", "", "", "")),
        (("in", "target", "net", "dom"), ("", "in", "tcp", "b.example")),
    ],
)
async def test_a_route_that_no_rule_decides_goes_to_the_first_outbound(
    stage: Stage, selectors: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    request = pb.TestRouteRequest(
        inbound_tag="in", network="tcp", target_domain="b.example", field_selectors=selectors, target_ip="1.2.3.4"
    )
    found = pb.RouteResult.FromString(await stage.ask(Kind.TEST_ROUTE, request))
    assert (found.outbound_tag, found.inbound_tag, found.network, found.target_domain) == expected


async def test_a_route_that_a_rule_decides(stage: Stage) -> None:
    request = pb.TestRouteRequest(network="udp", target_domain="a.example", publish_result=True)
    found = pb.RouteResult.FromString(await stage.ask(Kind.TEST_ROUTE, request))
    assert (found.outbound_tag, found.network, stage.core.published) == ("DIRECT", "udp", True)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"network": "carrier pigeon"}, "unknown network 'carrier pigeon'; known are tcp, udp, unix"),
        ({"target_port": 65536}, "target_port 65536 is no port"),
        ({"target_ip": "one"}, "target_ip 'one' is no IP address"),
    ],
)
async def test_what_is_no_connection_is_refused(stage: Stage, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        await stage.ask(Kind.TEST_ROUTE, pb.TestRouteRequest(**fields))


async def test_latencies(stage: Stage) -> None:
    with pytest.raises(UnavailableError, match=r"^xray outbound latency is not available$"):
        await stage.ask(Kind.LATENCY, pb.LatencyRequest())
    stage.core.observed_tags = ["DIRECT", "other"]
    found = pb.LatencyResponse.FromString(await stage.ask(Kind.LATENCY, pb.LatencyRequest())).latencies
    assert [(one.name, one.delay, one.source) for one in found] == [
        ("DIRECT", 12, LATENCY_SOURCE),
        ("other", 12, LATENCY_SOURCE),
    ]
    named = await stage.ask(Kind.LATENCY, pb.LatencyRequest(name="other"))
    assert [one.name for one in pb.LatencyResponse.FromString(named).latencies] == ["other"]
    with pytest.raises(NotFoundError, match="latency of outbound 'x' not found"):
        await stage.ask(Kind.LATENCY, pb.LatencyRequest(name="x"))


async def test_delays_for_monitors(stage: Stage) -> None:
    stage.core.observed_tags = [f"exit-{number:03}" for number in range(TAGS_MAX + 1)]
    assert await stage.queries.delays() == {}, "the config has no observatory"
    stage.base = replace(stage.base, document={**stage.base.document, "observatory": {}})
    delays = await stage.queries.delays()
    assert len(delays) == TAGS_MAX
    assert delays["exit-000"] == 0.012
    stage.core.errors = [SILENT]
    assert await stage.queries.delays() == {}
    stage.control.api = None
    assert await stage.queries.delays() == {}


@pytest.mark.parametrize(("kind", "message"), QUESTIONS)
async def test_a_core_that_does_not_answer(stage: Stage, kind: Kind, message: Any) -> None:
    stage.core.errors = [SILENT]
    with pytest.raises(CoreUnavailableError, match=r"^failed to .*: Deadline"):
        await stage.ask(kind, message)


async def test_a_core_that_does_not_list_its_rules(stage: Stage) -> None:
    stage.core.list_error = SILENT
    with pytest.raises(CoreUnavailableError, match=r"^failed to list routing rules: Deadline"):
        await stage.ask(Kind.LIST_RULES)


async def test_without_a_core_nothing_is_known(stage: Stage) -> None:
    stage.control.api = None
    with pytest.raises(CoreNotStartedError):
        await stage.ask(Kind.LIST_RULES)
