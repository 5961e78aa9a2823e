"""Client of the core's RoutingService and ObservatoryService: rules, balancers, routes, and what was observed.

How Xray 26.10.10 behaves, measured (tests/integration/xray/test_routing_core.py keeps it true):

* A config without ``routing`` has no router: every call fails with "not enough information for making a decision". An empty
  ``routing`` is enough.
* AddRule builds the new table aside and then puts it in place: refused, it changes nothing. Earlier cores empty the table first.
  Without append it replaces rules **and** balancers; the latter forget their overrides then.
* A ruleTag that is there is refused ("duplicate ruleTag"); rules without one may be many, and none of them can be removed.
  Removing an unknown ruleTag is no error.
* A rule may point to an outbound that is not there; a balancer that is not there is refused.
* An override is not checked: it may name an outbound that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pgnode.xray.client.channel import CoreChannel, decode_answer
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.proto import (
    observatory_command_pb2,
    observatory_pb2,
    router_pb2,
    routing_command_pb2,
    typed_message_pb2,
)

_ROUTING: Final = "/xray.app.router.command.RoutingService/"
_OBSERVATORY: Final = "/xray.core.app.observatory.command.ObservatoryService/"

#: The core's sentence for a connection that no rule matches.
_NO_RULE: Final = "not enough information for making a decision"
#: Its sentence for a balancer that it does not have.
_NO_BALANCER: Final = "cannot find tag"
#: gRPC's sentence for the observatory of a core that has none.
_NO_SERVICE: Final = "unknown service"


#: The first release whose rules name geo data (PyPI ``python-xray-api``, 26.3.27 beside 26.4.13). An earlier one takes the
#: same message for another rule, and says nothing.
FIRST_RELEASE: Final = (26, 4)


def takes_rules(version: str) -> bool:
    """Whether a core of this version ("26.10.10") understands the rules of :meth:`RoutingApi.add_rules`."""
    numbers = re.match(r"(\d+)\.(\d+)\.", version)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= FIRST_RELEASE


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule as the core lists it: no more than this is told. ``outbound`` is empty where a balancer chooses."""

    outbound: str
    tag: str


@dataclass(frozen=True, slots=True)
class Balancer:
    """``override`` is the target it is fixed to, or empty; ``principal`` what its strategy would choose from, best first."""

    override: str
    principal: tuple[str, ...]


class RoutingApi:
    """Calls on one running core. Every method may raise CoreApiError; every call ends within ``deadline_seconds``."""

    def __init__(self, channel: CoreChannel, deadline_seconds: float) -> None:
        self._channel = channel
        self._deadline_seconds = deadline_seconds

    def __repr__(self) -> str:
        return f"<RoutingApi {self._channel!r}>"

    async def _call(self, path: str, request: bytes) -> bytes:
        return await self._channel.call(path, request, self._deadline_seconds)

    async def rules(self) -> list[ListedRule]:
        """List all rules, in their order."""
        answer = decode_answer(routing_command_pb2.ListRuleResponse, await self._call(_ROUTING + "ListRule", b""))
        return [ListedRule(item.tag, item.ruleTag) for item in answer.rules]

    async def add_rules(self, config: router_pb2.Config, *, append: bool) -> None:
        """Append rules and balancers, or put these in the place of all.

        Only messages of :mod:`pgnode.xray.rules.compile`, and only to a core that :func:`takes_rules`.
        """
        typed = typed_message_pb2.TypedMessage(
            type=config.DESCRIPTOR.full_name, value=config.SerializeToString(deterministic=True)
        )
        request = routing_command_pb2.AddRuleRequest(config=typed, shouldAppend=append)
        await self._call(_ROUTING + "AddRule", request.SerializeToString())

    async def remove_rule(self, rule_tag: str) -> None:
        """Remove the rule of this tag; an unknown tag is no error, an empty one is."""
        request = routing_command_pb2.RemoveRuleRequest(ruleTag=rule_tag)
        await self._call(_ROUTING + "RemoveRule", request.SerializeToString())

    async def balancer(self, tag: str) -> Balancer | None:
        """Read a balancer's state; None when there is none of this tag."""
        request = routing_command_pb2.GetBalancerInfoRequest(tag=tag).SerializeToString()
        try:
            answer = await self._call(_ROUTING + "GetBalancerInfo", request)
        except CoreApiError as error:
            if error.kind is ErrorKind.REFUSED and _NO_BALANCER in str(error):
                return None
            raise
        found = decode_answer(routing_command_pb2.GetBalancerInfoResponse, answer).balancer
        # A strategy that knows nothing yet names one outbound without a name.
        return Balancer(found.override.target, tuple(tag for tag in found.principle_target.tag if tag))

    async def override(self, balancer: str, target: str) -> bool:
        """Fix a balancer to ``target``; "" ends that. False when there is no such balancer."""
        request = routing_command_pb2.OverrideBalancerTargetRequest(balancerTag=balancer, target=target)
        try:
            await self._call(_ROUTING + "OverrideBalancerTarget", request.SerializeToString())
        except CoreApiError as error:
            if error.kind is ErrorKind.REFUSED and _NO_BALANCER in str(error):
                return False
            raise
        return True

    async def test_route(
        self, context: routing_command_pb2.RoutingContext, selectors: Sequence[str] = (), *, publish: bool = False
    ) -> routing_command_pb2.RoutingContext | None:
        """Ask where a connection would go; None when no rule matches it: then it goes to the first outbound.

        The core may have to resolve the domain for this, by the config's domainStrategy.
        """
        request = routing_command_pb2.TestRouteRequest(
            RoutingContext=context, FieldSelectors=selectors, PublishResult=publish
        )
        try:
            answer = await self._call(_ROUTING + "TestRoute", request.SerializeToString(deterministic=True))
        except CoreApiError as error:
            if _NO_RULE in str(error):
                return None
            raise
        return decode_answer(routing_command_pb2.RoutingContext, answer)

    async def observed(self) -> list[observatory_pb2.OutboundStatus]:
        """Read what the observatory knows of outbounds that it has probed; empty without an observatory."""
        try:
            answer = await self._call(_OBSERVATORY + "GetOutboundStatus", b"")
        except CoreApiError as error:
            if _NO_SERVICE in str(error):
                return []
            raise
        return list(decode_answer(observatory_command_pb2.GetOutboundStatusResponse, answer).status.status)
