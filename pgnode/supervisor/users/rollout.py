"""Bringing the core to what is desired of many users, in steps, between which others may change users.

Per inbound it is chosen to alter or to swap. Swaps come first; then the users in slices, of which two are under way at once, so
that the core has something to do while the next one is made. Until the rollout came to a user in all inbounds, the user is
*pending*: whoever changes it meanwhile treats it as unknown, brings it in step and so takes it off this rollout.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass

import structlog

from pgnode.errors import CoreUnavailableError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.fault_points import async_fault_point
from pgnode.supervisor.users.core_users import CoreUsers, Outcome
from pgnode.supervisor.users.decoding import Inbounds, account_in
from pgnode.supervisor.users.planning import Change, InboundPlan, Plan, plan_changes
from pgnode.supervisor.users.swap_message import SwapMessage, swap_entry
from pgnode.supervisor.users.swap_policy import choose_swap
from pgnode.supervisor.users.table import Phase, UserTable
from pgnode.xray.config.accounts import credential_of
from pgnode.xray.config.inbounds import InboundSpec

log = structlog.get_logger(__name__)

#: Slices under way at once.
SLICES_MAX = 2

#: Users from whom the number of calls is estimated.
SAMPLE = 500

#: Takes note of what became of some users.
Settle = Callable[[Sequence[str], Outcome], Awaitable[None]]

#: Inbound, calls that it takes to alter it, users, seconds since its last swap -> whether it is swapped.
SwapPolicy = Callable[[InboundSpec, int, int, float], bool]


@dataclass(frozen=True, slots=True)
class StepLimits:
    """How much is done at a time."""

    #: Users read or encoded before the event loop gets its turn.
    slice_users: int = 500
    #: Core calls in one slice at most: some 20 ms of them.
    slice_calls: int = 800
    #: Seconds of one step of a bulk change: others who change users wait for so long, about.
    step_seconds: float = 0.05
    #: Users in one rollout at least; fewer are changed at once, by whoever was asked to.
    rollout_users: int = 1000


class SwapTimes:
    """When each inbound was swapped last, in seconds of the event loop's clock."""

    def __init__(self) -> None:
        self._swapped_at: dict[str, float] = {}

    def note(self, tag: str) -> None:
        """Note that an inbound was swapped just now."""
        self._swapped_at[tag] = asyncio.get_running_loop().time()

    def since(self, tag: str) -> float:
        """Return how many seconds ago an inbound was swapped."""
        return asyncio.get_running_loop().time() - self._swapped_at.get(tag, float("-inf"))


def apply_plan(core: CoreUsers, table: UserTable, plan: Plan) -> Coroutine[None, None, Outcome]:
    """Carry out a plan. What it changes of the owners of credentials is noted before this returns."""
    table.owners.note(plan.gained)
    return _carry_out(core, plan)


async def _carry_out(core: CoreUsers, plan: Plan) -> Outcome:
    outcome = await core.alter(plan.inbounds, chained=not plan.moves)
    if plan.moves and outcome.unanswered:
        # Which of two users has the credential now?
        outcome.unanswered.update(key for key in plan.keys if key not in outcome.refused)
    return outcome


