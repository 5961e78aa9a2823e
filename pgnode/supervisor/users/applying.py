"""Making the core have users as desired, and taking note of whom it refused and about whom it did not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from pgnode.errors import CoreUnavailableError
from pgnode.store.changes import Journal
from pgnode.supervisor.users.answers import Applied
from pgnode.supervisor.users.core_users import CoreUsers, Outcome
from pgnode.supervisor.users.decoding import NOTHING_DECODED, DecodedUsers, Inbounds, Refusal, decode
from pgnode.supervisor.users.departures import Departures
from pgnode.supervisor.users.planning import InboundPlan, plan_changes
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.rivals import rival_of
from pgnode.supervisor.users.rollout import Rollout, Settle, StepLimits, SwapPolicy, SwapTimes, apply_plan
from pgnode.supervisor.users.swap_policy import choose_swap
from pgnode.supervisor.users.table import Phase, UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.inbounds import InboundSpec


class UserApplier:
    """Belongs to the supervisor's loop; one caller at a time, with the core's lock held.

    Args:
        core: The users in the core.
        table: All users.
        rejected: Those who cannot be had.
        limits: How much is done at a time.
        policy: Says whether an inbound is swapped.
        departures: Is told whose accounts went; None: nobody wants to know.
    """

    def __init__(
        self,
        core: CoreUsers,
        table: UserTable,
        rejected: RejectedUsers,
        limits: StepLimits,
        policy: SwapPolicy = choose_swap,
        *,
        departures: Departures | None = None,
    ) -> None:
        self._departures = departures if departures is not None else Departures(Journal())
        self._core = core
        self._table = table
        self._rejected = rejected
        self._limits = limits
        self._policy = policy
        self._swap_times = SwapTimes()
        #: The rollout of a bulk change.
        self._under_way: Rollout | None = None
        #: The place in the log before its last step; once it has swapped, before that: from then on connections come by its new
        #: accounts, long before it is settled.
        self._place = 0

    async def apply(
        self,
        keys: Iterable[str],
        inbounds: Inbounds,
        decoded: DecodedUsers = NOTHING_DECODED,
        noted: Callable[[], None] | None = None,
    ) -> Applied:
        """Make the core have some users as desired, at once.

        Args:
            keys: The users.
            inbounds: The inbounds, by tag.
            decoded: What was found of some of them.
            noted: Called before the core is, where they are few. The journal has all by then that is stored if it takes them.

        Returns:
            What became of them.
        """
        applied = Applied()
        differing = self._table.differing(keys)
        if not differing:
            return applied
        # A bulk change that is under way knows who is in the inbounds that it swapped: nobody else swaps meanwhile.
        policy = self._policy if self._under_way is None or self._under_way.done else None
        place = self._departures.place(self._table, differing)
        if len(differing) <= self._limits.rollout_users:
            plan = plan_changes(self._table, differing, inbounds, decoded=decoded)
            if policy is None or not any(self._would_swap(inbounds[part.tag], part) for part in plan.inbounds):
                if noted is not None:
                    self._departures.promise(self._table, plan.keys)
                    noted()
                outcome = await apply_plan(self._core, self._table, plan)
                await self.settle(plan.keys, outcome, applied, inbounds, place)
                return applied
        # What the core has of those who wait for another rollout, that one alone knows.
        self._table.core_uncertain([key for key in differing if self._table.phase(key) is Phase.PENDING])
        rollout = Rollout(self._core, self._table, inbounds, differing, swaps=self._swap_times, limits=self._limits)
        await rollout.choose(policy)
        while not rollout.done:
            await rollout.step(self._settling(applied, inbounds, place))
        return applied

    def _would_swap(self, inbound: InboundSpec, part: InboundPlan) -> bool:
        since, users = self._swap_times.since(inbound.tag), len(self._table)
        # Nearly always it would not with any number of calls for so few changes: then they need not be counted.
        return self._policy(inbound, 2 * len(part.changes), users, since) and self._policy(
            inbound, part.calls, users, since
        )

    # --- for a bulk change --------------------------------------------------------------------------------------

    async def begin_rollout(self, keys: Iterable[str], inbounds: Inbounds) -> Rollout:
        """Begin a rollout to these users; nothing is sent to the core yet. Others may change users between its steps.

        They are stored as desired before the core has them, so whoever loses an account by it is stored, too.
        """
        keys = list(keys)
        rollout = Rollout(self._core, self._table, inbounds, keys, swaps=self._swap_times, limits=self._limits)
        self._under_way = rollout
        await rollout.choose(self._policy)
        self._place = self._departures.place(self._table, keys)
        try:
            for at in range(0, len(keys), self._limits.slice_users):
                self._departures.promise(self._table, keys[at : at + self._limits.slice_users])
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._departures.promise(self._table, keys)
            raise
        return rollout

    async def step_rollout(self, rollout: Rollout, applied: Applied, inbounds: Inbounds, until: float) -> None:
        """Go on with a rollout until that time of the loop; ``applied`` gets what became of its users."""
        if self._place and not rollout.has_swapped:
            self._place = self._departures.here()
        await rollout.step(self._settling(applied, inbounds, self._place), until)

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _settling(self, applied: Applied, inbounds: Inbounds, place: int) -> Settle:
        return lambda keys, outcome: self.settle(keys, outcome, applied, inbounds, place)

    async def settle(
        self, keys: Sequence[str], outcome: Outcome, applied: Applied, inbounds: Inbounds, place: int = 0
    ) -> None:
        """Note what became of some users.

        Args:
            keys: The users.
            outcome: What the core said.
            applied: Gets what it said.
            inbounds: The inbounds, by tag.
            place: The place in the log before the core was called.
        """
        table, rejected = self._table, self._rejected
        fine: Sequence[str] = keys
        before: dict[str, bytes | None] = {}
        if outcome.refused or outcome.unanswered:
            fine = [key for key in keys if key not in outcome.refused and key not in outcome.unanswered]
            before = {key: table.before(key) for key in outcome.refused}
        if rejected:
            # Whoever was in step before was only put again: what is on the list is something else. Whoever is desired no longer
            # was taken off the list where that was asked for.
            rejected.drop([key for key in fine if key in table.desired and table.phase(key) is not Phase.IN_STEP])
        self._departures.settled(table, fine, place)
        table.core_has(fine)
        self._departures.promise(table, outcome.unanswered)
        table.core_uncertain(outcome.unanswered)
        if outcome.refused:
            applied.refused |= await self.refuse(outcome.refused, before, inbounds)
        applied.unanswered |= outcome.unanswered
        if outcome.unanswered:
            applied.error = CoreUnavailableError(f"the core did not take all users: {outcome.error}")

    async def refuse(
        self, causes: Mapping[str, str], before: Mapping[str, bytes | None], inbounds: Inbounds
    ) -> dict[str, Refusal]:
        """Put users on the list whom the core refused, and give it back what it had of them.

        Args:
            causes: Key -> why.
            before: What the core had of each, None for nothing: then nothing of the user stays in any inbound.
            inbounds: The inbounds, by tag.

        Returns:
            The users by key, as their callers are told.
        """
        refusals = {}
        for key, cause in causes.items():
            raw = self._table.get(key)
            email = pb.User.FromString(raw).email if raw is not None else key
            refusals[key] = Refusal(email, cause)
            if raw is not None:
                self._rejected.put(key, email, cause, raw, by_core=True)
        self._table.core_uncertain(causes)
        desired: Mapping[str, bytes | None] = before
        while desired:
            for key, raw in desired.items():
                # Somebody may have got by now what it had.
                taken = rival_of(self._table, key, decode(raw, inbounds)[1]) is not None
                self._table.put(key, None if taken else raw)
            plan = plan_changes(self._table, desired, inbounds)
            place = self._departures.place(self._table, plan.keys)
            outcome = await apply_plan(self._core, self._table, plan)
            self._departures.promise(self._table, outcome.unanswered)
            self._table.core_uncertain(outcome.unanswered | outcome.refused.keys())
            fine = set(plan.keys) - outcome.refused.keys() - outcome.unanswered
            self._departures.settled(self._table, fine, place)
            self._table.core_has(fine)
            # Not even that: then nothing, unless that was it.
            desired = {key: None for key in outcome.refused if desired.get(key) is not None}
        return refusals
