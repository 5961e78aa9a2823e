"""Bringing the core to what is desired of many users, in steps, between which others may change users.

Per inbound the planner chooses to alter or to swap. Swaps come first; then the users in slices, of which two are under way at
once, so that the core has something to do while the next one is made. Until the application came to a user in all inbounds, the
user is *pending*: whoever changes it meanwhile treats it as uncertain, brings it to the newest state and takes it off this
application.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set

import structlog

from pgnode.errors import CoreUnavailableError
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.users.core_users import CoreUsers, Outcome
from pgnode.supervisor.users.swap_policy import Change, InboundPlan, choose_swap, users_in_swap
from pgnode.supervisor.users.table import Plan, UserTable, account_in
from pgnode.xray.client.channel import MAX_SEND_BYTES
from pgnode.xray.config.accounts import user_message
from pgnode.xray.config.document import InboundSpec

log = structlog.get_logger(__name__)

#: Users looked at before the event loop gets its turn.
SLICE = 500

#: Users in one application at least; fewer are changed at once, by whoever was asked to.
STEP_USERS = 1000

#: Core calls in one slice at most: some 20 ms of them.
SLICE_CALLS = 800

#: Slices under way at once.
SLICES_MAX = 2

#: Users from whom the number of calls is estimated.
SAMPLE = 500

#: Takes note of what became of some users.
Settle = Callable[[Sequence[str], Outcome], Awaitable[None]]


async def alter(core: CoreUsers, plan: Plan) -> Outcome:
    """Carry out a plan."""
    outcome = await core.alter(plan.inbounds, chained=not plan.moves)
    if plan.moves and outcome.unanswered:
        # Which of two users has the secret now?
        outcome.unanswered.update(key for key in plan.keys if key not in outcome.refused)
    return outcome


class _Swap:
    """A swap whose message is being made."""

    def __init__(self, inbound: InboundSpec, order: list[str]) -> None:
        self.inbound = inbound
        #: Everybody, in the order in which they are put into the message.
        self.order = order
        self.looked_at = 0
        #: (key, the user's message as it was, its message to the core or None where it is not in this inbound).
        self.made: list[tuple[str, bytes, bytes | None]] = []
        self.size_bytes = 0

    @property
    def full(self) -> bool:
        limit = users_in_swap(self.inbound)
        return self.looked_at >= len(self.order) or self.size_bytes >= MAX_SEND_BYTES or len(self.made) >= limit


class Rollout:
    """One application of many users. Belongs to the supervisor's loop; every method is called with the node's turn held."""

    def __init__(
        self,
        core: CoreUsers,
        table: UserTable,
        inbounds: Mapping[str, InboundSpec],
        keys: Iterable[str],
        swapped_at: dict[str, float],
    ) -> None:
        self._core = core
        self._table = table
        self._inbounds = dict(inbounds)
        #: Inbound -> loop time of its last swap.
        self._swapped_at = swapped_at
        self._queue = deque(keys)
        self._swaps: deque[str] = deque()
        self._swap: _Swap | None = None
        #: Swapped inbound -> keys of those who are in it by the swap; all others in it have to be added.
        self._there: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"Rollout({len(self._queue)} users, swaps {list(self._swaps)})"

    @property
    def done(self) -> bool:
        return not self._queue and not self._swaps and self._swap is None

    async def choose(self, *, swaps: bool = True) -> None:
        """Decide how each inbound is brought to its state. Nothing is sent to the core. Without ``swaps`` all are altered."""
        table, count = self._table, len(self._queue)
        sample = list(self._queue)[:: max(1, count // SAMPLE)]
        now = asyncio.get_running_loop().time()
        ways = []
        for plan in table.plan(sample, self._inbounds).inbounds:
            calls = plan.calls * count // len(sample)
            since = now - self._swapped_at.get(plan.tag, float("-inf"))
            swap = swaps and choose_swap(self._inbounds[plan.tag], calls, len(table), since)
            if swap:
                self._swaps.append(plan.tag)
            ways.append(f"{plan.tag}: {calls} {'swapped' if swap else 'altered'}")
        log.debug("applying users", users=count, inbounds=ways)
        table.pending.update(self._queue)

    async def step(self, settle: Settle, until: float = float("inf")) -> None:
        """Go on until that time of the loop, or a bit longer; ``settle`` is told what was done."""
        if self._table.pending.isdisjoint(self._queue):
            # Nobody is left: a new core was started with all of them.
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
        under_way: deque[tuple[list[str], asyncio.Task[Outcome]]] = deque()
        try:
            over = False
            while True:
                while len(under_way) < SLICES_MAX and not over:
                    plan = self._next_slice({key for keys, _ in under_way for key in keys})
                    if plan is None:
                        break
                    under_way.append((plan.keys, asyncio.create_task(alter(self._core, plan))))
                    over = loop.time() >= until
                if not under_way:
                    return
                keys, task = under_way[0]
                outcome = await task
                under_way.popleft()
                await settle(keys, outcome)
                over = over or loop.time() >= until
                if keys and len(outcome.unanswered) >= len(keys):
                    # It has ended, or hangs: the others would wait for nothing, each their time.
                    await self._give_up(outcome.error, settle)
        finally:
            await end_tasks([task for _, task in under_way])

    def _next_slice(self, busy: Set[str]) -> Plan | None:
        """What comes next while ``busy`` are under way; None where nothing does, or has to wait for them."""
        size = max(SLICE_CALLS // (2 * max(len(self._inbounds), 1)), 1)
        keys: dict[str, None] = {}
        pending = self._table.pending
        while self._queue and len(keys) < size:
            key = self._queue.popleft()
            if key in pending and key not in busy:
                keys[key] = None
        if not keys:
            return None
        altered = {tag: spec for tag, spec in self._inbounds.items() if tag not in self._there}
        plan = self._table.plan(keys, altered, own=True)
        if not busy.isdisjoint(plan.keys):
            # Somebody gets a secret that one of them gives up just now.
            self._queue.extendleft(reversed(keys))
            return None
        plan.inbounds.extend(self._additions(plan.keys))
        return plan

    def _additions(self, keys: Iterable[str]) -> list[InboundPlan]:
        """Who is not yet in the inbounds that were swapped."""
        plans = []
        for tag, there in self._there.items():
            plan = InboundPlan(tag)
            for key in keys:
                if self._table.is_uncertain(key):
                    # Perhaps by a change that came after the swap.
                    for part in self._table.plan([key], {tag: self._inbounds[tag]}).inbounds:
                        plan.changes += [change for change in part.changes if change.key == key]
                elif key not in there and (found := account_in(self._table.get(key), self._inbounds[tag])) is not None:
                    plan.changes.append(Change(key, None, *found))
            plans.append(plan)
        return plans

    def _clear(self) -> None:
        self._queue.clear()
        self._swaps.clear()
        self._swap = None

    async def _give_up(self, why: str, settle: Settle) -> None:
        keys = [key for key in self._queue if key in self._table.pending]
        self._clear()
        await settle(keys, Outcome(unanswered=set(keys), error=why))

    def abandon(self) -> None:
        """It will not be brought to its end: whoever is still pending is uncertain."""
        self._table.core_uncertain([key for key in self._queue if key in self._table.pending])
        self._clear()

    # --- swaps --------------------------------------------------------------------------------------------------

    async def _go_on_with_swap(self) -> None:
        table, swap = self._table, self._swap
        if swap is None:
            inbound = self._inbounds[self._swaps.popleft()]
            # Who stays as it was comes first: whoever does not fit is away until it is added.
            everybody = table.keys()
            self._swap = _Swap(inbound, [*(everybody - table.pending), *(everybody & table.pending)])
            await self._core.prepare_swap(inbound.tag)
        elif not swap.full:
            for key in swap.order[swap.looked_at : swap.looked_at + SLICE]:
                if (raw := table.get(key)) is not None:
                    message = self._message(raw, swap.inbound.tag)
                    swap.size_bytes += len(message or b"")
                    swap.made.append((key, raw, message))
            swap.looked_at += SLICE
            await asyncio.sleep(0)
        else:
            self._swap = None
            await self._carry_out(swap)

    def _message(self, raw: bytes, tag: str) -> bytes | None:
        found = account_in(raw, self._inbounds[tag])
        return user_message(*found) if found is not None else None

    async def _carry_out(self, swap: _Swap) -> None:
        table, tag = self._table, swap.inbound.tag
        keys: list[str] = []
        messages: list[bytes] = []
        for key, made_of, made in swap.made:
            raw, message = table.get(key), made
            if raw is not made_of:
                # Changed while the message was made.
                message = self._message(raw, tag) if raw is not None else None
            if message is not None:
                keys.append(key)
                messages.append(message)
        keys, messages = keys[: users_in_swap(swap.inbound)], messages[: users_in_swap(swap.inbound)]
        left = await self._core.swap(tag, messages, lambda: self._had(tag))
        self._swapped_at[tag] = asyncio.get_running_loop().time()
        if left is None:
            return
        there = self._there[tag] = set(keys[: len(keys) - left])
        # Whoever is not pending, and was not looked at or did not fit, is to be added; the others have no account here.
        absent = {key for key, raw, made in swap.made if made is None and table.get(key) is raw}
        rest = [key for key in swap.order if key not in there and key not in table.pending and key not in absent]
        rest += [key for key in table.keys().difference(swap.order) if key not in table.pending]
        rest = [key for key in rest if table.get(key) is not None]
        for other, of_other in self._there.items():
            if other != tag:
                # They are not pending, so they are as they should be everywhere else.
                of_other.update(key for key in rest if not table.is_uncertain(key))
        table.pending.update(rest)
        self._queue.extendleft(reversed(rest))

    async def _had(self, tag: str) -> list[bytes]:
        """The messages of those whom the core has in an inbound, as far as is known."""
        messages = []
        for number, (_, raw) in enumerate(self._table.applied_items(), 1):
            if (message := self._message(raw, tag)) is not None:
                messages.append(message)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return messages
