"""A drain: no new connections of users, while those there are go on; for a restart or an end of the node that cuts nobody.

Inbounds whose connections outlive them are out of the core meanwhile. Which these are is worked out anew each time, from what
is asked for, what the core runs and what it lists (:meth:`Drain.settle`), so an inbound that is missing for whatever reason
comes back by itself. It comes back with everybody who is desired then.

The order is in the store: a supervisor that takes the core over goes on with it. One that finds no core forgets it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from pgnode.errors import CoreUnavailableError, NodeError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.clock import Clock
from pgnode.os_support.fault_points import async_fault_point
from pgnode.store.changes import Journal
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle.drain_plan import DrainOrder, DrainPlan, plan_drain
from pgnode.supervisor.lifecycle.hot_change import Prepare, add_with_users, user_messages
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.users.core_users import accounts_by_tag
from pgnode.supervisor.users.sync import UserSync
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.inbounds import without_users
from pgnode.xray.config.diff import ConfigDiff, Decision, StartStrategy
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.proto import core_pb2

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds until something is tried again that the core did not do.
RETRY_SECONDS: Final = 5.0

#: What is said of a node that is being drained.
DRAINING: Final = "the node is being drained"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a drain is told of the node, and how it tells others."""

    #: What the core runs that is there; None where there is none.
    core_spec: Callable[[], RunSpec | None]
    #: Writes the journal to the store.
    commit: Callable[[], Awaitable[object]]
    #: Tells the workers the state of the node.
    publish: Callable[[], Awaitable[object]]
    #: Makes the plan of a hot change.
    prepare: Prepare
    #: Unix seconds.
    now: Callable[[], float] = time.time
    #: For pauses.
    clock: Clock = field(default_factory=Clock)


