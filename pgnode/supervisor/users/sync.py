"""Changes of users: what callers ask is made the desired state, and the core is brought to it by difference.

What a command says is taken in whole: users that cannot be applied stay as they were and their caller is told, everybody else
is applied. Called with the node's turn held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import structlog

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    InternalError,
    InvalidRequestError,
    NodeError,
    UsersRefusedError,
)
from pgnode.store.changes import Journal
from pgnode.store.rows import RejectedUser
from pgnode.store.state import StoredState
from pgnode.supervisor.commands.dispatcher import INTERNAL_TEXT, Answers
from pgnode.supervisor.users.core_users import CoreUsers, Outcome
from pgnode.supervisor.users.intake import Check, Inbounds, UserIntake, accept, validate
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.rollout import STEP_USERS, Rollout, Settle, alter
from pgnode.supervisor.users.superseded import Superseded
from pgnode.supervisor.users.swap_policy import InboundPlan, choose_swap
from pgnode.supervisor.users.table import NOBODY_LOOKED, Looked, Refusal, UserTable, refusal_of
from pgnode.wire import service_pb2 as pb
from pgnode.wire.users import leading_email
from pgnode.xray.config.accounts import Account, email_key
from pgnode.xray.config.document import InboundSpec

log = structlog.get_logger(__name__)

#: Users looked at before the event loop gets its turn.
SLICE = 500

#: Time for one part of a long change: others who change users wait for so long, about.
STEP_SECONDS = 0.05

#: Users named in the error of one call; the panel cuts the text anyway.
REFUSALS_SHOWN = 5

#: What the store says of a long change that was taken in.
TAKEN_KIND = "users"

_DONE = Reply()


@dataclass(slots=True)
class _Change:
    """One command that changes users, on its way."""

    command: Command
    keys: Set[str] = frozenset()
    refusals: Sequence[Refusal] = ()


@dataclass(slots=True)
class Applied:
    """What became of an attempt to make the core have some users as desired."""

    refused: dict[str, Refusal] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    #: Why some were not answered.
    error: NodeError | None = None


@dataclass(slots=True)
class LongChange:
    """A change of many users: looked at, made desired, applied; a little at a time."""

    change: _Change
    #: None from when its users are the desired ones.
    taking: UserIntake | None
    #: Whether it says something of all users.
    whole: bool
    work: Rollout | None = None
    applied: Applied = field(default_factory=Applied)


#: Desired users, and those that cannot be had.
Remembered = tuple[dict[str, bytes], dict[str, RejectedUser]]


class UserSync:
    """Owns the table of users. Belongs to the supervisor's loop; one caller at a time."""

    def __init__(self, core: CoreUsers, journal: Journal) -> None:
        self._core = core
        self._journal = journal
        self.table = UserTable(journal)
        #: Inbound -> loop time of its last swap.
        self._swapped_at: dict[str, float] = {}
        #: The last long change whose users are the desired ones: delivered again, it is applied, but not taken in again,
        #: for others may have changed users since.
        self._taken = ""
        self.overtaken = Superseded(journal)
        self.failures = RejectedUsers(journal)

    def __repr__(self) -> str:
        return f"UserSync({self.table!r}, {self.failures!r})"

    def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left."""
        self.table.restore(stored.users)
        self.overtaken.restore(stored.superseded)
        self.failures.restore(stored.rejected)
        self._taken = next((command for command, kind in stored.taken.items() if kind == TAKEN_KIND), "")

    def _now_taken(self, command: str) -> None:
        """The users of this long change are the desired ones."""
        if self._taken:
            self._journal.taken[self._taken] = None
        self._taken = command
        self._journal.taken[command] = TAKEN_KIND

    # --- commands -----------------------------------------------------------------------------------------------

    async def sync(self, commands: Sequence[Command], inbounds: Inbounds) -> Answers:
        """User changes of many callers as one: merged by e-mail, applied, each caller gets its own answer."""
        try:
            return await self._sync(commands, inbounds)
        except Exception:
            # A fault in one batch ends that batch, not the node: it would be delivered to the next one again.
            log.exception("changes of users failed", commands=[repr(command) for command in commands[:5]])
            # What was taken in is desired from now on; whatever the core has of it is looked at again.
            self.look_again()
            return [(command, Reply(error=InternalError(INTERNAL_TEXT))) for command in commands]

    def look_again(self) -> None:
        """After a fault nothing is certain of whoever is not as desired."""
        self.table.core_uncertain(self.table.differing(self.table.all_known()))

    async def _sync(self, commands: Sequence[Command], inbounds: Inbounds) -> Answers:
        changes = [_Change(command) for command in commands]
        bad: dict[str, InvalidRequestError] = {}
        # A user is decoded once: for whether it can be had, and for the plan.
        looked: dict[bytes, tuple[str, dict[str, Account]]] = {}
        touched: set[str] = set()
        for change in changes:
            try:
                if change.command.kind is Kind.SYNC_USER:
                    self._take_one(change, inbounds, looked)
                else:
                    await self._take_in(change, inbounds)
            except InvalidRequestError as error:
                bad[change.command.id] = error
            touched |= change.keys
        robbed = self.overtaken.robbed(touched, self.table)
        self.table.core_uncertain(robbed)
        touched |= robbed
        applied = await self.apply(touched, inbounds, looked)
        self.overtaken.add(touched - applied.refused.keys(), self.table)
        return [(change.command, _answer(change, bad.get(change.command.id), applied)) for change in changes]

    async def _take_in(self, change: _Change, inbounds: Inbounds) -> None:
        """Make what one command says the desired state; unusable users are left as they were."""
        taking = UserIntake(change.command.body, self.table, self.failures, inbounds)
        await _look(taking)
        change.keys, change.refusals = taking.commit()

    def _take_one(
        self, change: _Change, inbounds: Inbounds, looked: dict[bytes, tuple[str, dict[str, Account]]]
    ) -> None:
        """The same for a command with one user. Raises InvalidRequestError where that one is unusable."""
        body, table, failures = change.command.body, self.table, self.failures
        email = leading_email(body)
        if email is not None and table.get(key := email_key(email)) == body and key not in failures:
            # Known as it is, to the byte: nothing in it has to be read.
            change.keys = {key}
            return
        user = pb.User.FromString(body)
        change.keys = keys = set[str]()
        refusal = accept(validate(user, table, failures, inbounds, looked=looked), table, failures, keys)
        if refusal is not None:
            if refusal_of(user, inbounds) is not None:
                # One caller, one user: the request itself is wrong.
                raise InvalidRequestError(f"{refusal.cause} (user {refusal.email!r})")
            change.refusals = [refusal]

    async def replace(
        self,
        users: Iterable[pb.User],
        inbounds: Inbounds,
        *,
        check: Check = Check.CHANGED,
        clients: ClientJsonCache | None = None,
    ) -> list[Refusal]:
        """The set becomes exactly ``users``; those that cannot be applied stay as they were.

        ``clients`` gets those of everybody who is looked at, for a core that is about to be started.
        """
        taking = UserIntake(users, self.table, self.failures, inbounds, replace=True, check=check, clients=clients)
        await _look(taking)
        return taking.commit()[1]

    # --- long changes -------------------------------------------------------------------------------------------

    def begin(self, command: Command, inbounds: Inbounds) -> LongChange:
        """A full set or a long delta; :meth:`go_on` does it, a little at a time, and others may change users in between."""
        change = _Change(command)
        if command.id == self._taken:
            # Delivered again: who was left out is on the list, everybody else is desired, or was changed since.
            failed = [failure for key in self.failures if (failure := self.failures.get(key)) is not None]
            change.refusals = [Refusal(failure.email, failure.cause) for failure in failed]
            return LongChange(change, None, whole=True)
        body, replace = command.body, command.kind is Kind.SYNC_USERS
        # Megabytes.
        command.body = b""
        overtaken = self.overtaken.begin(command.id, self.table)
        taking = UserIntake(body, self.table, self.failures, inbounds, replace=replace, overtaken=overtaken)
        return LongChange(change, taking, whole=replace)

    async def go_on(self, long: LongChange, inbounds: Inbounds) -> Reply | None:
        """Do the next part of a long change; its answer, when it came to its end.

        A small one is done at once. Of a larger one the desired users are to be stored as soon as they are: between two parts.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + STEP_SECONDS
        while True:
            if long.taking is not None and not long.taking.look(SLICE):
                pass
            elif long.work is None:
                # In one go: once its users are the desired ones, it must not be taken in again over what others change.
                self._make_desired(long)
                differing = self.table.differing_all() if long.whole else self.table.differing(long.change.keys)
                if not differing:
                    return _answer(long.change, None, long.applied)
                self._now_taken(long.change.command.id)
                long.work = self._application(differing, inbounds)
                await long.work.choose()
            else:
                await long.work.step(self._settling(long.applied, inbounds), until)
                if long.work.done:
                    long.change.keys = long.change.keys | long.applied.refused.keys() | long.applied.unanswered
                    return _answer(long.change, None, long.applied)
            await asyncio.sleep(0)
            if loop.time() >= until:
                return None

    def end(self, long: LongChange) -> None:
        """It was answered, perhaps before it came to its end."""
        if long.taking is not None:
            self.overtaken.end()
        if long.work is not None:
            long.work.abandon()

    def _make_desired(self, long: LongChange) -> None:
        if long.taking is not None:
            long.change.keys, long.change.refusals = long.taking.commit()
            long.taking = None
            self.overtaken.end()

    async def apply(self, keys: Iterable[str], inbounds: Inbounds, looked: Looked = NOBODY_LOOKED) -> Applied:
        """Make the core have ``keys`` as desired; ``looked`` is what was found of some of them."""
        applied = Applied()
        differing = self.table.differing(keys)
        if not differing:
            return applied
        # A long change that is under way knows who is in the inbounds that it swapped: nobody else swaps meanwhile.
        swaps = not self.table.pending
        if len(differing) <= STEP_USERS:
            plan = self.table.plan(differing, inbounds, looked=looked)
            if not swaps or not any(self._would_swap(inbounds[part.tag], part) for part in plan.inbounds):
                await self._settle(plan.keys, await alter(self._core, plan), applied, inbounds)
                return applied
        work = self._application(differing, inbounds)
        await work.choose(swaps=swaps)
        while not work.done:
            await work.step(self._settling(applied, inbounds))
        return applied

    def _would_swap(self, inbound: InboundSpec, part: InboundPlan) -> bool:
        since = asyncio.get_running_loop().time() - self._swapped_at.get(inbound.tag, float("-inf"))
        users = len(self.table)
        # Nearly always it would not with any number of calls for so few changes: then they need not be counted.
        return choose_swap(inbound, 2 * len(part.changes), users, since) and choose_swap(
            inbound, part.calls, users, since
        )

    def _application(self, keys: Iterable[str], inbounds: Inbounds) -> Rollout:
        return Rollout(self._core, self.table, inbounds, keys, self._swapped_at)

    def _settling(self, applied: Applied, inbounds: Inbounds) -> Settle:
        return lambda keys, outcome: self._settle(keys, outcome, applied, inbounds)

    async def _settle(self, keys: Sequence[str], outcome: Outcome, applied: Applied, inbounds: Inbounds) -> None:
        """Note what became of ``keys``."""
        if not outcome.refused and not outcome.unanswered:
            self.table.core_has(keys)
            self.failures.drop(keys)
            return
        fine = [key for key in keys if key not in outcome.refused and key not in outcome.unanswered]
        before = {key: self.table.before(key) for key in outcome.refused}
        self.table.core_has(fine)
        self.failures.drop(fine)
        self.table.core_uncertain(outcome.unanswered)
        if outcome.refused:
            applied.refused |= await self.refuse(outcome.refused, before, inbounds)
        applied.unanswered |= outcome.unanswered
        if outcome.unanswered:
            applied.error = CoreUnavailableError(f"the core did not take all users: {outcome.error}")

    async def refuse(
        self, causes: Mapping[str, str], before: Mapping[str, bytes | None], inbounds: Inbounds
    ) -> dict[str, Refusal]:
        """The core refused a change of users (key -> cause): they go on the list, and it gets back what it had of them.

        ``before`` says what that was, None for nothing: then nothing of the user stays in any inbound.
        """
        refusals = {}
        for key, cause in causes.items():
            raw = self.table.get(key)
            email = pb.User.FromString(raw).email if raw is not None else key
            refusals[key] = Refusal(email, cause)
            if raw is not None:
                self.failures.put(key, email, cause, raw, by_core=True)
        self.table.core_uncertain(causes)
        desired = before
        while desired:
            for key, raw in desired.items():
                self.table.put(key, raw)
            plan = self.table.plan(desired, inbounds)
            outcome = await self._core.alter(plan.inbounds)
            self.table.core_has(desired.keys() - outcome.refused.keys() - outcome.unanswered)
            # Not even that: then nothing, unless that was it.
            desired = {key: None for key in outcome.refused if desired.get(key) is not None}
        return refusals

    async def try_failed_again(self, inbounds: Inbounds) -> None:
        """A core came up without the users that were refused before: perhaps it takes them. Never raises for a user."""
        keys: set[str] = set()
        for key in self.failures:
            failure = self.failures.get(key)
            if failure is not None:
                user = pb.User.FromString(failure.user)
                judged = validate(user, self.table, self.failures, inbounds, Check.AGAIN)
                accept(judged, self.table, self.failures, keys)
        if keys:
            await self.apply(keys, inbounds)

    async def reconcile_all(self, inbounds: Inbounds) -> None:
        """After taking over a core of which nothing is known: strangers are removed, and users brought in who differ. NodeError.

        Everybody else is left alone: whoever is removed and added again is turned away in between.
        """
        if not self._core.there:
            raise CoreNotStartedError
        fine = await self._core.compare(self.table, inbounds)
        self.table.core_has_nothing_certain()
        self.table.core_has(fine)
        log.info("compared with the core that was taken over", as_desired=len(fine), others=len(self.table) - len(fine))
        applied = await self.apply(self.table.all_known(), inbounds)
        if applied.error is not None:
            raise applied.error

    async def forget_all(self) -> None:
        """No user is desired any more, and there is no core that has one."""
        for number, key in enumerate(self.table.keys()):
            self.table.put(key, None)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self.table.core_has_all()
        self.failures.drop_all_but(())

    def remember(self) -> Remembered:
        """The users as they are now, for :meth:`return_to`."""
        return dict(self.table.items()), self.failures.copy()

    def return_to(self, remembered: Remembered) -> None:
        """The users as they were before a start that failed; what differs goes to the store again."""
        desired, failed = remembered
        self.failures.return_to(failed)
        self.table.return_to(desired)


async def _look(taking: UserIntake) -> None:
    while True:
        if taking.look(SLICE):
            return
        await asyncio.sleep(0)


def _answer(change: _Change, bad: InvalidRequestError | None, applied: Applied) -> Reply:
    if bad is not None:
        return Reply(error=bad)
    if not change.refusals and not applied.refused and applied.error is None:
        return _DONE
    refusals = [*change.refusals] + [applied.refused[key] for key in change.keys & applied.refused.keys()]
    if refusals:
        shown = "; ".join(str(refusal) for refusal in refusals[:REFUSALS_SHOWN])
        more = f"; and {len(refusals) - REFUSALS_SHOWN} more" if len(refusals) > REFUSALS_SHOWN else ""
        return Reply(error=UsersRefusedError(f"failed to update users: {shown}{more}"))
    if applied.error is not None and not change.keys.isdisjoint(applied.unanswered):
        return Reply(error=applied.error)
    return Reply()
