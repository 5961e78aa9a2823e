"""Bringing the core to what is desired of many users, in steps, between which others may change users.

Per inbound the planner chooses to alter or to swap. Swaps come first, one a step; then the users in slices. Until the
application came to a user in all inbounds, the user is *pending*: whoever changes it meanwhile treats it as uncertain,
brings it to the newest state and takes it off this application.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import structlog

from pgnode.errors import CoreUnavailableError
from pgnode.supervisor.core_control import CoreControl, Outcome
from pgnode.supervisor.planner import Change, InboundPlan, choose_swap
from pgnode.supervisor.users import UserTable
from pgnode.xray.accounts import user_message
from pgnode.xray.api import MAX_SEND_BYTES
from pgnode.xray.config import InboundSpec

log = structlog.get_logger(__name__)

#: Users looked at before the event loop gets its turn.
SLICE = 500

#: Users brought to their state in one step, in one inbound: a tenth of a second of core calls, about, for which others wait.
STEP_USERS = 1000

#: No fewer in one step, however many inbounds they are in.
STEP_USERS_MIN = 250

#: Users from whom the number of calls is estimated.
SAMPLE = 1000


class Application:
    """One application of many users. Belongs to the supervisor's loop; every method is called with the node's turn held."""

    def __init__(
        self,
        core: CoreControl,
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
        #: Swapped inbound -> keys of those who are in it by the swap; all others in it have to be added.
        self._there: dict[str, set[str]] = {}
        #: Users in the first step, where these have to be in one; 0 otherwise.
        self._first_step = 0

    def __repr__(self) -> str:
        return f"Application({len(self._queue)} users, swaps {list(self._swaps)})"

    @property
    def done(self) -> bool:
        return not self._queue and not self._swaps

    async def choose(self, *, swaps: bool = True) -> None:
        """Decide how each inbound is brought to its state. Nothing is sent to the core. Without ``swaps`` all are altered."""
        table, count = self._table, len(self._queue)
        sample = list(self._queue)[:: max(1, count // SAMPLE)]
        now = asyncio.get_running_loop().time()
        ways = []
        for plan in table.plan(sample, self._inbounds):
            calls = plan.calls * count // len(sample)
            since = now - self._swapped_at.get(plan.tag, float("-inf"))
            swap = swaps and choose_swap(self._inbounds[plan.tag], calls, len(table), since)
            if swap:
                self._swaps.append(plan.tag)
            ways.append(f"{plan.tag}: {calls} {'swapped' if swap else 'altered'}")
        log.debug("applying users", users=count, inbounds=ways)
        altered = {tag: spec for tag, spec in self._inbounds.items() if tag not in self._swaps}
        if count > STEP_USERS and altered:
            await self._movers_first(altered)
        table.pending.update(self._queue)

    async def _movers_first(self, inbounds: Mapping[str, InboundSpec]) -> None:
        """An id that moves from one user to another is removed from the one before the other one gets it.

        Within one step all removals come first; so all who give or take an id are put into the first one.
        """
        owner: dict[tuple[str, str], str] = {}
        takers: list[tuple[tuple[str, str], str]] = []
        for number, key in enumerate(self._queue):
            for tag, secret, gives in self._table.moves(key, inbounds):
                if gives:
                    owner[tag, secret] = key
                else:
                    takers.append(((tag, secret), key))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        movers: dict[str, None] = {}
        for what, key in takers:
            giver = owner.get(what)
            if giver is not None and giver != key:
                movers |= {giver: None, key: None}
        if movers:
            self._queue = deque([*movers, *(key for key in self._queue if key not in movers)])
            self._first_step = len(movers)

    async def step(self) -> tuple[Sequence[str], Outcome]:
        """Do the next part: the keys that were brought to their state, or not, and what became of them."""
        if self._table.pending.isdisjoint(self._queue):
            # Nobody is left: a new core was started with all of them.
            self._queue.clear()
            self._swaps.clear()
            return (), Outcome()
        if self._swaps:
            tag = self._swaps.popleft()
            try:
                await self._swap(self._inbounds[tag])
            except CoreUnavailableError as error:
                return self._give_up(error.text)
            return (), Outcome()
        size, self._first_step = self._first_step or max(STEP_USERS // max(len(self._inbounds), 1), STEP_USERS_MIN), 0
        keys: list[str] = []
        while self._queue and len(keys) < size:
            key = self._queue.popleft()
            if key in self._table.pending:
                keys.append(key)
        if self._core.api is None:
            self._queue.extendleft(keys)
            return self._give_up("the core has ended")
        altered = {tag: spec for tag, spec in self._inbounds.items() if tag not in self._there}
        plans = self._table.plan(keys, altered, own=True) if altered else []
        plans += [self._additions(tag, there, keys) for tag, there in self._there.items()]
        return keys, await self._core.alter(plans)

    def _give_up(self, why: str) -> tuple[Sequence[str], Outcome]:
        keys = [key for key in self._queue if key in self._table.pending]
        self._queue.clear()
        self._swaps.clear()
        return keys, Outcome(unanswered=set(keys), error=why)

    def abandon(self) -> None:
        """It will not be brought to its end: whoever is still pending is uncertain."""
        self._table.core_uncertain([key for key in self._queue if key in self._table.pending])
        self._queue.clear()
        self._swaps.clear()

    def _additions(self, tag: str, there: set[str], keys: Iterable[str]) -> InboundPlan:
        plan = InboundPlan(tag)
        for key in keys:
            if key not in there and (found := self._table.account(key, self._inbounds[tag])) is not None:
                plan.changes.append(Change(key, None, *found))
        return plan

    async def _swap(self, inbound: InboundSpec) -> None:
        table = self._table
        # Who stays as it was comes first: whoever does not fit is away until it is added.
        everybody = table.keys()
        order = [*(everybody - table.pending), *(everybody & table.pending)]
        keys: list[str] = []
        messages: list[bytes] = []
        size = 0
        at = 0
        while at < len(order) and size < MAX_SEND_BYTES:
            for key in order[at : at + SLICE]:
                found = table.account(key, inbound)
                if found is not None:
                    message = user_message(*found)
                    size += len(message)
                    keys.append(key)
                    messages.append(message)
            at += SLICE
            await asyncio.sleep(0)
        left = await self._core.swap(inbound.tag, messages)
        self._swapped_at[inbound.tag] = asyncio.get_running_loop().time()
        if left is None:
            return
        self._there[inbound.tag] = set(keys[: len(keys) - left])
        rest = [key for key in (*keys[len(keys) - left :], *order[at:]) if key not in table.pending]
        table.pending.update(rest)
        self._queue.extendleft(reversed(rest))
