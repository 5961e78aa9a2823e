"""The methods of routing and latency: all go to the supervisor, which asks or changes the running core.

They are commands and no snapshots: nobody polls them all the time, and an answer must not be older than the question. What a
message must hold is checked there too, after the state: without a core, that is what a caller has to hear.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Protocol

from pgnode.api.service.decoding import decode
from pgnode.bus.commands import Kind
from pgnode.wire import service_pb2 as pb

#: Seconds that a look at the core may last at most; callers give up after ten.
LOOK_SECONDS: Final = 8.0


class _Calls(Protocol):
    async def call(self, kind: Kind, body: bytes, budget_seconds: float) -> bytes:
        """The reply's body, or the supervisor's NodeError."""


class RoutingCalls:
    """The part of the node's service that is about routing. Every handler takes and returns bytes."""

    _commands: _Calls
    _write_seconds: float

    def _look(self, kind: Kind, body: bytes) -> Awaitable[bytes]:
        return self._commands.call(kind, body, min(LOOK_SECONDS, self._write_seconds))

    def outbounds_latency(self, body: bytes) -> Awaitable[bytes]:
        """LatencyResponse for a LatencyRequest. Raises NotFound- and UnavailableError."""
        decode(pb.LatencyRequest, body)
        return self._look(Kind.LATENCY, body)

    def list_rules(self, _body: bytes = b"") -> Awaitable[bytes]:
        """RoutingRulesResponse: the core's rules in their order, the node's own among them."""
        return self._look(Kind.LIST_RULES, b"")

    def add_rule(self, body: bytes) -> Awaitable[bytes]:
        """Empty, for an AddRoutingRuleRequest. Raises InvalidRequestError for a rule that cannot be."""
        decode(pb.AddRoutingRuleRequest, body)
        return self._commands.call(Kind.ADD_RULE, body, self._write_seconds)

    def remove_rule(self, body: bytes) -> Awaitable[bytes]:
        """Empty, for a RemoveRoutingRuleRequest. Raises NotFoundError."""
        decode(pb.RemoveRoutingRuleRequest, body)
        return self._commands.call(Kind.REMOVE_RULE, body, self._write_seconds)

    def balancer_info(self, body: bytes) -> Awaitable[bytes]:
        """BalancerInfoResponse for a BalancerInfoRequest. Raises NotFoundError."""
        decode(pb.BalancerInfoRequest, body)
        return self._look(Kind.BALANCER_INFO, body)

    def override_balancer(self, body: bytes) -> Awaitable[bytes]:
        """Empty, for an OverrideBalancerTargetRequest; without a target the balancer chooses again. Raises NotFoundError."""
        decode(pb.OverrideBalancerTargetRequest, body)
        return self._commands.call(Kind.OVERRIDE_BALANCER, body, self._write_seconds)

    def test_route(self, body: bytes) -> Awaitable[bytes]:
        """RouteResult for a TestRouteRequest. Raises InvalidRequestError for an address, port or network that is none."""
        decode(pb.TestRouteRequest, body)
        return self._look(Kind.TEST_ROUTE, body)
