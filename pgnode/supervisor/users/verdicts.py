"""Whether a user whom a caller names can be had, and making it the desired one or putting it on the list. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from pgnode.supervisor.users.credentials import numbers_of
from pgnode.supervisor.users.decoding import Inbounds, Refusal, check_user
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import name_shown
from pgnode.xray.config.accounts import Account, email_key, tags_of


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
    #: It is on the list of rejected users as it is, or cannot be put there.
    stands: bool = False
    #: It was on that list as it is, and is tried again.
    again: bool = False
    #: The numbers of its credentials, where it was checked; empty once they are in the index.
    numbers: Sequence[int] | None = None


def validate(
    user: pb.User,
    table: UserTable,
    rejected: RejectedUsers,
    inbounds: Inbounds,
    check: Check = Check.CHANGED,
    *,
    clients: ClientJsonCache | None = None,
    decoded: dict[bytes, tuple[str, dict[str, Account]]] | None = None,
    named: tuple[str, str] | None = None,
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
        named: The user's e-mail and key, where they were read already.

    Returns:
        What is to become of it, for :func:`accept`.
    """
    email, key = named if named is not None else (user.email, email_key(user.email))
    raw = user.SerializeToString(deterministic=True) if user.inbounds else None
    verdict = Verdict(key, email, raw)
    if raw is not None and check is Check.CHANGED and table.get(key) == raw:
        return verdict
    known = rejected.get(key)
    if known is not None:
        verdict.again = known.user == raw
    if known is not None and verdict.again and (check is Check.CHANGED or (check is Check.ALL and known.by_core)):
        verdict.refusal, verdict.stands = Refusal(known.email, known.cause), True
    elif raw is not None or not email:
        found = check_user(user, inbounds, tags_of(raw) if raw is not None else (), email)
        if isinstance(found, Refusal):
            verdict.refusal = found
            # What cannot be shown as it is has no place on the list.
            verdict.stands = name_shown(email) != email
        elif raw is not None:
            verdict.numbers = numbers_of(found)
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
        if verdict.email and raw is not None:
            if not verdict.stands:
                rejected.put(key, verdict.email, verdict.refusal.cause, raw, by_core=False)
            if table.get(key) == raw:
                # It was fine with the previous inbounds.
                table.put(key, None)
                keys.add(key)
        return verdict.refusal
    table.put(key, raw, verdict.numbers)
    known = rejected.get(key)
    if known is not None and (known.user != raw or raw == table.applied(key)):
        # Nothing that waits to be tried again: the caller wants it as it is now, or not at all.
        rejected.drop((key,))
    keys.add(key)
    return None