class Rollout:
    """One rollout to many users. Belongs to the supervisor's loop; every method is called with the core's lock held.

    Args:
        core: The users in the core.
        table: All users.
        inbounds: The inbounds that are brought to their state, by tag.
        keys: The users.
        swaps: When inbounds were swapped.
        limits: How much is done at a time.
    """

    def __init__(
        self,
        core: CoreUsers,
        table: UserTable,
        inbounds: Inbounds,
        keys: Iterable[str],
        *,
        swaps: SwapTimes,
        limits: StepLimits,
    ) -> None:
        self._core = core
        self._table = table
        self._inbounds = dict(inbounds)
        self._queue = deque(keys)
        self._swap_times = swaps
        self._limits = limits
        self._swaps: deque[str] = deque()
        self._swap: SwapMessage | None = None
        #: Swapped inbound -> keys of those who are in it by the swap; all others in it have to be added.
        self._there: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        """Say what is left to do."""
        return f"Rollout({len(self._queue)} users, swaps {list(self._swaps)})"

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._queue and not self._swaps and self._swap is None

    @property
    def has_swapped(self) -> bool:
        """Whether an inbound has its new users by a swap."""
        return bool(self._there)

    async def choose(self, policy: SwapPolicy | None = choose_swap) -> None:
        """Decide how each inbound is brought to its state. Nothing is sent to the core.

        Args:
            policy: Says whether an inbound is swapped; None where all are altered.
        """
        table, count = self._table, len(self._queue)
        sample = list(self._queue)[:: max(1, count // SAMPLE)]
        ways = []
        for plan in plan_changes(table, sample, self._inbounds).inbounds:
            calls = plan.calls * count // len(sample)
            since = self._swap_times.since(plan.tag)
            swap = policy is not None and policy(self._inbounds[plan.tag], calls, len(table), since)
            if swap:
                self._swaps.append(plan.tag)
            ways.append(f"{plan.tag}: {calls} {'swapped' if swap else 'altered'}")
        log.debug("applying users", users=count, inbounds=ways)
        table.await_rollout(self._queue)

    async def step(self, settle: Settle, until: float = float("inf")) -> None:
        """Go on for some time.

        Args:
            settle: Is told what became of whom.
            until: Time of the loop at which no further part is begun.
        """
        self._skip_those_in_step()
        if not self._queue:
            # Nobody is left: others brought them in step, or a new core was started with all of them.
            self._clear()
            return
        loop = asyncio.get_running_loop()
        while self._swaps or self._swap is not None:
            try:
                await self._go_on_with_swap()
            except CoreUnavailableError as error:
                await self._give_up(error.text, settle)
                return
            if loop.time() >= until:
                return
        if not self._core.there:
            await self._give_up("the core has ended", settle)
            return
        under_way: deque[tuple[Plan, asyncio.Task[Outcome]]] = deque()
        try:
            over = False
            while True:
                while len(under_way) < SLICES_MAX and not over:
                    plan = self._next_slice([plan for plan, _ in under_way])
                    if plan is None:
                        break
                    under_way.append((plan, asyncio.create_task(apply_plan(self._core, self._table, plan))))
                    over = loop.time() >= until
                if not under_way:
                    return
                plan, task = under_way[0]
                outcome = await task
                under_way.popleft()
                await settle(plan.keys, outcome)
                await async_fault_point("rollout.slice_done")
                over = over or loop.time() >= until
                if plan.keys and len(outcome.unanswered) >= len(plan.keys):
                    # It has ended, or hangs: the others would wait for nothing, each their time.
                    await self._give_up(outcome.error, settle)
        finally:
            await end_tasks([task for _, task in under_way])

    def abandon(self) -> None:
        """Give up a rollout that will not be brought to its end: whoever is still pending is unknown."""
        self._table.core_uncertain(self._open_keys())
        self._clear()

    # --- altering -----------------------------------------------------------------------------------------------

    def _next_slice(self, under_way: Sequence[Plan]) -> Plan | None:
        """Return what comes next; None where nothing does, or has to wait for what is under way."""
        size = max(self._limits.slice_calls // (2 * max(len(self._inbounds), 1)), 1)
        busy = {key for plan in under_way for key in plan.keys}
        keys: dict[str, None] = {}
        while self._queue and len(keys) < size:
            key = self._queue.popleft()
            if key not in busy and self._table.phase(key) is not Phase.IN_STEP:
                keys[key] = None
        if not keys:
            return None
        plan = self._plan(keys)
        if not busy.isdisjoint(plan.keys) or any(earlier.hinders(plan) for earlier in under_way):
            # Somebody gets a credential that one of them gives up just now, or the other way round.
            self._queue.extendleft(reversed(keys))
            return None
        return plan

    def _plan(self, keys: Iterable[str]) -> Plan:
        """Plan for some users, with whoever has to be done with them."""
        altered = {tag: spec for tag, spec in self._inbounds.items() if tag not in self._there}
        while True:
            plan = plan_changes(self._table, keys, altered, own=True) if altered else Plan([], list(keys), {}, {})
            known = set(plan.keys)
            for tag, there in self._there.items():
                self._add_to_swapped(plan, tag, there)
            joined = [key for key in plan.keys if key not in known]
            if all(self._table.phase(key) is Phase.IN_STEP for key in joined):
                return plan
            # They are to be brought in step everywhere.
            keys = [*known, *joined]

    def _add_to_swapped(self, plan: Plan, tag: str, there: Collection[str]) -> None:
        """Add to ``plan`` who is not yet in an inbound that was swapped."""
        inbound = self._inbounds[tag]
        additions = InboundPlan(tag)
        plan.inbounds.append(additions)
        unknown = []
        for key in plan.keys:
            phase = self._table.phase(key)
            if phase is Phase.UNKNOWN:
                # Perhaps by a change that came after the swap.
                unknown.append(key)
            elif phase is not Phase.IN_STEP and key not in there:
                found = account_in(self._table.get(key), inbound)
                if found is not None:
                    additions.changes.append(Change(key, None, *found))
                    if credential := credential_of(found[1]):
                        plan.gained[tag, credential] = key
        if unknown:
            part = plan_changes(self._table, unknown, {tag: inbound}, own=True)
            added = {change.key for change in additions.changes}
            for changes in part.inbounds:
                additions.changes += [change for change in changes.changes if change.key not in added]
            plan.join(part)

    def _open_keys(self) -> list[str]:
        return [key for key in self._queue if self._table.phase(key) is not Phase.IN_STEP]

    def _skip_those_in_step(self) -> None:
        while self._queue and self._table.phase(self._queue[0]) is Phase.IN_STEP:
            self._queue.popleft()

    def _clear(self) -> None:
        self._queue.clear()
        self._swaps.clear()
        self._swap = None

    async def _give_up(self, why: str, settle: Settle) -> None:
        keys = self._open_keys()
        self._clear()
        await settle(keys, Outcome(unanswered=set(keys), error=why))

    # --- swaps --------------------------------------------------------------------------------------------------

    async def _go_on_with_swap(self) -> None:
        table, swap = self._table, self._swap
        if swap is None:
            inbound = self._inbounds[self._swaps.popleft()]
            # Who stays as it was comes first: whoever does not fit is away until it is added.
            pending, everybody = set(table.in_phase(Phase.PENDING)), table.keys()
            self._swap = SwapMessage(inbound, [*(everybody - pending), *(everybody & pending)])
            await self._core.prepare_swap(inbound.tag)
        elif not swap.full:
            swap.read(table.get, self._limits.slice_users)
            await asyncio.sleep(0)
        else:
            self._swap = None
            await self._carry_out_swap(swap)

    async def _carry_out_swap(self, swap: SwapMessage) -> None:
        table, inbound = self._table, swap.inbound
        tag = inbound.tag
        entries, absent = swap.finish(table.get)
        keys = list(entries)
        pending = set(table.in_phase(Phase.PENDING))
        gained = {}
        for key in filter(pending.__contains__, keys):
            found = account_in(table.get(key), inbound)
            if found is not None and (credential := credential_of(found[1])):
                gained[tag, credential] = key
        table.owners.note(gained)
        left = await self._core.swap(tag, list(entries.values()), lambda: self._had(tag))
        self._swap_times.note(tag)
        if left is None:
            return
        there = self._there[tag] = set(keys[: len(keys) - left])
        # Whoever is not pending, and was not read or did not fit, is to be added; the others have no account here.
        rest = [key for key in swap.order if key not in there and key not in pending and key not in absent]
        rest += [key for key in table.keys().difference(swap.order) if key not in pending]
        rest = [key for key in rest if table.get(key) is not None]
        for other, of_other in self._there.items():
            if other != tag:
                # They are not pending, so they are as they should be everywhere else.
                of_other.update(key for key in rest if table.phase(key) is not Phase.UNKNOWN)
        table.await_rollout(rest)
        self._queue.extendleft(reversed(rest))

    async def _had(self, tag: str) -> list[bytes]:
        """Return the messages of those whom the core has in an inbound, as far as is known."""
        messages = []
        for number, (_, raw) in enumerate(self._table.applied_items(), 1):
            if (entry := swap_entry(raw, self._inbounds[tag])) is not None:
                messages.append(entry)
            if number % self._limits.slice_users == 0:
                await asyncio.sleep(0)
        return messages
