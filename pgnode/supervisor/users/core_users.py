"""The users in the running core: altered one by one, swapped as a whole, listed and compared. All calls end in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from pgnode.errors import CoreUnavailableError
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.users.decoding import Inbounds, accounts_of_users
from pgnode.supervisor.users.planning import Change, InboundPlan
from pgnode.supervisor.users.table import UserTable
from pgnode.xray.client.errors import CoreApiError, ErrorKind, SwapFailedError
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.accounts import (
    Account,
    credential_of,
    email_key,
    further_credentials,
    is_user,
    listed_credentials,
    user_message,
)

log = structlog.get_logger(__name__)

#: Users encoded or compared at a time before the event loop gets its turn.
SLICE = 1000

#: A call of the class itself takes twice as long.
_new: Final = tuple.__new__


@dataclass(slots=True)
class Outcome:
    """What became of a set of changes."""

    #: Key -> the core's reason, for users that it does not take.
    refused: dict[str, str] = field(default_factory=dict)
    #: Keys of users whose calls did not come to an end, because the core does not answer.
    unanswered: set[str] = field(default_factory=set)
    #: Why not.
    error: str = ""

    def note(self, key: str, error: CoreApiError) -> None:
        """Note that a call about the user ``key`` failed for good."""
        if error.kind in (ErrorKind.REFUSED, ErrorKind.ALREADY_EXISTS):
            self.refused[key] = str(error)
        else:
            self.unanswered.add(key)
            self.error = str(error)


def _result(error: CoreApiError | None) -> str:
    """Name what the core made of a call."""
    if error is None or error.kind is ErrorKind.NOT_FOUND:
        return "ok"
    return "refused" if error.kind in (ErrorKind.REFUSED, ErrorKind.ALREADY_EXISTS) else "unanswered"


def _addition(tag: str, change: Change) -> AlterOperation:
    assert change.new is not None
    email = change.new_email or ""
    return _new(AlterOperation, (tag, email, user_message(email, change.new)))


class CoreUsers:
    """Calls about users to whatever core runs. Belongs to the supervisor's loop.

    Args:
        core: The process, and the way to its API.
        call_timeout_seconds: Seconds that one call, or one set of changes, may take.
        stranger: Is told of whoever was removed who should not have been there: key and inbound.
    """

    def __init__(
        self,
        core: CoreController,
        call_timeout_seconds: float,
        stranger: Callable[[str, str], None] = lambda _key, _tag: None,
    ) -> None:
        self._stranger = stranger
        self._core = core
        self._timeout_seconds = call_timeout_seconds
        #: Changes that were made in the core: (add, remove or swap; ok, refused or unanswered) -> how many.
        self.calls: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"CoreUsers({self._core!r})"

    @property
    def there(self) -> bool:
        """Whether there is a core that can be asked."""
        return self._core.api is not None

    def _is_away(self, tag: str) -> bool:
        """Whether an inbound is out of the core for a while: it comes back with everybody who is desired then."""
        api = self._core.api
        return api is not None and tag in api.inbounds.away

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        """Carry out ``plans``: all removals, and then all additions. Nothing is to be done for an inbound that is away.

        Args:
            plans: What to change, inbound by inbound.
            chained: Make each addition right behind its own removal. That is faster, and each user is away for a moment only; for
                plans in which no credential moves from one user to another.

        Returns:
            Whom the core refused, and about whom it did not answer.
        """
        outcome = Outcome()
        plans = [plan for plan in plans if not self._is_away(plan.tag)]
        removals = [(plan.tag, change) for plan in plans for change in plan.changes if change.old_email is not None]
        additions = [(plan.tag, change) for plan in plans for change in plan.changes if change.new is not None]
        if chained:
            # Calls about one user of one inbound are made one after the other.
            await self._alter(removals, additions, outcome)
        else:
            await self._alter(removals, (), outcome)
            await self._alter((), [c for c in additions if c[1].key not in outcome.unanswered], outcome)
        return outcome

    async def _alter(
        self, removals: Sequence[tuple[str, Change]], additions: Sequence[tuple[str, Change]], outcome: Outcome
    ) -> None:
        api = self._core.api
        if api is None:
            outcome.unanswered.update(change.key for _, change in (*removals, *additions))
            outcome.error = "the core has ended"
            return
        operations = [_new(AlterOperation, (tag, change.old_email or "", None)) for tag, change in removals]
        operations += [_addition(tag, change) for tag, change in additions]
        results = await api.users.alter_many(operations, self._timeout_seconds)
        if not any(results):
            # As nearly always.
            self.calls["remove", "ok"] += len(removals)
            self.calls["add", "ok"] += len(additions)
            return
        self.calls.update(("remove", _result(error)) for error in results[: len(removals)])
        self.calls.update(("add", _result(error)) for error in results[len(removals) :])
        for (_, change), error in zip(removals, results, strict=False):
            if error is not None and error.kind is not ErrorKind.NOT_FOUND:
                outcome.note(change.key, error)
        again = []
        for (tag, change), error in zip(additions, results[len(removals) :], strict=True):
            if error is None:
                continue
            if error.kind is ErrorKind.ALREADY_EXISTS:
                # Somebody with this e-mail is there: with which account is not known, so make it ours.
                again.append((tag, change))
            else:
                outcome.note(change.key, error)
        if again:
            await self._replace(again, outcome)

    async def _replace(self, changes: Sequence[tuple[str, Change]], outcome: Outcome) -> None:
        api = self._core.api
        if api is None:
            return
        removals = [AlterOperation(tag, change.new_email or "") for tag, change in changes]
        await api.users.alter_many(removals, self._timeout_seconds)
        results = await api.users.alter_many([_addition(tag, change) for tag, change in changes], self._timeout_seconds)
        for (_, change), error in zip(changes, results, strict=True):
            if error is not None:
                outcome.note(change.key, error)

    async def prepare_swap(self, tag: str) -> None:
        """Learn how the core encodes this inbound, so that a swap has it at hand; where that fails, the swap will tell."""
        if self._core.api is not None and not self._is_away(tag):
            with contextlib.suppress(CoreApiError):
                await self._core.api.inbounds.bare_inbound(tag, self._timeout_seconds)

    async def swap(
        self, tag: str, messages: Sequence[bytes], before: Callable[[], Awaitable[Sequence[bytes]]]
    ) -> int | None:
        """Give an inbound exactly these users.

        Args:
            tag: The inbound.
            messages: Serialized User messages.
            before: Makes the messages of those it has now, for when the core refuses.

        Returns:
            How many from the end of ``messages`` did not fit; None where the core refused and has what it had before, or where
            the inbound is away.

        Raises:
            CoreUnavailableError: Nothing is certain any more.
        """
        if self._core.api is None:
            raise CoreUnavailableError("the core has ended")
        if self._is_away(tag):
            return None
        try:
            left_out = len(await self._core.api.swap.replace_users(tag, messages, self._timeout_seconds, before))
            self.calls["swap", "ok"] += 1
            return left_out
        except SwapFailedError as error:
            self.calls["swap", "refused"] += 1
            if not error.restored and self._core.running is not None:
                # An inbound is gone for good: only a new core has all of them again, and it starts with all users.
                log.error("the core lost an inbound, ending it", inbound=tag, error=str(error))
                await self._core.give_up_process()
                raise CoreUnavailableError(f"the core lost inbound {tag!r}: {error}") from None
            log.warning("swap failed, altering instead", inbound=tag, error=str(error))
        except CoreApiError as error:
            self.calls["swap", _result(error)] += 1
            log.warning("swap failed, altering instead", inbound=tag, error=str(error))
        return None

    async def compare(self, users: UserTable, inbounds: Inbounds) -> set[str]:
        """Find out whom the core has as desired; whoever should not be there is removed.

        Args:
            users: Who is desired.
            inbounds: The inbounds to look at, by tag; one that is away has nobody who is not desired.

        Returns:
            Keys of the users whom the core has exactly as desired, in every inbound.

        Raises:
            CoreUnavailableError: The core did not answer.
        """
        inbounds = {tag: spec for tag, spec in inbounds.items() if not self._is_away(tag)}
        accounts = await accounts_by_tag(users, inbounds)
        fine = users.keys()
        for tag in inbounds:
            api = self._core.api
            if api is None:
                raise CoreUnavailableError("the core has ended")
            try:
                there = await api.users.inbound_users(tag, self._timeout_seconds)
            except CoreApiError as error:
                raise CoreUnavailableError(f"the users of inbound {tag!r} are not known: {error}") from None
            wanted = {email: (key, account) for key, (email, account) in accounts[tag].items()}
            times = Counter(user.email for user in there)
            found: set[str] = set()
            #: Credentials that somebody is listed with who is to be removed, now or later.
            odd: set[str] = set()
            strangers: list[AlterOperation] = []
            for number, user in enumerate(there):
                entry = wanted.get(user.email)
                if entry is not None and times[user.email] == 1 and is_user(user, entry[1]):
                    found.add(entry[0])
                else:
                    odd |= listed_credentials(user)
                    if entry is None:
                        strangers.append(AlterOperation(tag, user.email))
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
            fine -= accounts[tag].keys() - found
            if odd:
                # The core forgets a credential with either of two listed with it, and gives an address to the later one of
                # two: whoever is desired is put again.
                fine -= {
                    key
                    for key, (_, account) in accounts[tag].items()
                    if credential_of(account) in odd or not odd.isdisjoint(further_credentials(account))
                }
            for stranger, failure in zip(
                strangers, await api.users.alter_many(strangers, self._timeout_seconds), strict=True
            ):
                if failure is not None and failure.kind is not ErrorKind.NOT_FOUND:
                    fine.discard(email_key(stranger.email))
                    log.warning("a user of the core stays until the next core", user=stranger.email, error=str(failure))
                elif email_key(stranger.email) not in accounts[tag]:
                    self._stranger(email_key(stranger.email), tag)
        return fine


async def accounts_by_tag(users: UserTable, inbounds: Inbounds) -> dict[str, dict[str, tuple[str, Account]]]:
    """Return the accounts of all desired users: tag -> key -> (e-mail, account). The event loop gets its turns meanwhile."""
    found: dict[str, dict[str, tuple[str, Account]]] = {tag: {} for tag in inbounds}
    keys = list(users.keys())
    for at in range(0, len(keys), SLICE):
        for tag, of_tag in accounts_of_users(users.desired, keys[at : at + SLICE], inbounds).items():
            found[tag].update(of_tag)
        await asyncio.sleep(0)
    return found
