"""The methods of routing and latency: all go to the supervisor, which asks or changes the running core.

They are commands and no snapshots: nobody polls them all the time, and an answer must not be older than the question. What a
message must hold is checked there too, after the state: without a core, that is what a caller has to hear.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from pgnode.api.service import deadline
from pgnode.api.service.decoding import decode
from pgnode.api.service.ports import Commands
from pgnode.bus.commands import Kind
from pgnode.wire import service_pb2 as pb

#: Seconds that a question to the core may take at most; callers give up after ten.
INSPECTION_SECONDS: Final = 8.0


class RoutingCalls:
    """The handlers of routing, balancers and latency.

    Args:
        commands: The way to the supervisor.
        write_timeout_seconds: How long a change may take.
    """

    def __init__(self, commands: Commands, *, write_timeout_seconds: float) -> None:
        self._commands = commands
        self._write_seconds = write_timeout_seconds
        self._inspection_seconds = min(INSPECTION_SECONDS, write_timeout_seconds)

    def __repr__(self) -> str:
        return f"RoutingCalls({self._write_seconds:g} s)"

    def _inspect(self, kind: Kind, body: bytes) -> Awaitable[bytes]:
        return self._commands.call(kind, body, deadline.remaining(self._inspection_seconds))

    def _change(self, kind: Kind, body: bytes) -> Awaitable[bytes]:
        return self._commands.call(kind, body, deadline.remaining(self._write_seconds))

    def outbounds_latency(self, body: bytes) -> Awaitable[bytes]:
        """Return LatencyResponse for a LatencyRequest. Raise NotFoundError or UnavailableError."""
        decode(pb.LatencyRequest, body)
        return self._inspect(Kind.LATENCY, body)

    def list_rules(self, _body: bytes = b"") -> Awaitable[bytes]:
        """Return RoutingRulesResponse: the core's rules in their order, the node's own among them."""
        return self._inspect(Kind.LIST_RULES, b"")

    def add_rule(self, body: bytes) -> Awaitable[bytes]:
        """Return Empty, for an AddRoutingRuleRequest. Raise InvalidRequestError for a rule that cannot be."""
        decode(pb.AddRoutingRuleRequest, body)
        return self._change(Kind.ADD_RULE, body)

    def remove_rule(self, body: bytes) -> Awaitable[bytes]:
        """Return Empty, for a RemoveRoutingRuleRequest. Raise NotFoundError."""
        decode(pb.RemoveRoutingRuleRequest, body)
        return self._change(Kind.REMOVE_RULE, body)

    def balancer_info(self, body: bytes) -> Awaitable[bytes]:
        """Return BalancerInfoResponse for a BalancerInfoRequest. Raise NotFoundError."""
        decode(pb.BalancerInfoRequest, body)
        return self._inspect(Kind.BALANCER_INFO, body)

    def override_balancer(self, body: bytes) -> Awaitable[bytes]:
        """Return Empty, for an OverrideBalancerTargetRequest. Raise NotFoundError.

        Without a target the balancer chooses again.
        """
        decode(pb.OverrideBalancerTargetRequest, body)
        return self._change(Kind.OVERRIDE_BALANCER, body)

    def test_route(self, body: bytes) -> Awaitable[bytes]:
        """Return RouteResult for a TestRouteRequest. Raise InvalidRequestError for a bad address, port or network."""
        decode(pb.TestRouteRequest, body)
        return self._inspect(Kind.TEST_ROUTE, body)
