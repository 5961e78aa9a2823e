"""Changes of users: what callers ask is made the desired state, and the core is brought to it by difference.

What a command says is taken in whole: users that cannot be applied stay as they were and their caller is told, everybody else
is applied. Called with the core's lock held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

import structlog

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import CoreNotStartedError, InternalError, InvalidRequestError
from pgnode.store.changes import Journal
from pgnode.store.rows import TAKEN_USERS, RejectedUser
from pgnode.store.state import StoredState
from pgnode.supervisor.commands.dispatcher import INTERNAL_TEXT, Answers
from pgnode.supervisor.users.answers import Applied, UserChange, answer_to
from pgnode.supervisor.users.applying import UserApplier
from pgnode.supervisor.users.bulk import BulkChange
from pgnode.supervisor.users.core_users import CoreUsers
from pgnode.supervisor.users.credentials import CredentialIndex
from pgnode.supervisor.users.decoding import NOTHING_DECODED, DecodedUsers, Inbounds, Refusal, decode, refusal_of
from pgnode.supervisor.users.departures import Departures
from pgnode.supervisor.users.intake import UserIntake
from pgnode.supervisor.users.learning import learn_credentials
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.rejection_log import RejectionLog
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.rollout import StepLimits, SwapPolicy
from pgnode.supervisor.users.settling import Settled, settle_credentials
from pgnode.supervisor.users.stored_users import sort_out
from pgnode.supervisor.users.superseded import Superseded
from pgnode.supervisor.users.swap_policy import choose_swap
from pgnode.supervisor.users.table import UserTable
from pgnode.supervisor.users.verdicts import Check, accept, validate
from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import shown
from pgnode.wire.users import leading_email
from pgnode.xray.config.accounts import Account, credential_of, email_key, further_credentials

log = structlog.get_logger(__name__)

#: Desired users, those that cannot be had, and who has which credential.
Remembered = tuple[dict[str, bytes], dict[str, RejectedUser], CredentialIndex]


class UserSync:
    """Owns the users. Belongs to the supervisor's loop; one caller at a time.

    Args:
        core: The users in the core.
        journal: Where changes are noted that are to be stored.
        limits: How much is done at a time.
        policy: Says whether an inbound is swapped.
        departures: Is told whose accounts went; None: nobody wants to know.
    """

    def __init__(
        self,
        core: CoreUsers,
        journal: Journal,
        limits: StepLimits = StepLimits(),  # noqa: B008 - frozen
        policy: SwapPolicy = choose_swap,
        departures: Departures | None = None,
    ) -> None:
        self.departures = departures if departures is not None else Departures(journal)
        self._core = core
        self._journal = journal
        self._limits = limits
        self.table = UserTable(journal)
        self.rejected = RejectedUsers(journal, time.time, RejectionLog().tell)
        self.superseded = Superseded(journal)
        self._applier = UserApplier(core, self.table, self.rejected, limits, policy, departures=self.departures)
        #: Nobody knows which users the core has.
        self._core_unknown = False
        #: The last bulk change whose users are the desired ones: delivered again, it is applied, but not taken in again,
        #: for others may have changed users since.
        self._taken = ""
        #: The bulk change that is under way.
        self._bulk: BulkChange | None = None

    @property
    def core_calls(self) -> Mapping[tuple[str, str], int]:
        """What was changed in the core (:attr:`CoreUsers.calls`)."""
        return self._core.calls

    def __repr__(self) -> str:
        """Say how many users there are."""
        return f"UserSync({self.table!r}, {self.rejected!r})"

    def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left. Whoever cannot be had is set aside, and all others are served."""
        found = sort_out(stored.users, stored.rejected, int(time.time() * 1000))
        self.table.restore(found.users, stored.changed_users)
        self.superseded.restore(stored.superseded)
        self.rejected.restore(found.rejected)
        if found.set_aside or found.renamed:
            self._journal.users.update(dict.fromkeys(found.set_aside))
            self._journal.rejected.update(dict.fromkeys(found.renamed))
            self._journal.rejected.update(
                (key, user) for key, user in found.rejected.items() if key not in stored.rejected
            )
        if found.set_aside:
            log.warning("stored users are set aside: 'pgnode users --failed' shows them", count=len(found.set_aside))
        self.departures.restore(stored.departed, self.table.get)
        self._taken = next((command for command, kind in stored.taken.items() if kind == TAKEN_USERS), "")

    # --- commands -----------------------------------------------------------------------------------------------

    async def sync(
        self, commands: Sequence[Command], inbounds: Inbounds, noted: Callable[[], None] = lambda: None
    ) -> Answers:
        """Do small changes of many callers as one: merged by e-mail, applied.

        Args:
            commands: The changes, in the order in which they came.
            inbounds: The inbounds, by tag.
            noted: Called before the core is, where there are few users to change. The journal has all that is desired by then.

        Returns:
            An answer for each.
        """
        try:
            return await self._sync(commands, inbounds, noted)
        except asyncio.CancelledError:
            # What was taken in is stored as desired, and the next supervisor does not know what the core had.
            self.departures.promise(self.table, self.table.differing_all())
            raise
        except Exception:
            # A fault in one batch ends that batch, not the node: it would be delivered to the next one again.
            log.exception("changes of users failed", commands=[repr(command) for command in commands[:5]])
            # What was taken in is desired from now on; whatever the core has of it is looked at again.
            differing = self.table.differing_all()
            self.departures.promise(self.table, differing)
            self.table.core_uncertain(differing)
            return [(command, Reply(error=InternalError(INTERNAL_TEXT))) for command in commands]

    async def _sync(self, commands: Sequence[Command], inbounds: Inbounds, noted: Callable[[], None]) -> Answers:
        changes = [UserChange(command) for command in commands]
        learned = await self._learn(inbounds)
        bad: dict[str, InvalidRequestError] = {}
        # A user is decoded once: for whether it can be had, and for the plan.
        decoded: dict[bytes, tuple[str, dict[str, Account]]] = {}
        touched: set[str] = set()
        for change in changes:
            try:
                if change.command.kind is Kind.SYNC_USER:
                    self._take_one(change, inbounds, decoded)
                else:
                    await self._take_in(change, inbounds)
            except InvalidRequestError as error:
                bad[change.command.id] = error
            touched |= change.keys
        if self.superseded.reading:
            self.table.core_uncertain(self._users_losing_credentials(touched, inbounds))
        applied = await self._apply_settled(changes, touched, learned, inbounds, decoded=decoded, noted=noted)
        self.superseded.add(touched - applied.refused.keys())
        self.table.gather()
        return [(change.command, answer_to(change, applied, bad.get(change.command.id))) for change in changes]

    async def _apply_settled(
        self,
        changes: Sequence[UserChange],
        touched: Set[str],
        learned: Settled,
        inbounds: Inbounds,
        *,
        decoded: DecodedUsers,
        noted: Callable[[], None],
    ) -> Applied:
        """Apply users who were changed, and whoever lost a credential to them or gets one that they gave up."""
        settled = settle_credentials(self.table, self.rejected, inbounds)
        for change in changes if settled.revived else ():
            # Refused as before, and desired all the same when the others were taken in.
            change.refusals = [item for item in change.refusals if email_key(item.email) not in settled.revived]
        applied = await self._applier.apply(touched | learned.keys | settled.keys, inbounds, decoded, noted)
        lost = learned.lost | settled.lost
        while self.table.credentials.freed and applied.error is None:
            # Somebody was refused by the core who had taken it from others.
            settled = settle_credentials(self.table, self.rejected, inbounds)
            lost |= settled.lost
            further = await self._applier.apply(settled.keys, inbounds)
            applied.join(further)
        applied.refused.update((key, refusal) for key, refusal in lost.items() if key in self.rejected)
        return applied

    async def _learn(self, inbounds: Inbounds) -> Settled:
        return await learn_credentials(self.table, self.rejected, inbounds, self._limits.slice_users)

    def _users_losing_credentials(self, keys: Set[str], inbounds: Inbounds) -> set[str]:
        """Return who may have lost a credential in the core that it has by the table.

        While a bulk change is read, the table has users with credentials that were given to others by then. Somebody may have got
        such a credential, given it up, and now it is asked for again by the user who has it in the table.
        """
        owners = self.table.owners
        return {
            key
            for key in keys
            for tag, account in decode(self.table.applied(key), inbounds)[1].items()
            for credential in (credential_of(account), *further_credentials(account))
            if owners.get((tag, credential)) not in (None, key)
        }

    async def _take_in(self, change: UserChange, inbounds: Inbounds) -> None:
        """Make what one command says the desired state; unusable users are left as they were."""
        intake = UserIntake(change.command.body, self.table, self.rejected, inbounds)
        change.keys, change.refusals = await self._taken_in(intake)

    def _take_one(
        self, change: UserChange, inbounds: Inbounds, decoded: dict[bytes, tuple[str, dict[str, Account]]]
    ) -> None:
        """Do the same for a command with one user. Raises InvalidRequestError where that one is unusable."""
        body, table, rejected = change.command.body, self.table, self.rejected
        email = leading_email(body)
        named = None
        if email is not None:
            key = email_key(email)
            if table.get(key) == body and key not in rejected:
                # Known as it is, to the byte: nothing in it has to be read.
                change.keys = {key}
                return
            named = email, key
        user = pb.User.FromString(body)
        if named is not None and user.email != email:
            # Named twice: the last one counts.
            named = None
        change.keys = keys = set[str]()
        verdict = validate(user, table, rejected, inbounds, decoded=decoded, named=named)
        refusal = accept(verdict, table, rejected, keys)
        if refusal is not None:
            if refusal_of(user, inbounds) is not None:
                # One caller, one user: the request itself is wrong.
                raise InvalidRequestError(f"{refusal.cause} (user {shown(refusal.email)})")
            change.refusals = [refusal]

    async def _taken_in(self, intake: UserIntake) -> tuple[set[str], list[Refusal]]:
        try:
            while True:
                if intake.read(self._limits.slice_users):
                    return intake.commit()
                await asyncio.sleep(0)
        finally:
            intake.drop()

    def bulk(
        self, command: Command, inbounds: Callable[[], Inbounds], ended: Callable[[], None] = lambda: None
    ) -> BulkChange:
        """Begin a full set or a long delta; others may change users between its steps.

        Args:
            command: The change.
            inbounds: Says which inbounds run, by tag; raises NodeError where none does.
            ended: Called when it came to its end.

        Returns:
            The change; nothing was done yet.
        """
        if self._bulk is not None:
            # Whoever did its steps has failed, and was begun again.
            self._bulk.give_up()

        def over() -> None:
            self._bulk = None
            ended()

        self._bulk = BulkChange(
            command,
            table=self.table,
            rejected=self.rejected,
            superseded=self.superseded,
            applier=self._applier,
            taken=self,
            inbounds=inbounds,
            limits=self._limits,
            ended=over,
        )
        return self._bulk

    def is_taken(self, command: str) -> bool:
        """Return whether the users of this bulk change became the desired ones, and of no other one since."""
        return command == self._taken

    def note_taken(self, command: str) -> None:
        """Note that the users of this bulk change are the desired ones."""
        if self._taken:
            self._journal.taken[self._taken] = None
        self._taken = command
        self._journal.taken[command] = TAKEN_USERS

    # --- starts -------------------------------------------------------------------------------------------------

    async def replace(
        self,
        users: Iterable[pb.User],
        inbounds: Inbounds,
        *,
        check: Check = Check.CHANGED,
        clients: ClientJsonCache | None = None,
    ) -> list[Refusal]:
        """Make the desired set exactly ``users``; those that cannot be applied stay as they were.

        Args:
            users: The set.
            inbounds: The inbounds, by tag.
            check: Which of them are checked.
            clients: Gets the JSON of everybody who is checked, for a core that is about to be started.

        Returns:
            Who cannot be applied.
        """
        if check is Check.CHANGED:
            await self._learn(inbounds)
        intake = UserIntake(users, self.table, self.rejected, inbounds, replace=True, check=check, clients=clients)
        return (await self._taken_in(intake))[1]

    async def apply(self, keys: Iterable[str], inbounds: Inbounds, decoded: DecodedUsers = NOTHING_DECODED) -> Applied:
        """Make the core have some users as desired; see :meth:`UserApplier.apply`."""
        return await self._applier.apply(keys, inbounds, decoded)

    async def refuse(
        self, causes: Mapping[str, str], before: Mapping[str, bytes | None], inbounds: Inbounds
    ) -> dict[str, Refusal]:
        """Put users on the list whom the core refused; see :meth:`UserApplier.refuse`."""
        return await self._applier.refuse(causes, before, inbounds)

    async def try_failed_again(self, inbounds: Inbounds) -> None:
        """Try rejected users with a core that came up without them: perhaps it takes them. Never raises for a user."""
        learned = await self._learn(inbounds)
        settled = settle_credentials(self.table, self.rejected, inbounds, list(self.rejected))
        if keys := learned.keys | settled.keys:
            await self.apply(keys, inbounds)

    @property
    def core_unknown(self) -> bool:
        """Whether a core was found of which nobody knows the users."""
        return self._core_unknown

    def core_found(self) -> None:
        """Note that a core was found that goes on as it is: which users it has is learned when it is known who is desired."""
        self._core_unknown = True

    def core_is_new(self) -> None:
        """Note that a core was started with all desired users."""
        self._core_unknown = False
        self.table.core_has_all()
        self.departures.forget_all()

    def core_is_gone(self) -> None:
        """Note that the core has ended, and with it all connections of users who departed: the next one has none of theirs."""
        self.departures.forget_all()

    async def learn_core(self, inbounds: Inbounds) -> None:
        """Find out whom the core has as desired; whoever should not be there is removed.

        Args:
            inbounds: The inbounds, by tag.

        Raises:
            NodeError: The core does not answer.
        """
        if not self._core.there:
            raise CoreNotStartedError
        await self._learn(inbounds)
        fine = await self._core.compare(self.table, inbounds)
        self.table.core_has_nothing_certain(but=fine)
        self._core_unknown = False
        log.info("compared with the core that was taken over", as_desired=len(fine), others=len(self.table) - len(fine))

    async def reconcile_all(self, inbounds: Inbounds) -> None:
        """Bring a core in step that was taken over: strangers are removed, and users brought in who differ.

        Everybody else is left alone: whoever is removed and added again is turned away in between.

        Args:
            inbounds: The inbounds, by tag.

        Raises:
            NodeError: The core does not answer.
        """
        await self.learn_core(inbounds)
        applied = await self.apply(self.table.all_known(), inbounds)
        if applied.error is not None:
            raise applied.error

    async def forget_all(self) -> None:
        """Make nobody desired; there is no core that has anybody."""
        self.table.use_credentials(CredentialIndex())
        for number, key in enumerate(self.table.keys(), 1):
            self.table.put(key, None)
            if number % self._limits.slice_users == 0:
                await asyncio.sleep(0)
        self.table.core_has_all()
        self.table.gather()
        self.rejected.drop_all_but(())

    def remember(self) -> Remembered:
        """Return the users as they are now, for :meth:`return_to`."""
        return self.table.copy(), self.rejected.copy(), self.table.credentials

    def return_to(self, remembered: Remembered) -> None:
        """Make the users what they were before a start that failed."""
        desired, rejected, credentials = remembered
        self.rejected.return_to(rejected)
        self.table.return_to(desired)
        self.table.use_credentials(credentials)
