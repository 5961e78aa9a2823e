"""Users as the store has them, which nobody vouches for: an earlier version took what this one refuses, and files get damaged.

Whoever cannot be had is set aside onto the list of rejected users, under a name that can be shown, so that all others are served.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from pgnode.store.rows import RejectedUser
from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import email_fault, name_shown, shown
from pgnode.xray.config.accounts import email_key

_DAMAGED: Final = "what is stored of this user is damaged"


@dataclass(slots=True)
class SortedUsers:
    """What of the stored users can be used."""

    users: dict[str, bytes]
    rejected: dict[str, RejectedUser]
    #: Keys of those who are no longer among the users.
    set_aside: list[str] = field(default_factory=list)
    #: Keys of those who are listed under another name, or not at all.
    renamed: list[str] = field(default_factory=list)


def sort_out(users: Mapping[str, bytes], rejected: Mapping[str, RejectedUser], at_ms: int) -> SortedUsers:
    """Find whoever cannot be had, be it as a user or on the list of rejected users.

    Args:
        users: Key -> ``User`` message, as stored.
        rejected: By key, as stored.
        at_ms: The time, Unix milliseconds.

    Returns:
        The users, and the list with whoever was set aside.
    """
    found = SortedUsers(dict(users), dict(rejected))
    for key, row in rejected.items():
        if not _is_sound(key, row):
            del found.rejected[key]
            found.renamed.append(key)
            _list(found.rejected, str(row.email), str(row.cause), row.at_ms if isinstance(row.at_ms, int) else at_ms)
    for key, raw in users.items():
        email, fault = _fault(key, raw)
        if fault is not None:
            del found.users[key]
            found.set_aside.append(key)
            _list(found.rejected, email, fault, at_ms)
    return found


def _is_sound(key: str, row: RejectedUser) -> bool:
    """Whether a row of the list can stay as it is: whoever is on it is tried again by its message, and shown by its name."""
    if [type(row.email), type(row.cause), type(row.at_ms)] != [str, str, int]:
        return False
    try:
        pb.User.FromString(row.user)
    except (DecodeError, TypeError):
        return False
    return key == email_key(row.email) and name_shown(row.email) == row.email


def _fault(key: str, raw: bytes) -> tuple[str, str | None]:
    """Return the e-mail of a stored user, and why it cannot be had."""
    try:
        email = pb.User.FromString(raw).email
    except (DecodeError, TypeError):
        return str(key), _DAMAGED
    if email_key(email) != key:
        return email or str(key), _DAMAGED
    return email, email_fault(email)


def _list(rejected: dict[str, RejectedUser], email: str, cause: str, at_ms: int) -> None:
    """Put somebody on the list under a name that can be shown; without the message, since it is not to be tried again."""
    name = email if email_fault(email) is None else shown(email)
    number = 1
    while email_key(name) in rejected:
        number += 1
        name = f"{shown(email)} ({number})"
    rejected[email_key(name)] = RejectedUser(name, cause, at_ms, b"")
