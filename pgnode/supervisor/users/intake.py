"""Users that a command names, on their way into the table: looked at a few at a time, and made the desired ones at once.

While many are looked at, nothing changes, so others may change users in between. They asked later: whoever they changed is
*overtaken*, and stays as they said when the command's users become the desired ones.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice

from google.protobuf.message import DecodeError

from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.table import Refusal, UserTable, checked, secrets_of
from pgnode.wire import service_pb2 as pb
from pgnode.wire.users import leading_email, split_users
from pgnode.xray.config.accounts import Account, email_key
from pgnode.xray.config.document import InboundSpec

#: The inbounds whose users the node owns, by tag.
Inbounds = Mapping[str, InboundSpec]


class Check(enum.Enum):
    """Which users are looked at when they are taken in; whoever is not gets the answer of the last time."""

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
    #: It is on the list of failures as it is.
    stands: bool = False


def validate(
    user: pb.User,
    table: UserTable,
    failures: RejectedUsers,
    inbounds: Inbounds,
    check: Check = Check.CHANGED,
    *,
    clients: ClientJsonCache | None = None,
    looked: dict[bytes, tuple[str, dict[str, Account]]] | None = None,
) -> Verdict:
    """Whether ``user`` can be had. Changes nothing but ``clients`` and ``looked``, which get what was found of the user."""
    email = user.email
    key = email_key(email)
    raw = user.SerializeToString(deterministic=True) if user.inbounds else None
    judged = Verdict(key, email, raw)
    if raw is not None and check is Check.CHANGED and table.get(key) == raw:
        return judged
    failure = failures.get(key)
    if (
        failure is not None
        and failure.user == raw
        and (check is Check.CHANGED or (check is Check.ALL and failure.by_core))
    ):
        judged.refusal, judged.stands = Refusal(failure.email, failure.cause), True
    elif raw is not None or not email:
        found = checked(user, inbounds)
        if isinstance(found, Refusal):
            judged.refusal = found
        elif raw is not None:
            if clients is not None:
                clients.put(key, raw, email, found)
            if looked is not None:
                looked[raw] = email, found
    return judged


def accept(judged: Verdict, table: UserTable, failures: RejectedUsers, keys: set[str]) -> Refusal | None:
    """Make it the desired user; ``keys`` gets its key where something is to be applied. Returns why not, if not."""
    key, raw = judged.key, judged.raw
    if judged.refusal is not None:
        if not judged.stands and judged.email and raw is not None:
            failures.put(key, judged.email, judged.refusal.cause, raw, by_core=False)
            if table.get(key) == raw:
                # It was fine with the inbounds of before.
                table.put(key, None)
                keys.add(key)
        return judged.refusal
    table.put(key, raw)
    if raw is None or raw == table.applied(key):
        # Nothing that waits to be tried again: the caller wants it as it is now, or not at all.
        failures.drop((key,))
    keys.add(key)
    return None


class UserIntake:
    """One command's users. :meth:`look` until all were looked at, then :meth:`commit`, once.

    ``body`` is a ``Users`` message, or users that were parsed already. With ``replace`` the set becomes exactly these. Users are
    parsed only where they are not known as they are. ``clients`` get those of everybody whom Check.ALL looks at. Raises
    DecodeError, from :meth:`look`.
    """

    def __init__(
        self,
        body: bytes | Iterable[pb.User],
        table: UserTable,
        failures: RejectedUsers,
        inbounds: Inbounds,
        *,
        replace: bool = False,
        check: Check = Check.CHANGED,
        overtaken: Set[str] = frozenset(),
        clients: ClientJsonCache | None = None,
    ) -> None:
        self._body = body
        self._table = table
        self._failures = failures
        self._inbounds = inbounds
        self._replace = replace
        self._check = check
        #: Users who were changed by somebody who asked later; more may come.
        self.overtaken = overtaken
        self._clients = clients
        self._begin(split_users(body) if isinstance(body, bytes) else iter(body))

    def __repr__(self) -> str:
        return f"UserIntake({len(self._spelled)} users, {len(self._judged)} to change, {len(self.overtaken)} overtaken)"

    def _begin(self, users: Iterator[bytes | pb.User]) -> None:
        self._users = users
        #: Users who are to be removed, once all that are named were looked at.
        self._gone: Iterator[str] | None = None
        #: Secrets of those who change, see UserTable.give.
        self._giving: dict[int, str] = {}
        self._judged: list[Verdict] = []
        #: Key -> e-mail as it was spelled first.
        self._spelled: dict[str, str] = {}

    def look(self, count: int) -> bool:
        """Look at up to ``count`` further users; whether these were the last ones."""
        try:
            return self._look(count)
        except DecodeError:
            if not isinstance(self._body, bytes):
                raise
        # An odd one, which the generated parser takes or refuses.
        body, self._body = self._body, ()
        self._begin(iter(pb.Users.FromString(body).users))
        return False

    def _look(self, count: int) -> bool:
        table, failures, spelled = self._table, self._failures, self._spelled
        if self._gone is not None:
            gone = list(islice(self._gone, count))
            self._note_givers(gone)
            return len(gone) < count
        changing: list[str] = []
        in_bytes = self._check is Check.CHANGED
        get, number = table.get, 0
        for number, given in enumerate(islice(self._users, count), 1):  # noqa: B007
            if isinstance(given, bytes):
                email = leading_email(given) if in_bytes else None
                if (
                    email is not None
                    and (key := email_key(email)) not in spelled
                    and get(key) == given
                    and failures.get(key) is None
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
                judged = validate(user, table, failures, self._inbounds, self._check, clients=self._clients)
                changing.append(key)
            else:
                text = f"differs only in case from {first!r}, which the core takes for the same user"
                judged = Verdict(key, email, None, Refusal(email, text), stands=True)
            self._judged.append(judged)
        self._note_givers(changing)
        if number == count:
            return False
        if self._replace:
            self._gone = iter(table.keys() - spelled.keys())
            return False
        return True

    def _note_givers(self, keys: Iterable[str]) -> None:
        # A core that is started with these users has nobody who would have to give up something first.
        if self._clients is None:
            self._giving.update(self._table.secrets(key for key in keys if key not in self.overtaken))

    def commit(self) -> tuple[set[str], list[Refusal]]:
        """Make them the desired users. Returns the keys of those that were named or removed, and who cannot be had."""
        table, failures, overtaken = self._table, self._failures, self.overtaken
        # Whoever got a secret meanwhile that others give up only now gets it again, after them.
        again = {
            key
            for key in overtaken
            if (raw := table.get(key)) is not None
            and any(self._giving.get(hash(secret), key) != key for secret in secrets_of(raw))
        }
        table.core_uncertain(again)
        table.give(self._giving.items())
        keys: set[str] = set(self._spelled)
        refusals = []
        for judged in self._judged:
            if judged.refusal is not None:
                refusals.append(judged.refusal)
                if judged.raw is not None:
                    keys.discard(judged.key)
        for judged in self._judged:
            if judged.key not in overtaken:
                accept(judged, table, failures, keys)
        if self._replace:
            failures.drop_all_but(self._spelled.keys() | overtaken)
            for key in table.keys() - self._spelled.keys() - overtaken:
                table.put(key, None)
                keys.add(key)
        return (keys - overtaken) | again, refusals
