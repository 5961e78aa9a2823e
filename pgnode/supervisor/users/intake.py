"""Users that a command names, on their way into the table: read a few at a time, and made the desired ones at once.

While many are read, nothing changes, so others may change users in between. They asked later: whoever they changed is
*superseded*, and stays as they said when the command's users become the desired ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from itertools import islice

from google.protobuf.message import DecodeError

from pgnode.supervisor.users.credentials import INDEX_PARTS, CredentialIndex, numbers_of
from pgnode.supervisor.users.decoding import Inbounds, Refusal, check_user, decode
from pgnode.supervisor.users.early_claims import EarlyClaims
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.rivals import Rival, put_aside, rival_of
from pgnode.supervisor.users.settling import settle_credentials
from pgnode.supervisor.users.table import UserTable
from pgnode.supervisor.users.verdicts import Check, Verdict, accept, validate
from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import shown
from pgnode.wire.users import leading_email, split_users
from pgnode.xray.config.accounts import email_key, tags_of


class UserIntake:
    """One command's users: :meth:`read` until all were read, then :meth:`commit`, once. Users are parsed only where they changed.

    Whoever does not come to the end calls :meth:`drop`.

    Args:
        body: A ``Users`` message, or users that were parsed already.
        table: All users.
        rejected: Those who cannot be had.
        inbounds: The inbounds, by tag.
        replace: Whether the set becomes exactly these.
        check: Whether those that are known are checked again.
        superseded: Users who were changed by somebody who asked later; may grow until :meth:`commit`.
        clients: Gets the JSON of the clients of everybody who is checked.
    """

    def __init__(
        self,
        body: bytes | Iterable[pb.User],
        table: UserTable,
        rejected: RejectedUsers,
        inbounds: Inbounds,
        *,
        replace: bool = False,
        check: Check = Check.CHANGED,
        superseded: Set[str] = frozenset(),
        clients: ClientJsonCache | None = None,
    ) -> None:
        self._body = body
        self._table = table
        self._rejected = rejected
        self._inbounds = inbounds
        self._replace = replace
        self._check = check
        self._superseded = superseded
        self._clients = clients
        #: For other inbounds than before all users are entered anew, where they are all named.
        self._index = CredentialIndex(inbounds) if replace and check is not Check.CHANGED else None
        #: Else theirs are entered beside those that there are.
        self._early = EarlyClaims(table)
        self._begin(split_users(body) if isinstance(body, bytes) else iter(body))

    def __repr__(self) -> str:
        """Say how many users were read."""
        return f"UserIntake({len(self._spelled)} users, {len(self._fine) + len(self._verdicts)} to change)"

    def _begin(self, users: Iterator[bytes | pb.User]) -> None:
        self._users = users
        self._verdicts: list[Verdict] = []
        #: Key -> e-mail as it was spelled first.
        self._spelled: dict[str, str] = {}
        #: Key -> message of those of whom there is nothing else to say: nearly all, where all are entered anew, else nearly all
        #: who changed.
        self._fine: dict[str, bytes] = {}

    def read(self, count: int) -> bool:
        """Read some further users.

        Args:
            count: How many, at most.

        Returns:
            Whether these were the last ones.

        Raises:
            DecodeError: The body is no ``Users`` message.
        """
        try:
            return self._read(count) and (self._index is None or self._index.finish(INDEX_PARTS))
        except DecodeError:
            if not isinstance(self._body, bytes):
                raise
        # An odd one, which the generated parser takes or refuses.
        body, self._body = self._body, ()
        self._begin(iter(pb.Users.FromString(body).users))
        return False

    def _read(self, count: int) -> bool:
        table, rejected, spelled = self._table, self._rejected, self._spelled
        in_bytes, anew = self._check is Check.CHANGED, self._index is not None
        get, number = table.desired.get, 0
        for number, given in enumerate(islice(self._users, count), 1):  # noqa: B007
            if isinstance(given, bytes):
                email = leading_email(given) if in_bytes else None
                if email is not None and (key := email_key(email)) not in spelled and key not in rejected:
                    if get(key) == given:
                        spelled[key] = email
                        continue
                    user = pb.User.FromString(given)
                    if user.SerializeToString(deterministic=True) == given and self._is_changed(
                        user, given, email, key
                    ):
                        spelled[key] = email
                        continue
                else:
                    user = pb.User.FromString(given)
            else:
                user = given
            email = user.email
            key = email_key(email)
            first = spelled.get(key)
            if first is None:
                spelled[key] = first = email
                if anew and key not in rejected and self._is_fine(user, email, key):
                    continue
            elif (earlier := self._fine.pop(key, None)) is not None:
                self._verdicts.append(Verdict(key, first, earlier, numbers=()))
            if first == email:
                verdict = validate(
                    user, table, rejected, self._inbounds, self._check, clients=self._clients, named=(email, key)
                )
            else:
                text = f"differs only in case from {shown(first)}, which the core takes for the same user"
                verdict = Verdict(key, email, None, Refusal(email, text), stands=True)
            if verdict.numbers is not None:
                self._enter(verdict)
            self._verdicts.append(verdict)
        return number < count

    def _is_fine(self, user: pb.User, email: str, key: str) -> bool:
        """Take a user of whom nothing special is known, if there is nothing special to say either."""
        raw = user.SerializeToString(deterministic=True)
        tags = tags_of(raw)
        found = check_user(user, self._inbounds, tags, email) if tags else None
        if not isinstance(found, dict) or self._index is None:
            return False
        self._index.add(key, numbers_of(found))
        if self._clients is not None:
            self._clients.put(key, raw, email, found)
        self._fine[key] = raw
        return True

    def _is_changed(self, user: pb.User, raw: bytes, email: str, key: str) -> bool:
        """Take a user whose message is not the known one, and as the node writes it, if there is nothing special to say."""
        tags = tags_of(raw)
        found = check_user(user, self._inbounds, tags, email) if tags else None
        if not isinstance(found, dict):
            return False
        self._early.add(key, numbers_of(found))
        if self._clients is not None:
            self._clients.put(key, raw, email, found)
        self._fine[key] = raw
        return True

    def _enter(self, verdict: Verdict) -> None:
        """Enter the credentials of a user before it is the desired one."""
        numbers = verdict.numbers or ()
        if self._index is None:
            self._early.add(verdict.key, numbers)
            verdict.numbers = ()
        elif not verdict.again:
            self._index.add(verdict.key, numbers)
            verdict.numbers = ()

    def drop(self) -> None:
        """Let go what is kept of users who do not become the desired ones; after :meth:`commit` there is nothing."""
        self._early.drop()

    def commit(self) -> tuple[set[str], list[Refusal]]:
        """Make them the desired users.

        Returns:
            The keys of those that are to be applied, and who of the named ones cannot be had.
        """
        table, rejected, superseded = self._table, self._rejected, self._superseded
        self._use_index()
        keys: set[str] = set(self._spelled)
        if self._replace:
            rejected.drop_all_but(self._spelled.keys() | superseded)
            for key in table.keys() - self._spelled.keys() - superseded:
                table.put(key, None)
                keys.add(key)
        refused, again = self._accept(keys)
        self._early.claim()
        settled = settle_credentials(table, rejected, self._inbounds, again)
        refusals = [refusal for key, refusal in refused if key not in settled.revived]
        refusals += [refusal for key, refusal in settled.lost.items() if key in self._spelled]
        table.gather()
        return (keys - superseded) | settled.keys, refusals

    def _use_index(self) -> None:
        """From now on the table has this index, in which those who changed come after all others."""
        table, index = self._table, self._index
        if index is None:
            return
        if index.contested:
            changed = {verdict.key for verdict in self._verdicts if table.get(verdict.key) != verdict.raw}
            changed.update(key for key, raw in self._fine.items() if table.get(key) != raw)
            for number, claims in index.contested.items():
                claims.update((key, None) for key in index.holders(number) if key in changed)
        table.use_credentials(index)

    def _accept(self, keys: set[str]) -> tuple[list[tuple[str, Refusal]], list[str]]:
        """Make those desired who can be had.

        Args:
            keys: Gets those to be applied; loses those who cannot be had.

        Returns:
            Whoever cannot be had, by key, and those who are to be tried again when all others are there.
        """
        table, rejected, superseded = self._table, self._rejected, self._superseded
        refused, again = [], []
        asked, rivals = self._asked_later()
        self._accept_fine(rivals)
        for verdict in self._verdicts:
            key = verdict.key
            if verdict.again and verdict.refusal is not None and table.get(key) == verdict.raw:
                # Desired again since it was read: what it waited for was given up meanwhile.
                continue
            if verdict.refusal is not None:
                refused.append((key, verdict.refusal))
                if verdict.raw is not None:
                    keys.discard(key)
            if key in superseded:
                continue
            if verdict.again and verdict.refusal is None:
                again.append(key)
            elif (rival := self._later(verdict, asked, rivals)) is not None and verdict.raw is not None:
                keys.discard(key)
                refused.append((key, put_aside(rejected, table.credentials, key, verdict.raw, rival)))
            else:
                accept(verdict, table, rejected, keys)
        return refused, again

    def _asked_later(self) -> tuple[set[int], set[str]]:
        """Find out what those have who asked later.

        Returns:
            The numbers of their credentials, and the keys of those of this command's who asked for one of them.
        """
        table, index = self._table, self._table.credentials
        asked = {number for key in self._superseded for number in index.numbers(table.get(key))}
        return asked, self._early.asked_for(asked) if asked else set()

    def _accept_fine(self, rivals: Set[str]) -> None:
        """Make those desired of whom there is nothing to say; whoever asked for what somebody else has now is left for later."""
        table, rejected, superseded, fine = self._table, self._rejected, self._superseded, self._fine
        for key in [key for key in fine if key in rivals] if rivals else ():
            self._verdicts.append(Verdict(key, self._spelled[key], fine.pop(key), numbers=()))
        if superseded:
            fine = {key: raw for key, raw in fine.items() if key not in superseded}
        table.put_all(fine)
        # Somebody who asked later may have put them on the list, with what they had before.
        rejected.drop([key for key in rejected if key in fine])

    def _later(self, verdict: Verdict, asked: Set[int], rivals: Set[str]) -> Rival | None:
        """Find somebody who asked later for a credential of this user, and has it."""
        if not asked or verdict.refusal is not None:
            return None
        if verdict.key not in rivals and (
            verdict.numbers is not None or asked.isdisjoint(self._table.credentials.numbers(verdict.raw))
        ):
            # As nearly always. Without numbers it was desired as it is when it was read: somebody may have taken what it had.
            return None
        accounts = decode(verdict.raw, self._inbounds)[1]
        return rival_of(self._table, verdict.key, accounts, self._superseded)
