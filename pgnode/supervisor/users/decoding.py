"""From a user's message to its accounts, and why a user cannot be had. Pure.

A user is kept as the bytes of its ``User`` message. What accounts it has in which inbound follows from these bytes and the
inbounds, so nothing is kept per inbound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import email_fault, name_shown
from pgnode.xray.config.accounts import Account, UnusableAccountError, account_for, accounts_of, tags_of
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.peers import network

#: The inbounds whose users the node owns, by tag.
Inbounds = Mapping[str, InboundSpec]

#: A user's message -> its e-mail, and its accounts by tag.
DecodedUsers = Mapping[bytes, tuple[str, dict[str, Account]]]
NOTHING_DECODED: Final[DecodedUsers] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A user that cannot be applied, and why."""

    email: str
    cause: str

    def __str__(self) -> str:
        """Return the sentence that the caller is told."""
        return f"{name_shown(self.email) or '(empty e-mail)'}: {self.cause}"


def decode(raw: bytes | None, inbounds: Inbounds) -> tuple[str, dict[str, Account]]:
    """Read a user's message.

    Args:
        raw: The ``User`` message; None for nobody.
        inbounds: The inbounds that are asked about.

    Returns:
        E-mail, and accounts by tag; no accounts where they are unusable.
    """
    if raw is None:
        return "", {}
    user = pb.User.FromString(raw)
    try:
        return user.email, accounts_of(user, inbounds, tags_of(raw))
    except UnusableAccountError:
        # Checked when it was taken; another config's inbounds may find something else in it.
        return user.email, {}


def account_in(raw: bytes | None, inbound: InboundSpec) -> tuple[str, Account] | None:
    """Return (e-mail, account) of a user's message in one inbound; None where it has none."""
    if raw is None or not inbound.managed or inbound.tag not in tags_of(raw):
        return None
    user = pb.User.FromString(raw)
    email = user.email
    try:
        account = account_for(user.proxies, inbound) if email else None
    except UnusableAccountError:
        # As in decode().
        return None
    return None if account is None else (email, account)


def tunnel_address(raw: bytes | None) -> str:
    """Return an address that a user comes from inside its WireGuard tunnel, by its message; "" where none is known."""
    for text in pb.User.FromString(raw).proxies.wireguard.peer_ips if raw is not None else ():
        address, _, length = (network(text) or "").partition("/")
        if length == ("128" if ":" in address else "32"):
            return address
    return ""


def accounts_of_users(
    desired: Mapping[str, bytes], keys: Iterable[str], inbounds: Inbounds
) -> dict[str, dict[str, tuple[str, Account]]]:
    """Return tag -> key -> (e-mail, account) of the users among ``keys``; unusable accounts are left out."""
    found: dict[str, dict[str, tuple[str, Account]]] = {tag: {} for tag in inbounds}
    for key in keys:
        email, accounts = decode(desired.get(key), inbounds)
        for tag, account in accounts.items():
            found[tag][key] = (email, account)
    return found


def check_user(
    user: pb.User, inbounds: Inbounds, tags: Iterable[str] | None = None, email: str | None = None
) -> Refusal | dict[str, Account]:
    """Find out whether a user can be applied.

    Args:
        user: The user.
        inbounds: The inbounds, by tag.
        tags: The user's, where they were read.
        email: The same.

    Returns:
        Its accounts by tag, or why it cannot be applied.
    """
    if email is None:
        email = user.email
    if (fault := email_fault(email)) is not None:
        return Refusal(email, fault)
    try:
        return accounts_of(user, inbounds, tags)
    except UnusableAccountError as error:
        return Refusal(email, str(error))


def refusal_of(user: pb.User, inbounds: Inbounds) -> Refusal | None:
    """Return why this user cannot be applied, None when it can."""
    found = check_user(user, inbounds)
    return found if isinstance(found, Refusal) else None