class Drain:
    """Belongs to the supervisor's loop.

    Args:
        settings: Time limits.
        core: The core's process.
        users: Desired users, and the users in the core.
        journal: Where the order is noted for the store.
        core_lock: Held by whoever changes the core.
        surroundings: The rest of the node.
    """

    def __init__(
        self,
        settings: Settings,
        core: CoreController,
        users: UserSync,
        journal: Journal,
        *,
        core_lock: asyncio.Lock,
        surroundings: Surroundings,
    ) -> None:
        self._limit_seconds = settings.core_call_timeout_seconds
        self._settings = settings
        self._core = core
        self._users = users
        self._journal = journal
        self._core_lock = core_lock
        self._node = surroundings
        self._clock = surroundings.clock
        self._order: DrainOrder | None = None
        #: When the order ends by itself, on a clock that nobody sets.
        self._ends_at: float | None = None
        #: Why the core has not what it should have; "" where it has.
        self.error = ""
        #: An inbound came back that the core did not tell of: what was changed meanwhile did not reach it.
        self._behind = False
        #: Something is to be done that nobody waits for.
        self._wake = asyncio.Event()

    def __repr__(self) -> str:
        return f"Drain({self._order}, away: {', '.join(self.away) or 'nothing'})"

    # --- what is asked ------------------------------------------------------------------------------------------------

    @property
    def order(self) -> DrainOrder | None:
        """What was asked for; None where the node is not being drained."""
        return self._order

    @property
    def away(self) -> list[str]:
        """Tags of the inbounds that are out of the core."""
        api = self._core.api
        return sorted(api.inbounds.away) if api is not None else []

    @property
    def reason(self) -> str:
        """Why nobody new should be sent to this node; "" where that is not so."""
        if self._order is not None:
            return DRAINING
        if self.error and self.away:
            return f"inbounds are not back after a drain: {', '.join(self.away)} ({self.error})"
        return ""

    def plan(self) -> DrainPlan:
        """Return what a drain takes out of the core that is there; nothing where there is none, or none that is known."""
        spec = self._node.core_spec()
        return plan_drain(spec.base) if spec is not None and spec.known else DrainPlan((), {})

    # --- what an operator wants ---------------------------------------------------------------------------------------

    async def begin(self, seconds: float | None, *, hold: bool) -> None:
        """Drain the node; this is said before anything is done.

        Args:
            seconds: For how long; None: until it is ended.
            hold: Go on over starts by the panel.
        """
        now = self._node.now()
        self._put(DrainOrder(now, None if seconds is None else now + seconds, hold))
        log.info(DRAINING, audit="node", seconds=seconds, hold=hold)
        await self._node.publish()
        await self._carry_out()

    async def cancel(self, why: str = "an operator ended it") -> bool:
        """End the drain: what was taken out comes back.

        Args:
            why: For the log.

        Returns:
            Whether there was one.
        """
        ended = self.end(why)
        await self._carry_out()
        return ended

    async def run(self) -> None:
        """End a drain when its time is over, and try again what the core did not do; until cancelled."""
        while True:
            await self._wait()
            self._wake.clear()
            if self._ends_at is not None and self._ends_at <= self._clock.now():
                await self.cancel("its time is over")
                continue
            await self._carry_out()

    async def _carry_out(self) -> None:
        """Do what is asked for. A supervisor that is killed meanwhile leaves it to the next one."""
        async with self._core_lock:
            await self._node.commit()
            await self.settle()
        await self._node.publish()

    async def _wait(self) -> None:
        """Wait until there is something to do."""
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(self._wake.wait())]
        pauses = [RETRY_SECONDS] if self.error else []
        if self._ends_at is not None:
            pauses.append(max(0.0, self._ends_at - self._clock.now()))
        if pauses:
            waiting.append(asyncio.create_task(self._clock.sleep(min(pauses))))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(waiting)

    # --- what happens to the node ---------------------------------------------------------------------------------------

    def restore(self, stored: str) -> None:
        """Take over what an earlier supervisor stored."""
        order = DrainOrder.decode(stored) if stored else None
        if order is None or order.seconds_left(self._node.now()) == 0:
            if stored:
                self._journal.meta["drain"] = None
            return
        self._take(order)
        log.info("the node goes on being drained", since=order.since, until=order.until, hold=order.hold)

    def started(self) -> None:
        """Note that a start by the panel passed its checks."""
        if self._order is not None and not self._order.hold:
            self.end("the panel started the node")

    def end(self, why: str) -> bool:
        """Note that nothing is drained any more; :meth:`settle` brings back what is away.

        Args:
            why: For the log.

        Returns:
            Whether there was a drain.
        """
        ended, self._order = self._order is not None, None
        self._ends_at = None
        if ended:
            log.info("the node is no longer drained", audit="node", because=why)
            self._journal.meta["drain"] = None
        self._wake.set()
        return ended

    def _put(self, order: DrainOrder) -> None:
        self._journal.meta["drain"] = order.encode()
        self._take(order)

    def _take(self, order: DrainOrder) -> None:
        self._order = order
        left = order.seconds_left(self._node.now())
        self._ends_at = None if left is None else self._clock.now() + left
        self._wake.set()

    # --- the core -------------------------------------------------------------------------------------------------------

    async def look(self, base: BaseConfig) -> None:
        """Find out which inbounds a core lacks that was taken over. The caller holds the core lock.

        Args:
            base: What it runs.

        Raises:
            CoreUnavailableError: It does not answer.
        """
        try:
            await self._look(self._api(), base)
        except CoreApiError as error:
            raise CoreUnavailableError(f"the inbounds of the core are not known: {error}") from None

    async def settle(self) -> None:
        """Give the core the inbounds that it is to have now; what fails is tried again. The caller holds the core lock."""
        before, self.error = self.error, ""
        try:
            await self._settle()
        except (NodeError, CoreApiError) as error:
            self.error = error.text if isinstance(error, NodeError) else str(error)
            if self.error != before:
                log.warning("inbounds are not as a drain wants them; trying again", error=self.error, away=self.away)
        except Exception as error:
            # Nobody waits for it, and it is tried again in any case.
            log.exception("inbounds are not as a drain wants them; trying again")
            self.error = type(error).__name__
        if self.error and not before:
            # Whoever tries again has not waited for that.
            self._wake.set()

    async def _settle(self) -> None:
        api, spec = self._core.api, self._node.core_spec()
        if api is None or spec is None or not spec.known or self._users.core_unknown:
            # The next core has all inbounds, and of an unknown one nobody can say what it should have.
            return
        to_take = set(plan_drain(spec.base).taken) if self._order is not None else set[str]()
        if not to_take and not api.inbounds.away and not self._behind:
            return
        await self._look(api, spec.base)
        if self._behind:
            await self._users.reconcile_all(spec.inbounds)
            self._behind = False
        await self._take_out(api, spec, sorted(to_take - api.inbounds.away.keys()))
        await self._put_in(api, spec, sorted(api.inbounds.away.keys() - to_take))

    async def _look(self, api: CoreApi, base: BaseConfig) -> None:
        """Note which inbounds the core lacks. Raises CoreApiError."""
        there = await api.inbounds.inbound_tags(self._limit_seconds)
        away, lacking = api.inbounds.away, {spec.tag for spec in base.inbounds if spec.tag} - there
        for tag in away.keys() - lacking:
            self._behind |= tag in there
            del away[tag]
        for tag in lacking - away.keys():
            away[tag] = None

    async def _take_out(self, api: CoreApi, spec: RunSpec, tags: list[str]) -> None:
        """Take inbounds out of the core, and keep how it encodes them. Raises CoreApiError."""
        if not tags:
            return
        listed = {found.tag: found for found in await api.inbounds.list_inbounds(self._limit_seconds)}
        for tag in tags:
            inbound = listed.get(tag)
            if inbound is not None and tag in spec.inbounds:
                # Its users are those of the core's start; it comes back with those of then.
                inbound = without_users(inbound)
            try:
                await api.inbounds.take_out(tag, self._limit_seconds)
            except CoreApiError as error:
                if error.kind is not ErrorKind.NO_HANDLER:
                    raise
            api.inbounds.away[tag] = inbound
            log.info("no new connections on an inbound", inbound=tag)
            await async_fault_point("drain.taken_out")

    async def _put_in(self, api: CoreApi, spec: RunSpec, tags: list[str]) -> None:
        """Bring inbounds back; one that cannot come back is in no other's way. Raises CoreApiError, NodeError."""
        if not tags:
            return
        encoded = await self._encoded(api, spec, tags)
        accounts = await accounts_by_tag(
            self._users.table, {tag: spec.inbounds[tag] for tag in tags if tag in spec.inbounds}
        )
        failed: CoreApiError | None = None
        refused: dict[str, str] = {}
        for tag in tags:
            try:
                if tag in accounts:
                    messages = await user_messages(accounts[tag])
                    refused |= await add_with_users(api, encoded[tag], messages, self._limit_seconds)
                else:
                    await api.inbounds.add_inbound(encoded[tag], self._limit_seconds)
            except CoreApiError as error:
                failed = CoreApiError(f"inbound {tag!r}: {error}", error.kind)
                continue
            del api.inbounds.away[tag]
            log.info("an inbound is back", inbound=tag)
            await async_fault_point("drain.put_in")
        if refused:
            before = {key: self._users.table.applied(key) for key in refused}
            await self._users.refuse(refused, before, spec.inbounds)
        if failed is not None:
            raise failed

    async def _encoded(
        self, api: CoreApi, spec: RunSpec, tags: Iterable[str]
    ) -> dict[str, core_pb2.InboundHandlerConfig]:
        """Return how the core encodes inbounds; what was not kept is asked of a scratch core. Raises StartFailedError."""
        away = api.inbounds.away
        found = {tag: inbound for tag in tags if (inbound := away.get(tag)) is not None}
        unknown = tuple(tag for tag in tags if tag not in found)
        if unknown:
            decision = Decision(StartStrategy.HOT_CHANGE, "inbounds come back", ConfigDiff(add_inbounds=unknown))
            plan = await self._node.prepare(self._settings, self._core.core, spec, decision)
            found |= {tag: plan.encoded.inbounds[tag] for tag in unknown}
        return found

    def _api(self) -> CoreApi:
        if self._core.api is None:
            raise CoreUnavailableError("the core has ended")
        return self._core.api
