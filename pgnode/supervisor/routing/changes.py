"""Changes of rules and balancers that callers ask for; they are desired state.

A change is planned on the desired rules, given to the core, and becomes desired only then. If the core refuses it, nothing
has changed. Called with the core lock held.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import structlog

from pgnode.bus.commands import Command, Kind
from pgnode.errors import CoreUnavailableError, InvalidRequestError, NotFoundError
from pgnode.store.changes import Journal
from pgnode.store.rows import TAKEN_ROUTING
from pgnode.store.state import StoredState
from pgnode.supervisor.commands.dispatcher import Handler
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.routing.core_routing import CoreRouting, RunningBase, is_unanswered
from pgnode.supervisor.routing.rule_table import outbound_tags, tagged
from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import shown
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config import geo_refs as geo
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.proto import router_pb2
from pgnode.xray.rules.compile import Rule, compile_rule, needs_trial, parse_rule

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Ids of changes that were done, kept in case they are delivered again because they could not be answered.
DONE_MAX: Final = 256


class RoutingChanges:
    """Does changes, one at a time. Belongs to the supervisor's loop.

    Args:
        settings: Where geo files are.
        core: Tries rules in a process of its own.
        routing: Owns the desired rules.
        journal: Where changes that were done are noted for the store.
        running_base: Returns the config that runs, where it is one whose routing callers may change.
    """

    def __init__(
        self,
        settings: Settings,
        core: CoreController,
        routing: CoreRouting,
        journal: Journal,
        running_base: RunningBase,
    ) -> None:
        self._settings = settings
        self._core = core
        self._routing = routing
        self._journal = journal
        self._running_base = running_base
        self._done: OrderedDict[str, None] = OrderedDict()
        self.handlers: dict[Kind, Handler] = {
            Kind.ADD_RULE: self._once(self._add),
            Kind.REMOVE_RULE: self._once(self._remove),
            Kind.OVERRIDE_BALANCER: self._once(self._override),
        }

    def __repr__(self) -> str:
        return f"RoutingChanges({self._routing!r}, {len(self._done)} done)"

    def restore(self, stored: StoredState) -> None:
        """Take over which changes an earlier supervisor did."""
        self._done.update((command, None) for command, kind in stored.taken.items() if kind == TAKEN_ROUTING)

    def _once(self, work: Callable[[bytes, BaseConfig], Awaitable[None]]) -> Handler:
        """Make a handler that does a command only once, and never while the core's routing is uncertain."""

        async def do(command: Command) -> bytes:
            base = self._running_base()
            if command.id not in self._done:
                if self._routing.is_uncertain:
                    await self._routing.reconcile(base, listing_is_enough=False)
                await work(command.body, base)
                self._note_done(command.id)
            return b""

        return do

    def _note_done(self, command_id: str) -> None:
        self._done[command_id] = None
        self._journal.taken[command_id] = TAKEN_ROUTING
        if len(self._done) > DONE_MAX:
            oldest, _ = self._done.popitem(last=False)
            self._journal.taken[oldest] = None

    # --- rules ----------------------------------------------------------------------------------------------------

    async def _add(self, body: bytes, base: BaseConfig) -> None:
        request, table = pb.AddRoutingRuleRequest.FromString(body), self._routing.table
        require(request.rule.strip(), "rule", "hold one Xray routing rule as JSON")
        await self._routing.require_new_enough()
        rule = await asyncio.to_thread(self._read, request.rule)
        rules = table.added(base, rule, reset=request.should_reset)
        if rules is None:
            return
        if needs_trial(rule):
            await self._try(rule, table.with_panel_rules(base, rules))
        if request.should_reset:
            wanted = await asyncio.to_thread(table.compile_all, base, rules)
        else:
            wanted = router_pb2.Config(rule=[compile_rule(rule)])
        await self._give(base, wanted, append=not request.should_reset)
        table.set_rules(base, rules)
        if request.should_reset:
            # The balancers are new as well.
            await self._routing.core_started(base)
        log.info("routing rule added", rule_tag=rule["ruleTag"], reset=request.should_reset, rules=len(rules))

    def _read(self, text: str) -> Rule:
        """Read the rule of a request, and compile it for the core. Raises InvalidRequestError."""
        rule = tagged(parse_rule(text))
        geo.replace_private(rule)
        missing = geo.missing_geo_files({"routing": rule}, self._settings.assets_dir)
        if missing is not None:
            raise InvalidRequestError(missing)
        return rule

    async def _try(self, rule: Rule, base: BaseConfig) -> None:
        """Let a process of its own try a rule that could end the core. Raises InvalidRequestError."""
        reason = await self._core.refusal(base)
        if reason:
            # The process that tried it has ended over it; what counts is its last word.
            log.warning(
                "a routing rule was refused on trial", rule_tag=rule["ruleTag"], reason=reason.rpartition("panic: ")[2]
            )
            raise InvalidRequestError(
                "rule: the core refuses it: a value in attrs is no regular expression as Go knows them"
            )

    async def _give(self, base: BaseConfig, config: router_pb2.Config, *, append: bool) -> None:
        """Send rules to the core; if it refuses them, it keeps its own. Raises InvalidRequestError and CoreUnavailableError."""
        try:
            await self._routing.api().add_rules(config, append=append)
        except CoreApiError as error:
            await self._routing.after_failure(base, error)
            if is_unanswered(error):
                raise CoreUnavailableError(f"failed to add the routing rule: {error}") from None
            raise InvalidRequestError(f"the core refuses the rule: {error.reason}") from None

    async def _remove(self, body: bytes, base: BaseConfig) -> None:
        tag = pb.RemoveRoutingRuleRequest.FromString(body).rule_tag
        require(tag, "rule_tag", "name a rule")
        rules = self._routing.table.removed(base, tag)
        try:
            await self._routing.api().remove_rule(tag)
        except CoreApiError as error:
            await self._routing.after_failure(base, error)
            raise CoreUnavailableError(f"failed to remove the routing rule: {error}") from None
        self._routing.table.set_rules(base, rules)
        log.info("routing rule removed", rule_tag=tag, rules=len(rules))

    # --- balancers ------------------------------------------------------------------------------------------------

    async def _override(self, body: bytes, base: BaseConfig) -> None:
        request = pb.OverrideBalancerTargetRequest.FromString(body)
        balancer, target = request.balancer_tag, request.target
        require(balancer, "balancer_tag", "name a balancer")
        if target and target not in outbound_tags(base):
            raise NotFoundError(f"outbound {shown(target)} not found.")
        try:
            known = await self._routing.api().override(balancer, target)
        except CoreApiError as error:
            await self._routing.after_failure(base, error)
            raise CoreUnavailableError(f"failed to override the balancer: {error}") from None
        if not known:
            raise NotFoundError(f"balancer {shown(balancer)} not found.")
        self._routing.table.set_override(base, balancer, target)
        log.info("balancer fixed" if target else "balancer chooses again", balancer=balancer, target=target)


def require(value: str, field: str, what: str) -> None:
    """Make sure that a field of a message is not empty. Raises InvalidRequestError."""
    if not value:
        raise InvalidRequestError(f"empty {field}: it must {what}")
