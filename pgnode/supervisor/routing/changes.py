"""Changes of rules and balancers, which are desired state.

A change is planned on the desired rules, given to the core, and only then desired; what the core refuses leaves everything as it
was. Called with the node's turn held.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from pgnode.bus.commands import Command, Kind
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    InvalidRequestError,
    NodeError,
    NotFoundError,
    UnsupportedError,
)
from pgnode.settings import Settings
from pgnode.store.changes import Journal
from pgnode.store.state import StoredState
from pgnode.supervisor.commands.dispatcher import Handler
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.routing.rule_table import (
    RuleTable,
    balancer_tags,
    outbound_tags,
    tagged,
)
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.routing import RoutingApi, takes_rules
from pgnode.xray.config import geo_refs as geo
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.proto import router_pb2
from pgnode.xray.rules.compile import Rule, compile_rule, needs_trial, parse_rule

log = structlog.get_logger(__name__)

#: Seconds until it is tried again to bring a core's routing in order that did not answer.
REPAIR_SECONDS: Final = 2.0

#: Ids of changes that were done, kept in case they are delivered again because they could not be stored.
_DONE_MAX: Final = 256

#: What the store says of them.
TAKEN_KIND: Final = "routing"


class Routing:
    """Owns the table of rules. Belongs to the supervisor's loop.

    ``running_base`` gives the config that runs, or raises the UnavailableError of the node's state. ``turn`` is held by whoever
    changes the core.
    """

    def __init__(
        self,
        settings: Settings,
        core: CoreController,
        journal: Journal,
        turn: asyncio.Lock,
        running_base: Callable[[], BaseConfig],
    ) -> None:
        self._settings = settings
        self._core = core
        self._journal = journal
        self._turn = turn
        self._running_base = running_base
        self.table = RuleTable(journal)
        #: The core may have something else than is desired: a call failed, and nobody knows whether it acted on it.
        self._uncertain = False
        self._repairing: asyncio.Task[None] | None = None
        self._done: OrderedDict[str, None] = OrderedDict()
        self.changes: dict[Kind, Handler] = {
            Kind.ADD_RULE: self._once(self._add),
            Kind.REMOVE_RULE: self._once(self._remove),
            Kind.OVERRIDE_BALANCER: self._once(self._override),
        }

    def __repr__(self) -> str:
        return f"Routing({self.table!r}{', uncertain' if self._uncertain else ''})"

    def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left."""
        self.table.restore(stored.routing)
        self._done.update((command, None) for command, kind in stored.taken.items() if kind == TAKEN_KIND)

    # --- the life of the core -----------------------------------------------------------------------------------

    async def core_started(self, base: BaseConfig) -> None:
        """A core, or its whole table, came up as ``table.effective(base)``: what a config cannot say is done now."""
        self.table.take_base(base)
        self._uncertain = False
        try:
            await self._fix_balancers(base)
        except NodeError as error:
            log.warning("balancers not fixed", error=error.text)
            self._doubt()

    async def _require_new_enough(self) -> None:
        version = await self._core.version()
        if not takes_rules(version):
            raise UnsupportedError(f"the core {version} is too old to be given rules while it runs: 26.4 is needed")

    async def _replace_table(self, base: BaseConfig) -> None:
        await self._require_new_enough()
        try:
            await self._api().add_rules(await asyncio.to_thread(self.table.whole, base), append=False)
        except CoreApiError as error:
            raise CoreUnavailableError(f"failed to replace the routing rules: {error}") from None

    async def settle(self, base: BaseConfig, *, sure: bool) -> None:
        """Make a running core have what is desired of it with this base config. Raises NodeError.

        What was changed in another one is forgotten, in the core too. ``sure``: the core has what it lists, and its balancers
        are fixed as they should be if nothing has to be changed.
        """
        other = self.table.touched and not self.table.belongs_to(base)
        self.table.take_base(base)
        try:
            there = [(rule.outbound, rule.tag) for rule in await self._api().rules()]
        except CoreApiError as error:
            raise CoreUnavailableError(f"the routing rules are not known: {error}") from None
        as_desired = there == self.table.listed(base)
        if sure and as_desired and not other:
            return
        if other or self.table.changed(base) or not as_desired:
            await self._replace_table(base)
        await self._fix_balancers(base, all_of_them=True)
        self._uncertain = False

    async def _fix_balancers(self, base: BaseConfig, *, all_of_them: bool = False) -> None:
        wanted = dict(self.table.overrides(base))
        if all_of_them:
            wanted = {**dict.fromkeys(balancer_tags(base), ""), **wanted}
        for balancer, target in wanted.items():
            try:
                known = await self._api().override(balancer, target)
            except CoreApiError as error:
                raise CoreUnavailableError(f"failed to override balancer {balancer!r}: {error}") from None
            if not known:
                log.warning("a fixed balancer is not in the core", balancer=balancer)

    def _api(self) -> RoutingApi:
        if self._core.api is None:
            raise CoreNotStartedError
        return RoutingApi(self._core.api.channel, self._settings.core_call_timeout_seconds)

    # --- changes ------------------------------------------------------------------------------------------------

    def _once(self, work: Callable[[bytes, BaseConfig], Awaitable[None]]) -> Handler:
        """``work`` as a handler: not done again for a command that is delivered again, and never on top of a doubt."""

        async def do(command: Command) -> bytes:
            base = self._running_base()
            if command.id not in self._done:
                if self._uncertain:
                    await self.settle(base, sure=False)
                await work(command.body, base)
                self._done[command.id] = None
                self._journal.taken[command.id] = TAKEN_KIND
                if len(self._done) > _DONE_MAX:
                    self._journal.taken[self._done.popitem(last=False)[0]] = None
            return b""

        return do

    async def _add(self, body: bytes, base: BaseConfig) -> None:
        request = pb.AddRoutingRuleRequest.FromString(body)
        require(request.rule.strip(), "rule", "hold one Xray routing rule as JSON")
        await self._require_new_enough()
        rule = await asyncio.to_thread(self._readable, request.rule)
        rules = self.table.added(base, rule, reset=request.should_reset)
        if rules is None:
            return
        if needs_trial(rule):
            reason = await self._core.refusal(self.table.with_panel_rules(base, rules))
            if reason:
                log.warning("a routing rule was refused on trial", rule_tag=rule["ruleTag"], reason=reason)
                raise InvalidRequestError(
                    "rule: the core refuses it: a value in attrs is no regular expression as Go knows them"
                )
        if request.should_reset:
            wanted = await asyncio.to_thread(self.table.whole, base, rules)
        else:
            wanted = router_pb2.Config(rule=[compile_rule(rule)])
        await self._change(base, wanted, append=not request.should_reset)
        self.table.set_rules(base, rules)
        if request.should_reset:
            # The balancers are new as well.
            await self.core_started(base)
        log.info("routing rule added", rule_tag=rule["ruleTag"], reset=request.should_reset, rules=len(rules))

    def _readable(self, text: str) -> Rule:
        """The rule of a request, ready for the core. Raises InvalidRequestError."""
        rule = tagged(parse_rule(text))
        geo.replace_private(rule)
        missing = geo.missing_geo_files({"routing": rule}, self._settings.assets_dir)
        if missing is not None:
            raise InvalidRequestError(missing)
        return rule

    async def _change(self, base: BaseConfig, config: router_pb2.Config, *, append: bool) -> None:
        """Give the core rules; refused, it has what it had. Raises InvalidRequestError and CoreUnavailableError."""
        try:
            await self._api().add_rules(config, append=append)
        except CoreApiError as error:
            await self._put_back(base, error)
            if is_unanswered(error):
                raise CoreUnavailableError(f"failed to add the routing rule: {error}") from None
            raise InvalidRequestError(f"the core refuses the rule: {error.reason}") from None

    async def _put_back(self, base: BaseConfig, cause: CoreApiError) -> None:
        """After a failed change: what is desired is in force again, or will be soon."""
        if is_unanswered(cause):
            # Its caller has waited long enough.
            self._doubt()
            return
        try:
            await self.settle(base, sure=True)
        except NodeError as error:
            log.warning("the routing rules could not be put back", error=error.text, cause=str(cause))
            self._doubt()

    def _doubt(self) -> None:
        self._uncertain = True
        if self._repairing is None or self._repairing.done():
            self._repairing = asyncio.create_task(self._repair())

    async def _repair(self) -> None:
        """Make sure of the core's routing as soon as it answers, unless a change or a new core does before."""
        while self._uncertain:
            await asyncio.sleep(REPAIR_SECONDS)
            if self._core.api is None:
                return  # the next core starts with what is desired
            try:
                # First without the turn: a core that hangs holds up nobody else here.
                await self._api().rules()
                async with self._turn:
                    if self._uncertain:
                        await self.settle(self._running_base(), sure=False)
                        log.info("the core's routing is in order again")
            except (NodeError, CoreApiError) as error:
                log.debug("the core's routing is not in order yet", error=str(error))

    async def _remove(self, body: bytes, base: BaseConfig) -> None:
        tag = pb.RemoveRoutingRuleRequest.FromString(body).rule_tag
        require(tag, "rule_tag", "name a rule")
        rules = self.table.removed(base, tag)
        try:
            await self._api().remove_rule(tag)
        except CoreApiError as error:
            await self._put_back(base, error)
            raise CoreUnavailableError(f"failed to remove the routing rule: {error}") from None
        self.table.set_rules(base, rules)
        log.info("routing rule removed", rule_tag=tag, rules=len(rules))

    async def _override(self, body: bytes, base: BaseConfig) -> None:
        request = pb.OverrideBalancerTargetRequest.FromString(body)
        balancer, target = request.balancer_tag, request.target
        require(balancer, "balancer_tag", "name a balancer")
        if target and target not in outbound_tags(base):
            raise NotFoundError(f"outbound '{target}' not found.")
        try:
            known = await self._api().override(balancer, target)
        except CoreApiError as error:
            await self._put_back(base, error)
            raise CoreUnavailableError(f"failed to override the balancer: {error}") from None
        if not known:
            raise NotFoundError(f"balancer '{balancer}' not found.")
        self.table.set_override(base, balancer, target)
        log.info("balancer fixed" if target else "balancer chooses again", balancer=balancer, target=target)


def is_unanswered(error: CoreApiError) -> bool:
    """Nobody knows whether the core acted on the call."""
    return error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.DEADLINE)


def require(value: str, field: str, what: str) -> None:
    """A field of a message that must not be empty. Raises InvalidRequestError."""
    if not value:
        raise InvalidRequestError(f"empty {field}: it must {what}")
