"""After users changed: who has each credential, and who waited for one that was given up. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgnode.supervisor.users.decoding import Inbounds, Refusal, check_user
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.rivals import put_aside, reject_losers, rival_of
from pgnode.supervisor.users.table import UserTable
from pgnode.supervisor.users.verdicts import Check, Verdict, accept, validate
from pgnode.wire import service_pb2 as pb


@dataclass(slots=True)
class Settled:
    """What followed from who has which credential."""

    #: Who lost to somebody with the same one, or was rejected for that before and still is.
    lost: dict[str, Refusal]
    #: Who was rejected for it and is desired now.
    revived: set[str]

    @property
    def keys(self) -> set[str]:
        """Whoever is to be applied."""
        return self.lost.keys() | self.revived


def settle_credentials(
    table: UserTable, rejected: RejectedUsers, inbounds: Inbounds, again: Iterable[str] = ()
) -> Settled:
    """Settle who has each credential after some users changed, and try again who waits for one that was given up.

    Args:
        table: All users.
        rejected: Those who cannot be had.
        inbounds: The inbounds, by tag.
        again: Rejected users who are tried again in any case.

    Returns:
        Who lost and who was revived.
    """
    index = table.credentials
    keys = dict.fromkeys(again)
    if not (keys or index.contested or index.freed):
        # As after nearly all changes: nobody shares anything.
        return Settled({}, set())
    settled = Settled(reject_losers(table, rejected), set())
    while keys or index.freed:
        while index.freed:
            keys.update(index.waiting.pop(index.freed.pop(), {}))
        key = next(iter(keys), "")
        keys.pop(key, None)
        known = rejected.get(key)
        if known is None:
            continue
        user = pb.User.FromString(known.user)
        verdict = validate(user, table, rejected, inbounds, Check.AGAIN)
        if verdict.refusal is None:
            refusal = _take_back(verdict, user, table, rejected, inbounds)
            if refusal is None:
                settled.revived.add(key)
                settled.lost.pop(key, None)
            else:
                settled.lost[key] = refusal
        else:
            accept(verdict, table, rejected, settled.revived)
    # Those who are back have nobody beside them: only what the index had of former owners goes.
    reject_losers(table, rejected)
    return settled


def _take_back(
    verdict: Verdict, user: pb.User, table: UserTable, rejected: RejectedUsers, inbounds: Inbounds
) -> Refusal | None:
    """Make a rejected user desired, unless somebody has one of its credentials: then say who."""
    found = check_user(user, inbounds)
    rival = rival_of(table, verdict.key, found) if not isinstance(found, Refusal) else None
    if rival is not None and verdict.raw is not None:
        return put_aside(rejected, table.credentials, verdict.key, verdict.raw, rival)
    accept(verdict, table, rejected, set())
    return None
