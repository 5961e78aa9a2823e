"""A core's routing in memory, and the room around it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

from pgnode.bus.commands import Command, Kind
from pgnode.store.changes import Journal
from pgnode.supervisor.routing.changes import RoutingChanges
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.routing.queries import RoutingQueries
from pgnode.supervisor.routing.rule_table import RuleTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.routing import Balancer, ListedRule
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.proto import observatory_pb2, router_pb2, routing_command_pb2
from tests.support.polling import pause
from tests.unit.supervisor.routing.test_rule_table import BASE

REFUSED = CoreApiError("app/router: no", ErrorKind.REFUSED)
SILENT = CoreApiError("Deadline Exceeded", ErrorKind.DEADLINE)


class ModelCore:
    """Rules and overrides of a core. Each call takes the next of ``errors``, if there is one; an early core loses its table."""

    def __init__(self) -> None:
        self.rules_there = [ListedRule(outbound, tag) for outbound, tag in RuleTable(Journal()).listed(BASE)]
        self.overrides: dict[str, str] = {}
        self.errors: list[CoreApiError] = []
        #: What listing fails with.
        self.list_error: CoreApiError | None = None
        self.acts_all_the_same = False
        self.is_early = False
        self.replaced = 0
        self.published = False
        self.observed_tags: list[str] = []

    def _fail(self) -> CoreApiError | None:
        return self.errors.pop(0) if self.errors else None

    async def rules(self) -> list[ListedRule]:
        if self.list_error is not None:
            raise self.list_error
        return list(self.rules_there)

    async def add_rules(self, config: router_pb2.Config, *, append: bool) -> None:
        error = self._fail()
        if error is not None and not self.acts_all_the_same:
            if self.is_early and not append:
                self.rules_there = []
            raise error
        new = [ListedRule(rule.tag, rule.rule_tag) for rule in config.rule]
        self.replaced += not append
        self.rules_there = [*self.rules_there, *new] if append else new
        if not append:
            self.overrides = {}
        if error is not None:
            raise error

    async def remove_rule(self, tag: str) -> None:
        if (error := self._fail()) is not None:
            raise error
        self.rules_there = [rule for rule in self.rules_there if rule.tag != tag]

    async def override(self, balancer: str, target: str) -> bool:
        if (error := self._fail()) is not None:
            raise error
        self.overrides[balancer] = target
        return balancer == "bal"

    async def balancer(self, tag: str) -> Balancer | None:
        if (error := self._fail()) is not None:
            raise error
        return Balancer(self.overrides.get(tag, ""), ("DIRECT",)) if tag == "bal" else None

    async def test_route(
        self, context: routing_command_pb2.RoutingContext, selectors: object, *, publish: bool
    ) -> routing_command_pb2.RoutingContext | None:
        if (error := self._fail()) is not None:
            raise error
        assert selectors is not None
        self.published = publish
        if context.TargetDomain != "a.example":
            return None
        return routing_command_pb2.RoutingContext(OutboundTag="DIRECT", Network=context.Network)

    async def observed(self) -> list[observatory_pb2.OutboundStatus]:
        if (error := self._fail()) is not None:
            raise error
        return [observatory_pb2.OutboundStatus(outbound_tag=tag, alive=True, delay=12) for tag in self.observed_tags]

    def tags(self) -> list[str]:
        return [rule.tag for rule in self.rules_there[1:]]


class Stage:
    def __init__(self) -> None:
        self.core = ModelCore()
        self.base = BASE
        settings = SimpleNamespace(assets_dir=None, core_call_timeout_seconds=1.0)
        self.version = "26.10.10"

        async def version() -> str:
            return self.version

        async def refusal(_base: BaseConfig) -> str:
            return self.refusal

        #: What a trial says.
        self.refusal = ""
        self.journal = Journal()
        control = SimpleNamespace(api=SimpleNamespace(channel=object()), version=version, refusal=refusal)
        self.control = control
        self.routing = CoreRouting(
            cast(Any, settings),
            cast(Any, control),
            self.journal,
            asyncio.Lock(),
            lambda: self.base,
            connect=lambda _channel, _limit: cast(Any, self.core),
            sleep=lambda _seconds: pause(),
        )
        self.changes = RoutingChanges(
            cast(Any, settings), cast(Any, control), self.routing, self.journal, lambda: self.base
        )
        self.queries = RoutingQueries(
            cast(Any, settings),
            cast(Any, control),
            lambda: self.base,
            routed_base=lambda: self.base,
            connect=lambda _channel, _limit: cast(Any, self.core),
        )
        self.routing.table.adopt_base(BASE)
        self._number = 0

    async def do(self, kind: Kind, message: Any, command_id: str = "") -> None:
        self._number += 1
        command = Command("0-1", command_id or str(self._number), kind, "w", 1000, message.SerializeToString())
        assert await self.changes.handlers[kind](command) == b""

    async def ask(self, kind: Kind, message: Any = None) -> bytes:
        body = message.SerializeToString() if message is not None else b""
        answer = await self.queries.handlers[kind](Command("0-1", "q", kind, "w", 1000, body))
        assert isinstance(answer, bytes)
        return answer

    async def add(self, rule: dict[str, Any], *, reset: bool = False) -> None:
        await self.do(Kind.ADD_RULE, pb.AddRoutingRuleRequest(rule=json.dumps(rule), should_reset=reset))

    async def override(self, target: str) -> None:
        await self.do(Kind.OVERRIDE_BALANCER, pb.OverrideBalancerTargetRequest(balancer_tag="bal", target=target))
