"""Questions about the running core's routing and what it observes. They need no lock and change nothing."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pgnode.bus.commands import Command, Kind
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    InvalidRequestError,
    NodeError,
    NotFoundError,
    UnavailableError,
)
from pgnode.metrics.catalogue import TAGS_MAX
from pgnode.supervisor.commands.dispatcher import Handler
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.routing.changes import require
from pgnode.supervisor.routing.core_routing import Connect, RunningBase
from pgnode.supervisor.routing.rule_table import default_outbound
from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import shown
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.client.routing import RoutingApi
from pgnode.xray.proto import network_pb2, routing_command_pb2

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: What the latency answer names as its source.
LATENCY_SOURCE: Final = "xray-observatory"

#: Parts of a config that observe outbounds.
_OBSERVATORIES: Final = frozenset({"observatory", "burstObservatory"})

#: Seconds that the core has to tell the delays for a scrape.
DELAYS_SECONDS: Final = 1.0

#: Seconds that the core has for an answer; the caller gives up not much later.
ANSWER_SECONDS: Final = 7.0

_NETWORKS: Final = {
    "": network_pb2.Unknown,
    "tcp": network_pb2.TCP,
    "udp": network_pb2.UDP,
    "unix": network_pb2.UNIX,
}
_NETWORK_NAMES: Final = {number: name for name, number in _NETWORKS.items()}


class RoutingQueries:
    """Answers them. Belongs to the supervisor's loop.

    Args:
        settings: Time limits.
        core: The core's process.
        running_base: Returns the config that runs.
        routed_base: The same, where it is one whose routing callers may ask about.
        connect: Makes the client for the core's API.
    """

    def __init__(
        self,
        settings: Settings,
        core: CoreController,
        running_base: RunningBase,
        *,
        routed_base: RunningBase,
        connect: Connect = RoutingApi,
    ) -> None:
        self._connect = connect
        self._limit_seconds = min(settings.core_call_timeout_seconds, ANSWER_SECONDS)
        self._core = core
        self._running_base = running_base
        self._routed_base = routed_base
        self.handlers: dict[Kind, Handler] = {
            Kind.LIST_RULES: self._list,
            Kind.BALANCER_INFO: self._balancer,
            Kind.TEST_ROUTE: self._test,
            Kind.LATENCY: self._latency,
        }

    def __repr__(self) -> str:
        return f"RoutingQueries({self._core!r})"

    def _api(self) -> RoutingApi:
        if self._core.api is None:
            raise CoreNotStartedError
        return self._connect(self._core.api.channel, self._limit_seconds)

    async def _list(self, _command: Command) -> bytes:
        self._routed_base()
        try:
            rules = await self._api().rules()
        except CoreApiError as error:
            raise CoreUnavailableError(f"failed to list routing rules: {error}") from None
        return pb.RoutingRulesResponse(
            rules=[pb.RoutingRule(outbound_tag=rule.outbound, rule_tag=rule.tag) for rule in rules]
        ).SerializeToString()

    async def _balancer(self, command: Command) -> bytes:
        self._routed_base()
        tag = pb.BalancerInfoRequest.FromString(command.body).tag
        require(tag, "tag", "name a balancer")
        try:
            found = await self._api().balancer(tag)
        except CoreApiError as error:
            raise CoreUnavailableError(f"failed to get balancer info: {error}") from None
        if found is None:
            raise NotFoundError(f"balancer {shown(tag)} not found.")
        return pb.BalancerInfoResponse(
            override_target=found.override, principle_target=found.principal
        ).SerializeToString()

    async def _test(self, command: Command) -> bytes:
        base = self._routed_base()
        request = pb.TestRouteRequest.FromString(command.body)
        context = route_context(request)
        try:
            found = await self._api().test_route(context, request.field_selectors, publish=request.publish_result)
        except CoreApiError as error:
            raise CoreUnavailableError(f"failed to test the route: {error.reason}") from None
        if found is None:
            context.OutboundTag = default_outbound(base)
            found = _selected(context, request.field_selectors)
        return pb.RouteResult(
            outbound_tag=found.OutboundTag,
            outbound_group_tags=found.OutboundGroupTags,
            inbound_tag=found.InboundTag,
            network=_NETWORK_NAMES.get(found.Network, ""),
            target_domain=found.TargetDomain,
        ).SerializeToString()

    async def delays(self) -> dict[str, float]:
        """Return what the core's observatory measured of outbounds that answer: tag -> seconds.

        Returns:
            The delays of TAGS_MAX outbounds at most; none without an observatory, or where the core does not answer at once.
        """
        try:
            base = self._running_base()
            if not _OBSERVATORIES.intersection(base.document):
                return {}
            async with asyncio.timeout(DELAYS_SECONDS):
                statuses = await self._api().observed()
        except (NodeError, CoreApiError, TimeoutError):
            return {}
        found = {
            status.outbound_tag: status.delay / 1000
            for status in statuses
            if status.alive and status.outbound_tag not in base.observed_outbound_exclusions
        }
        return dict(sorted(found.items())[:TAGS_MAX])

    async def _latency(self, command: Command) -> bytes:
        base = self._running_base()
        name = pb.LatencyRequest.FromString(command.body).name
        try:
            statuses = await self._api().observed()
        except CoreApiError as error:
            raise CoreUnavailableError(f"failed to get outbounds latency: {error}") from None
        latencies = [
            pb.Latency(
                name=status.outbound_tag,
                alive=status.alive,
                delay=status.delay,
                last_seen_time=status.last_seen_time,
                last_try_time=status.last_try_time,
                source=LATENCY_SOURCE,
            )
            for status in statuses
            if status.outbound_tag not in base.observed_outbound_exclusions
        ]
        if not latencies:
            raise UnavailableError("xray outbound latency is not available")
        if name:
            latencies = [latency for latency in latencies if latency.name == name]
            if not latencies:
                raise NotFoundError(f"latency of outbound {shown(name)} not found.")
        return pb.LatencyResponse(latencies=latencies).SerializeToString()


def route_context(request: pb.TestRouteRequest) -> routing_command_pb2.RoutingContext:
    """Return the connection that a caller asks about, as the core's message. Raises InvalidRequestError."""
    network = _NETWORKS.get(request.network.strip().lower())
    if network is None:
        known = ", ".join(name for name in _NETWORKS if name)
        raise InvalidRequestError(f"unknown network {shown(request.network)}; known are {known}")
    if request.target_port > 65535:
        raise InvalidRequestError(f"target_port {request.target_port} is no port (0 to 65535)")
    context = routing_command_pb2.RoutingContext(
        InboundTag=request.inbound_tag,
        Network=network,
        TargetPort=request.target_port,
        TargetDomain=request.target_domain,
        Protocol=request.protocol,
        User=request.user,
        Attributes=dict(request.attributes),
    )
    if request.target_ip:
        try:
            context.TargetIPs.append(ipaddress.ip_address(request.target_ip.strip()).packed)
        except ValueError:
            raise InvalidRequestError(f"target_ip {shown(request.target_ip)} is no IP address") from None
    return context


def _selected(
    context: routing_command_pb2.RoutingContext, selectors: Sequence[str]
) -> routing_command_pb2.RoutingContext:
    """Return what the core would have said of a route that it did not choose; a selector is the beginning of a field's name."""

    def wanted(field: str) -> bool:
        return not selectors or any(field.startswith(selector) for selector in selectors)

    return routing_command_pb2.RoutingContext(
        OutboundTag=context.OutboundTag if wanted("outbound") else "",
        InboundTag=context.InboundTag if wanted("inbound") else "",
        Network=context.Network if wanted("network") else network_pb2.Unknown,
        TargetDomain=context.TargetDomain if wanted("domain") else "",
    )
