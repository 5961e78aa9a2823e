"""Changes of users: what callers ask is made the desired state, and the core is brought to it by difference.

What a command says is taken in whole: users that cannot be applied stay as they were and their caller is told, everybody else
is applied. Called with the node's turn held.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from redis.asyncio.client import Pipeline

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    InternalError,
    InvalidRequestError,
    NodeError,
    UsersRefusedError,
)
from pgnode.supervisor.commands import INTERNAL_TEXT, Answers
from pgnode.supervisor.core_control import CoreControl
from pgnode.supervisor.failures import Failures
from pgnode.supervisor.keeper import Undo
from pgnode.supervisor.store import Store
from pgnode.supervisor.users import Refusal, UserTable, refusal_of
from pgnode.wire import service_pb2 as pb
from pgnode.xray.accounts import email_key
from pgnode.xray.config import InboundSpec

log = structlog.get_logger(__name__)

#: Users looked at before the event loop gets its turn.
SLICE = 500

#: Users named in the error of one call; the panel cuts the text anyway.
REFUSALS_SHOWN = 5

#: The inbounds whose users the node owns, by tag.
Inbounds = Mapping[str, InboundSpec]


class Check(enum.Enum):
    """Which users are looked at when they are taken in; whoever is not gets the answer of the last time."""

    CHANGED = enum.auto()  # those that changed
    ALL = enum.auto()  # all, for inbounds that may have changed; what the core refused it does not get again
    AGAIN = enum.auto()  # also that


@dataclass(slots=True)
class _Change:
    """One command that changes users, on its way."""

    command: Command
    keys: set[str] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(slots=True)
class Applied:
    """What became of an attempt to make the core have some users as desired."""

    refused: dict[str, Refusal] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    #: Why some were not answered.
    error: NodeError | None = None


class UserSync:
    """Owns the table of users. Belongs to the supervisor's loop; one caller at a time."""

    def __init__(self, core: CoreControl, store: Store) -> None:
        self._core = core
        self._store = store
        self.table = UserTable()
        self.failures = Failures(store)
        self._stored_count = -1

    def __repr__(self) -> str:
        return f"UserSync({self.table!r}, {self.failures!r})"

    # --- the copy in the store ----------------------------------------------------------------------------------

    def stage(self, pipe: Pipeline) -> Undo | None:
        unstored, self.table.unstored = self.table.unstored, set()
        count = self.table.applied_count
        if not unstored and count == self._stored_count:
            return None
        self._stored_count = count
        self._store.put_applied_count(pipe, count)
        self._store.put_users(pipe, {key: self.table.get(key) for key in unstored})

        def undo() -> None:
            self.table.unstored.update(unstored)
            self._stored_count = -1

        return undo

    def stage_all(self, pipe: Pipeline) -> Undo | None:
        self.table.unstored = set()
        self._stored_count = self.table.applied_count
        self._store.put_applied_count(pipe, self._stored_count)
        self._store.clear_users(pipe)
        self._store.put_users(pipe, dict(self.table.items()))
        return lambda: self.table.unstored.update(self.table.keys())

    # --- commands -----------------------------------------------------------------------------------------------

    async def sync(self, commands: Sequence[Command], inbounds: Inbounds) -> Answers:
        """User changes of many callers as one: merged by e-mail, applied, each caller gets its own answer."""
        try:
            return await self._sync(commands, inbounds)
        except Exception:
            # A fault in one batch ends that batch, not the node: it would be delivered to the next one again.
            log.exception("changes of users failed", commands=[repr(command) for command in commands[:5]])
            # What was taken in is desired from now on; whatever the core has of it is looked at again.
            self.table.core_uncertain(self.table.differing(self.table.all_known()))
            return [(command, Reply(error=InternalError(INTERNAL_TEXT))) for command in commands]

    async def _sync(self, commands: Sequence[Command], inbounds: Inbounds) -> Answers:
        changes = [_Change(command) for command in commands]
        bad: dict[str, InvalidRequestError] = {}
        for change in changes:
            try:
                await self._take_in(change, inbounds)
            except InvalidRequestError as error:
                bad[change.command.id] = error
        touched = set().union(*(change.keys for change in changes))
        applied = await self.apply(touched, inbounds)
        return [(change.command, _answer(change, bad.get(change.command.id), applied)) for change in changes]

    async def _take_in(self, change: _Change, inbounds: Inbounds) -> None:
        """Make what one command says the desired state; unusable users are left as they were."""
        command = change.command
        if command.kind is Kind.SYNC_USER:
            user = pb.User.FromString(command.body)
            refusal = self._take_user(user, change.keys, inbounds)
            if refusal is not None and refusal_of(user, inbounds) is not None:
                # One caller, one user: the request itself is wrong.
                raise InvalidRequestError(f"{refusal.cause} (user {refusal.email!r})")
            change.refusals += [refusal] if refusal is not None else []
            return
        users = await asyncio.to_thread(pb.Users.FromString, command.body)
        if command.kind is Kind.SYNC_USERS:
            change.refusals += await self.replace(users.users, inbounds, change.keys)
        else:
            change.refusals += await self._take_users(users.users, inbounds, change.keys)

    def _take_user(
        self, user: pb.User, keys: set[str], inbounds: Inbounds, check: Check = Check.CHANGED
    ) -> Refusal | None:
        key = email_key(user.email)
        raw = user.SerializeToString(deterministic=True) if user.inbounds else None
        known = self.table.get(key) == raw
        if raw is None or not known or check is not Check.CHANGED:
            failure = self.failures.get(key)
            if failure is not None and failure.user == raw:
                stands = check is Check.CHANGED or (check is Check.ALL and failure.by_core)
                if stands:
                    return Refusal(failure.email, failure.cause)
            refusal = refusal_of(user, inbounds) if raw is not None or not user.email else None
            if refusal is not None:
                if user.email and raw is not None:
                    self.failures.put(key, user.email, refusal.cause, raw, by_core=False)
                if known:
                    # It was fine with the inbounds of before.
                    self.table.put(key, None)
                    keys.add(key)
                return refusal
            self.table.put(key, raw)
        if raw is None or raw == self.table.applied(key):
            # Nothing that waits to be tried again: the caller wants it as it is now, or not at all.
            self.failures.drop([key])
        keys.add(key)
        return None

    async def _take_users(
        self, users: Sequence[pb.User], inbounds: Inbounds, keys: set[str], check: Check = Check.CHANGED
    ) -> list[Refusal]:
        refusals = []
        spelled: dict[str, str] = {}
        for number, user in enumerate(users):
            first = spelled.setdefault(email_key(user.email), user.email)
            refusal = (
                self._take_user(user, keys, inbounds, check)
                if first == user.email
                else Refusal(user.email, f"differs only in case from {first!r}, which the core takes for the same user")
            )
            if refusal is not None:
                refusals.append(refusal)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        return refusals

    async def replace(
        self,
        users: Sequence[pb.User],
        inbounds: Inbounds,
        keys: set[str] | None = None,
        *,
        check: Check = Check.CHANGED,
    ) -> list[Refusal]:
        """The set becomes exactly ``users``; those that cannot be applied stay as they were."""
        named = keys if keys is not None else set()
        refusals = await self._take_users(users, inbounds, named, check)
        self.failures.drop_all_but({email_key(user.email) for user in users} if self.failures else ())
        kept = named | {email_key(refusal.email) for refusal in refusals}
        for key in self.table.keys() - kept:
            self.table.put(key, None)
            named.add(key)
        return refusals

    async def apply(self, keys: Iterable[str], inbounds: Inbounds) -> Applied:
        """Make the core have ``keys`` as desired."""
        applied = Applied()
        differing = self.table.differing(keys)
        if not differing:
            return applied
        plans = self.table.plan(differing, inbounds)
        if plans:
            ways = [f"{plan.tag}: {plan.calls} {'swapped' if plan.swap else 'altered'}" for plan in plans]
            log.debug("applying users", users=len(differing), inbounds=ways)
        outcome = await self._core.apply(plans, self.table, inbounds)
        fine = set(differing) - outcome.refused.keys() - outcome.unanswered
        self.table.core_has(fine)
        self.failures.drop(fine)
        self.table.core_uncertain(outcome.unanswered)
        if outcome.refused:
            before = {key: self.table.applied(key) for key in outcome.refused}
            applied.refused = await self.refuse(outcome.refused, before, inbounds)
        applied.unanswered = outcome.unanswered
        if outcome.unanswered:
            applied.error = CoreUnavailableError(f"the core did not take all users: {outcome.error}")
        return applied

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
            outcome = await self._core.apply(self.table.plan(desired, inbounds), self.table, inbounds)
            self.table.core_has(desired.keys() - outcome.refused.keys() - outcome.unanswered)
            # Not even that: then nothing, unless that was it.
            desired = {key: None for key in outcome.refused if desired[key] is not None}
        return refusals

    async def try_failed_again(self, inbounds: Inbounds) -> None:
        """A core came up without the users that were refused before: perhaps it takes them. Never raises for a user."""
        keys: set[str] = set()
        for key in self.failures:
            failure = self.failures.get(key)
            if failure is not None:
                self._take_user(pb.User.FromString(failure.user), keys, inbounds, Check.AGAIN)
        if keys:
            await self.apply(keys, inbounds)

    async def reconcile_all(self, inbounds: Inbounds) -> None:
        """After taking over a core of which nothing is known: remove strangers, then bring everybody in. NodeError."""
        if self._core.api is None:
            raise CoreNotStartedError
        await self._core.remove_strangers(self.table, inbounds)
        self.table.core_has_nothing_certain()
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

    def return_to(self, desired: Mapping[str, bytes]) -> None:
        """The users as they were before a start that failed; what differs goes to the store again."""
        now, self.table = self.table, UserTable()
        self.table.restore(desired)
        self.table.unstored = (now.keys() | desired.keys()) if now.unstored else set()


def _answer(change: _Change, bad: InvalidRequestError | None, applied: Applied) -> Reply:
    if bad is not None:
        return Reply(error=bad)
    refusals = change.refusals + [applied.refused[key] for key in change.keys & applied.refused.keys()]
    if refusals:
        shown = "; ".join(str(refusal) for refusal in refusals[:REFUSALS_SHOWN])
        more = f"; and {len(refusals) - REFUSALS_SHOWN} more" if len(refusals) > REFUSALS_SHOWN else ""
        return Reply(error=UsersRefusedError(f"failed to update users: {shown}{more}"))
    if applied.error is not None and not change.keys.isdisjoint(applied.unanswered):
        return Reply(error=applied.error)
    return Reply()
