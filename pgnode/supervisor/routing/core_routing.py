"""Keeps the running core's routing as desired: after a start, after a hot change, and after a call that failed.

Called with the core lock held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from pgnode.errors import CoreNotStartedError, CoreUnavailableError, NodeError, UnsupportedError
from pgnode.store.changes import Journal
from pgnode.store.state import StoredState
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.routing.rule_table import RuleTable, balancer_tags
from pgnode.wire.texts import shown
from pgnode.xray.client.channel import CoreChannel
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.routing import RoutingApi, takes_rules
from pgnode.xray.config.document import BaseConfig

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds until it is tried again to repair the routing of a core that did not answer.
REPAIR_SECONDS: Final = 2.0

#: Makes the client for a core's routing.
Connect = Callable[[CoreChannel, float], RoutingApi]


class RunningBase(Protocol):
    """Knows what runs."""

    def __call__(self) -> BaseConfig:
        """Return the config that runs. Raises the UnavailableError of the node's state where none does."""


class CoreRouting:
    """Owns the desired rules, and gives them to the core. Belongs to the supervisor's loop.

    Args:
        settings: Time limits.
        core: The core's process.
        journal: Where changes of the desired rules are noted for the store.
        core_lock: Held by whoever changes the core.
        running_base: Returns the config that runs.
        connect: Makes the client for the core's API.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        settings: Settings,
        core: CoreController,
        journal: Journal,
        core_lock: asyncio.Lock,
        running_base: RunningBase,
        *,
        connect: Connect = RoutingApi,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._core = core
        self._core_lock = core_lock
        self._running_base = running_base
        self._connect = connect
        self._sleep = sleep
        self.table = RuleTable(journal)
        #: The core may have something else than is desired: a call failed, and nobody knows whether it acted on it.
        self._uncertain = False
        self._repairing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"CoreRouting({self.table!r}{', uncertain' if self._uncertain else ''})"

    @property
    def is_uncertain(self) -> bool:
        """Whether the core may have something else than is desired."""
        return self._uncertain

    def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left; what of it is damaged is forgotten."""
        try:
            self.table.restore(stored.routing)
        except ValueError as error:
            log.error("the stored changes of the routing are damaged: the config's own rules apply", error=str(error))

    def forget(self) -> None:
        """Forget all changes: only the config's rules are desired."""
        self.table.forget()

    def api(self) -> RoutingApi:
        """Make the client for the core that runs.

        Returns:
            The client.

        Raises:
            CoreNotStartedError: None runs.
        """
        if self._core.api is None:
            raise CoreNotStartedError
        return self._connect(self._core.api.channel, self._settings.core_call_timeout_seconds)

    async def require_new_enough(self) -> None:
        """Make sure that the core can be given rules.

        Raises:
            UnsupportedError: It is too old, and would misread a rule.
        """
        version = await self._core.version()
        if not takes_rules(version):
            raise UnsupportedError(f"the core {version} is too old to be given rules while it runs: 26.4 is needed")

    async def core_started(self, base: BaseConfig) -> None:
        """Apply what a config cannot hold, after a core or a whole table was set to ``table.effective(base)``."""
        self.table.adopt_base(base)
        self._uncertain = False
        try:
            await self._fix_balancers(self.table.overrides(base))
        except NodeError as error:
            log.warning("balancers not fixed", error=error.text)
            self.mark_uncertain()

    async def reconcile(self, base: BaseConfig, *, listing_is_enough: bool) -> None:
        """Give the running core the routing that is desired with this base config.

        Changes of another config are forgotten, in the core too.

        Args:
            base: The config that runs.
            listing_is_enough: The core has what it lists, and its balancers are fixed as they should be if the list is as
                desired.

        Raises:
            NodeError: The core does not answer, or is too old.
        """
        other = self.table.touched and not self.table.belongs_to(base)
        self.table.adopt_base(base)
        try:
            there = [(rule.outbound, rule.tag) for rule in await self.api().rules()]
        except CoreApiError as error:
            raise CoreUnavailableError(f"the routing rules are not known: {error}") from None
        as_desired = there == self.table.listed(base)
        if listing_is_enough and as_desired and not other:
            return
        if other or self.table.changed(base) or not as_desired:
            await self._replace_all(base)
        await self._fix_balancers({**dict.fromkeys(balancer_tags(base), ""), **self.table.overrides(base)})
        self._uncertain = False

    async def after_failure(self, base: BaseConfig, cause: CoreApiError) -> None:
        """Restore the desired routing after a change that failed, now or soon."""
        if is_unanswered(cause):
            # Its caller has waited long enough.
            self.mark_uncertain()
            return
        try:
            await self.reconcile(base, listing_is_enough=True)
        except NodeError as error:
            log.warning("the routing rules could not be put back", error=error.text, cause=str(cause))
            self.mark_uncertain()

    def mark_uncertain(self) -> None:
        """Note that the core may have other rules than desired; that is repaired as soon as it answers."""
        self._uncertain = True
        if self._repairing is None or self._repairing.done():
            self._repairing = asyncio.create_task(self._repair())

    async def _replace_all(self, base: BaseConfig) -> None:
        await self.require_new_enough()
        try:
            await self.api().add_rules(await asyncio.to_thread(self.table.compile_all, base), append=False)
        except CoreApiError as error:
            raise CoreUnavailableError(f"failed to replace the routing rules: {error}") from None

    async def _fix_balancers(self, wanted: dict[str, str]) -> None:
        for balancer, target in wanted.items():
            try:
                known = await self.api().override(balancer, target)
            except CoreApiError as error:
                raise CoreUnavailableError(f"failed to override balancer {shown(balancer)}: {error}") from None
            if not known:
                log.warning("a fixed balancer is not in the core", balancer=balancer)

    async def _repair(self) -> None:
        """Repair the core's routing as soon as it answers, unless a change or a new core does so before."""
        while self._uncertain:
            await self._sleep(REPAIR_SECONDS)
            if self._core.api is None:
                return  # the next core starts with what is desired
            try:
                # First without the lock, so that a core that hangs delays nobody else.
                await self.api().rules()
                async with self._core_lock:
                    if self._uncertain:
                        await self.reconcile(self._running_base(), listing_is_enough=False)
                        log.info("the core's routing was repaired")
            except (NodeError, CoreApiError) as error:
                log.debug("the core's routing is not repaired yet", error=str(error))


def is_unanswered(error: CoreApiError) -> bool:
    """Return whether nobody knows if the core acted on the call."""
    return error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.DEADLINE)
