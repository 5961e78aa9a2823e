"""Routing and latency: every call goes to the supervisor, with the time that its caller gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pgnode.api.service import deadline
from pgnode.api.service.routing import INSPECTION_SECONDS, RoutingCalls
from pgnode.bus.commands import Kind
from pgnode.errors import DeadlineExceededError, InvalidRequestError
from pgnode.wire import service_pb2 as pb
from tests.unit.api.fakes import FakeCommands

WRITE_SECONDS = 30.0


@pytest.mark.parametrize(
    ("handler", "message", "kind", "seconds"),
    [
        (RoutingCalls.outbounds_latency, pb.LatencyRequest(name="a"), Kind.LATENCY, INSPECTION_SECONDS),
        (RoutingCalls.list_rules, pb.Empty(), Kind.LIST_RULES, INSPECTION_SECONDS),
        (RoutingCalls.add_rule, pb.AddRoutingRuleRequest(rule="{}"), Kind.ADD_RULE, WRITE_SECONDS),
        (RoutingCalls.remove_rule, pb.RemoveRoutingRuleRequest(rule_tag="r"), Kind.REMOVE_RULE, WRITE_SECONDS),
        (RoutingCalls.balancer_info, pb.BalancerInfoRequest(tag="b"), Kind.BALANCER_INFO, INSPECTION_SECONDS),
        (
            RoutingCalls.override_balancer,
            pb.OverrideBalancerTargetRequest(balancer_tag="b"),
            Kind.OVERRIDE_BALANCER,
            WRITE_SECONDS,
        ),
        (RoutingCalls.test_route, pb.TestRouteRequest(network="tcp"), Kind.TEST_ROUTE, INSPECTION_SECONDS),
    ],
)
async def test_each_is_a_command_with_its_time(
    handler: Callable[[RoutingCalls, bytes], Awaitable[bytes]], message: pb.Empty, kind: Kind, seconds: float
) -> None:
    commands = FakeCommands(reply=b"answer")
    calls = RoutingCalls(commands, write_timeout_seconds=WRITE_SECONDS)
    body = message.SerializeToString()
    assert await handler(calls, body) == b"answer"
    assert commands.calls == [(kind, body, seconds)]
    if body:
        with pytest.raises(InvalidRequestError, match="malformed"):
            handler(calls, b"\xff")


async def test_the_callers_deadline_holds_here_too() -> None:
    commands = FakeCommands()
    calls = RoutingCalls(commands, write_timeout_seconds=WRITE_SECONDS)

    async def call() -> None:
        deadline.set_caller_timeout(2.0)
        await calls.list_rules()
        deadline.set_caller_timeout(0.0)
        with pytest.raises(DeadlineExceededError):
            calls.list_rules()

    await asyncio.create_task(call())
    [(_, _, seconds)] = commands.calls
    assert 0 < seconds <= 2.0
