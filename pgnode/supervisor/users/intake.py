"""Users that a command names, on their way into the table: read a few at a time, and made the desired ones at once.

While many are read, nothing changes, so others may change users in between. They asked later: whoever they changed is
*superseded*, and stays as they said when the command's users become the desired ones.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import islice

from google.protobuf.message import DecodeError

from pgnode.supervisor.users.decoding import Inbounds, Refusal, check_user
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.wire.users import leading_email, split_users
from pgnode.xray.config.accounts import Account, email_key


class Check(enum.Enum):
    """Which users are checked when they are taken in; whoever is not gets the answer of the last time."""

    CHANGED = enum.auto()  # those that changed
    ALL = enum.auto()  # all, for inbounds that may have changed; what the core refused it does not get again
    AGAIN = enum.auto()  # also that


@dataclass(slots=True)
class Verdict:
    """What is to become of one user that a command names."""

    key: str
    email: str
    #: Its message; None where it shall be removed.
    raw: bytes | None
    refusal: Refusal | None = None
    #: It is on the list of rejected users as it is.
    stands: bool = False


def validate(
    user: pb.User,
    table: UserTable,
    rejected: RejectedUsers,
    inbounds: Inbounds,
    check: Check = Check.CHANGED,
    *,
    clients: ClientJsonCache | None = None,
    decoded: dict[bytes, tuple[str, dict[str, Account]]] | None = None,
) -> Verdict:
    """Find out whether a user can be had. The table and the list stay as they are.

    Args:
        user: What a caller asked for.
        table: All users.
        rejected: Those who cannot be had.
        inbounds: The inbounds, by tag.
        check: Whether one that is known is checked again.
        clients: Gets the JSON of the user's clients, where it was checked.
        decoded: Gets the user's accounts, where it was checked.

    Returns:
        What is to become of it, for :func:`accept`.
    """
    email = user.email
    key = email_key(email)
    raw = user.SerializeToString(deterministic=True) if user.inbounds else None
    verdict = Verdict(key, email, raw)
    if raw is not None and check is Check.CHANGED and table.get(key) == raw:
        return verdict
    known = rejected.get(key)
    if known is not None and known.user == raw and (check is Check.CHANGED or (check is Check.ALL and known.by_core)):
        verdict.refusal, verdict.stands = Refusal(known.email, known.cause), True
    elif raw is not None or not email:
        found = check_user(user, inbounds)
        if isinstance(found, Refusal):
            verdict.refusal = found
        elif raw is not None:
            if clients is not None:
                clients.put(key, raw, email, found)
            if decoded is not None:
                decoded[raw] = email, found
    return verdict


def accept(verdict: Verdict, table: UserTable, rejected: RejectedUsers, keys: set[str]) -> Refusal | None:
    """Make what a caller asked for the desired user, or note that it cannot be had.

    Args:
        verdict: What :func:`validate` found.
        table: All users.
        rejected: Those who cannot be had.
        keys: Gets the user's key if something is to be applied.

    Returns:
        Why it cannot be had; None when it can.
    """
    key, raw = verdict.key, verdict.raw
    if verdict.refusal is not None:
        if not verdict.stands and verdict.email and raw is not None:
            rejected.put(key, verdict.email, verdict.refusal.cause, raw, by_core=False)
            if table.get(key) == raw:
                # It was fine with the previous inbounds.
                table.put(key, None)
                keys.add(key)
        return verdict.refusal
    table.put(key, raw)
    if raw is None or raw == table.applied(key):
        # Nothing that waits to be tried again: the caller wants it as it is now, or not at all.
        rejected.drop((key,))
    keys.add(key)
    return None


class UserIntake:
    """One command's users: :meth:`read` until all were read, then :meth:`commit`, once. Users are parsed only where they changed.

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
        self._begin(split_users(body) if isinstance(body, bytes) else iter(body))

    def __repr__(self) -> str:
        """Say how many users were read."""
        return f"UserIntake({len(self._spelled)} users, {len(self._verdicts)} to change)"

    def _begin(self, users: Iterator[bytes | pb.User]) -> None:
        self._users = users
        self._verdicts: list[Verdict] = []
        #: Key -> e-mail as it was spelled first.
        self._spelled: dict[str, str] = {}

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
            return self._read(count)
        except DecodeError:
            if not isinstance(self._body, bytes):
                raise
        # An odd one, which the generated parser takes or refuses.
        body, self._body = self._body, ()
        self._begin(iter(pb.Users.FromString(body).users))
        return False

    def _read(self, count: int) -> bool:
        table, rejected, spelled = self._table, self._rejected, self._spelled
        in_bytes = self._check is Check.CHANGED
        get, number = table.get, 0
        for number, given in enumerate(islice(self._users, count), 1):  # noqa: B007
            if isinstance(given, bytes):
                email = leading_email(given) if in_bytes else None
                if (
                    email is not None
                    and (key := email_key(email)) not in spelled
                    and get(key) == given
                    and rejected.get(key) is None
                ):
                    spelled[key] = email
                    continue
                user = pb.User.FromString(given)
            else:
                user = given
            email = user.email
            key = email_key(email)
            first = spelled.setdefault(key, email)
            if first == email:
                verdict = validate(user, table, rejected, self._inbounds, self._check, clients=self._clients)
            else:
                text = f"differs only in case from {first!r}, which the core takes for the same user"
                verdict = Verdict(key, email, None, Refusal(email, text), stands=True)
            self._verdicts.append(verdict)
        return number < count

    def commit(self) -> tuple[set[str], list[Refusal]]:
        """Make them the desired users.

        Returns:
            The keys of those that were named or removed, and who cannot be had.
        """
        table, rejected, superseded = self._table, self._rejected, self._superseded
        keys: set[str] = set(self._spelled)
        refusals = []
        for verdict in self._verdicts:
            if verdict.refusal is not None:
                refusals.append(verdict.refusal)
                if verdict.raw is not None:
                    keys.discard(verdict.key)
        for verdict in self._verdicts:
            if verdict.key not in superseded:
                accept(verdict, table, rejected, keys)
        if self._replace:
            rejected.drop_all_but(self._spelled.keys() | superseded)
            for key in table.keys() - self._spelled.keys() - superseded:
                table.put(key, None)
                keys.add(key)
        return keys - superseded, refusals
