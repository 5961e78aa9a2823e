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
from google.protobuf.message import DecodeError
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
from pgnode.supervisor.application import STEP_USERS, Application
from pgnode.supervisor.commands import INTERNAL_TEXT, Answers
from pgnode.supervisor.core_control import CoreControl, Outcome
from pgnode.supervisor.failures import Failures
from pgnode.supervisor.keeper import Undo
from pgnode.supervisor.planner import choose_swap
from pgnode.supervisor.store import Store
from pgnode.supervisor.users import Refusal, UserTable, refusal_of
from pgnode.wire import service_pb2 as pb
from pgnode.wire.users import leading_email, split_users
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


@dataclass(slots=True)
class LongChange:
    """A change of many users that was taken in and is being applied."""

    change: _Change
    work: Application
    applied: Applied = field(default_factory=Applied)


class UserSync:
    """Owns the table of users. Belongs to the supervisor's loop; one caller at a time."""

    def __init__(self, core: CoreControl, store: Store) -> None:
        self._core = core
        self._store = store
        self.table = UserTable()
        #: Inbound -> loop time of its last swap.
        self._swapped_at: dict[str, float] = {}
        #: The last long change whose users are the desired ones: delivered again, it is applied, but not taken in again,
        #: for others may have changed users since.
        self.taken = ""
        self._taken_unstored = False
        self.failures = Failures(store)
        self._stored_count = -1

    def __repr__(self) -> str:
        return f"UserSync({self.table!r}, {self.failures!r})"

    # --- the copy in the store ----------------------------------------------------------------------------------

    def stage(self, pipe: Pipeline) -> Undo | None:
        unstored, self.table.unstored = self.table.unstored, set()
        count = self.table.applied_count
        if not unstored and not self._taken_unstored and count == self._stored_count:
            return None
        self._stored_count = count
        self._store.put_applied_count(pipe, count)
        self._store.put_users(pipe, {key: self.table.get(key) for key in unstored})
        taken, self._taken_unstored = self._taken_unstored, False
        if taken:
            self._store.put_taken(pipe, self.taken)

        def undo() -> None:
            self.table.unstored |= unstored
            self._taken_unstored |= taken
            self._stored_count = -1

        return undo

    def stage_all(self, pipe: Pipeline) -> Undo | None:
        self.table.unstored = set()
        self._taken_unstored = False
        self._stored_count = self.table.applied_count
        self._store.put_applied_count(pipe, self._stored_count)
        self._store.clear_users(pipe)
        self._store.put_taken(pipe, self.taken)
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
            self.look_again()
            return [(command, Reply(error=InternalError(INTERNAL_TEXT))) for command in commands]

    def look_again(self) -> None:
        """After a fault nothing is certain of whoever is not as desired."""
        self.table.core_uncertain(self.table.differing(self.table.all_known()))

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
        change.refusals += await self._take_users(_users_in(command.body), change.keys, inbounds)

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
        self, users: Iterable[bytes | pb.User], keys: set[str], inbounds: Inbounds, check: Check = Check.CHANGED
    ) -> list[Refusal]:
        """Take in users, given as messages or as their bytes, which need no parsing where they are known."""
        refusals = []
        spelled: dict[str, str] = {}
        look_closer = check is not Check.CHANGED or bool(self.failures)
        for number, given in enumerate(users):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if isinstance(given, bytes):
                email = None if look_closer else leading_email(given)
                if (
                    email is not None
                    and self.table.get(key := email_key(email)) == given
                    and spelled.setdefault(key, email) == email
                ):
                    keys.add(key)
                    continue
                user = pb.User.FromString(given)
            else:
                user = given
            first = spelled.setdefault(email_key(user.email), user.email)
            refusal = (
                self._take_user(user, keys, inbounds, check)
                if first == user.email
                else Refusal(user.email, f"differs only in case from {first!r}, which the core takes for the same user")
            )
            if refusal is not None:
                refusals.append(refusal)
        return refusals

    async def replace(
        self,
        users: Iterable[bytes | pb.User],
        inbounds: Inbounds,
        keys: set[str] | None = None,
        *,
        check: Check = Check.CHANGED,
    ) -> list[Refusal]:
        """The set becomes exactly ``users``; those that cannot be applied stay as they were."""
        named = keys if keys is not None else set()
        refusals = await self._take_users(users, named, inbounds, check)
        kept = named | {email_key(refusal.email) for refusal in refusals}
        self.failures.drop_all_but(kept)
        for key in self.table.keys() - kept:
            self.table.put(key, None)
            named.add(key)
        return refusals

    # --- long changes -------------------------------------------------------------------------------------------

    async def begin(self, command: Command, inbounds: Inbounds) -> Reply | LongChange:
        """Take in a full set or a long delta. It is desired from here on; :meth:`go_on` brings the core to it, in steps.

        Answered at once where the core has it all.
        """
        change = _Change(command)
        if command.id == self.taken:
            # Delivered again: who was left out is on the list, everybody else is desired, or was changed since.
            failed = [failure for key in self.failures if (failure := self.failures.get(key)) is not None]
            change.refusals += [Refusal(failure.email, failure.cause) for failure in failed]
            keys: Iterable[str] = self.table.all_known()
        elif command.kind is Kind.SYNC_USERS:
            change.refusals += await self.replace(_users_in(command.body), inbounds, change.keys)
            keys = self.table.all_known()
        else:
            change.refusals += await self._take_users(_users_in(command.body), change.keys, inbounds)
            keys = change.keys
        # Megabytes.
        command.body = b""
        differing = self.table.differing(keys)
        if not differing:
            return _answer(change, None, Applied())
        work = self._application(differing, inbounds)
        await work.choose()
        self.taken, self._taken_unstored = command.id, True
        return LongChange(change, work)

    async def go_on(self, long: LongChange, inbounds: Inbounds) -> Reply | None:
        """The next step of a long change; its answer, when it came to its end."""
        if not long.work.done:
            await self._settle(*await long.work.step(), long.applied, inbounds)
        if not long.work.done:
            return None
        long.change.keys |= long.applied.refused.keys() | long.applied.unanswered
        return _answer(long.change, None, long.applied)

    async def apply(self, keys: Iterable[str], inbounds: Inbounds) -> Applied:
        """Make the core have ``keys`` as desired."""
        applied = Applied()
        differing = self.table.differing(keys)
        if not differing:
            return applied
        # A long change that is under way knows who is in the inbounds that it swapped: nobody else swaps meanwhile.
        swaps = not self.table.pending
        if len(differing) <= STEP_USERS:
            plans = self.table.plan(differing, inbounds)
            if not swaps or not any(self._would_swap(inbounds[plan.tag], plan.calls) for plan in plans):
                await self._settle(differing, await self._core.alter(plans), applied, inbounds)
                return applied
        work = self._application(differing, inbounds)
        await work.choose(swaps=swaps)
        while not work.done:
            await self._settle(*await work.step(), applied, inbounds)
        return applied

    def _would_swap(self, inbound: InboundSpec, calls: int) -> bool:
        since = asyncio.get_running_loop().time() - self._swapped_at.get(inbound.tag, float("-inf"))
        return choose_swap(inbound, calls, len(self.table), since)

    def _application(self, keys: Iterable[str], inbounds: Inbounds) -> Application:
        return Application(self._core, self.table, inbounds, keys, self._swapped_at)

    async def _settle(self, keys: Sequence[str], outcome: Outcome, applied: Applied, inbounds: Inbounds) -> None:
        """Note what became of ``keys``."""
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
            outcome = await self._core.alter(self.table.plan(desired, inbounds))
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
        """After taking over a core of which nothing is known: strangers are removed, and users brought in who differ. NodeError.

        Everybody else is left alone: whoever is removed and added again is turned away in between.
        """
        if self._core.api is None:
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

    def return_to(self, desired: Mapping[str, bytes]) -> None:
        """The users as they were before a start that failed; what differs goes to the store again."""
        now, self.table = self.table, UserTable()
        self.table.restore(desired)
        self.table.unstored = (now.keys() | desired.keys()) if now.unstored else set()


def _users_in(body: bytes) -> Iterable[bytes | pb.User]:
    """The users of a ``Users`` message."""
    try:
        # One look at the borders of all, so that what is odd is found before anybody is taken in.
        for _ in split_users(body):
            pass
    except DecodeError:
        return pb.Users.FromString(body).users
    return split_users(body)


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
