"""Two users with one credential in one inbound: who has it, and who is rejected until it is given up. Pure.

The later change has the credential. The other user is on the list of rejected users with the cause "has the same … as …", and
is nowhere in the core, which would let in one of them only. So the core never has two users with one credential, and no removal
takes somebody else's.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final, NamedTuple

from pgnode.supervisor.users.credentials import CredentialIndex, number_of, numbers_of
from pgnode.supervisor.users.decoding import Refusal, decode
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.wire.texts import shown
from pgnode.xray.config.accounts import Account, further_credentials
from pgnode.xray.config.peers import network_of

#: What a credential is called, by kind of account.
_NAMES: Final = {
    "vless": "VLESS id",
    "vmess": "VMess id",
    "trojan": "Trojan password",
    "shadowsocks-2022": "Shadowsocks-2022 key",
    "hysteria": "Hysteria auth",
    "wireguard": "WireGuard public key",
}


class Rival(NamedTuple):
    """Somebody who has a credential that another user asks for, too."""

    key: str
    number: int
    email: str
    tag: str
    account: Account

    @property
    def cause(self) -> str:
        """Why the other user is rejected."""
        name = _NAMES.get(self.account.protocol, "credential")
        for credential in further_credentials(self.account):
            if number_of(credential) == self.number:
                name = f"WireGuard address {network_of(credential)}"
        return f"has the same {name} as {shown(self.email)}, in inbound {shown(self.tag)}"


def rival_of(
    table: UserTable, key: str, accounts: Mapping[str, Account], among: Container[str] | None = None
) -> Rival | None:
    """Find a desired user who has a credential that another one asks for.

    Args:
        table: All users.
        key: Who asks.
        accounts: What for, by tag.
        among: Only these are looked at; None for everybody.

    Returns:
        The first one who has it in the same inbound; None where nobody does.
    """
    index = table.credentials
    for tag, account in accounts.items():
        for number in numbers_of({tag: account}):
            for holder in index.holders(number):
                if holder != key and (among is None or holder in among):
                    email, held = decode(table.get(holder), {tag: index.inbounds[tag]} if tag in index.inbounds else {})
                    if number in numbers_of(held):
                        return Rival(holder, number, email, tag, account)
    return None


def reject_losers(table: UserTable, rejected: RejectedUsers) -> dict[str, Refusal]:
    """Settle who has each credential for which several users asked.

    Args:
        table: All users; whoever loses is not desired any more.
        rejected: Gets whoever loses.

    Returns:
        Whoever lost, by key.
    """
    lost: dict[str, Refusal] = {}
    index = table.credentials
    while index.contested:
        number, claims = index.contested.popitem()
        _settle(table, rejected, number, list(claims), lost)
    return lost


def _settle(
    table: UserTable, rejected: RejectedUsers, number: int, claims: list[str], lost: dict[str, Refusal]
) -> None:
    index = table.credentials
    #: Key -> e-mail, and the accounts with this credential by tag; whoever is known longest first.
    holders: dict[str, tuple[str, dict[str, Account]]] = {}
    for key in index.holders(number):
        email, accounts = decode(table.get(key), index.inbounds)
        found = {tag: account for tag, account in accounts.items() if number in numbers_of({tag: account})}
        if found:
            holders[key] = email, found
        else:
            index.forget(number, key)
    order = [key for key in holders if key not in claims] + [key for key in claims if key in holders]
    taken: dict[str, Rival] = {}
    for key in reversed(order):
        email, found = holders[key]
        rival = next((taken[tag] for tag in found if tag in taken), None)
        if rival is None:
            for tag, account in found.items():
                taken[tag] = Rival(key, number, email, tag, account)
            continue
        raw = table.get(key)
        assert raw is not None
        lost[key] = put_aside(rejected, index, key, raw, rival)
        table.put(key, None)


def put_aside(rejected: RejectedUsers, index: CredentialIndex, key: str, raw: bytes, rival: Rival) -> Refusal:
    """Put a user on the list until a rival gives up what both ask for.

    Args:
        rejected: The list.
        index: Notes that the user waits.
        key: The user's key.
        raw: Its message.
        rival: Who has what it asks for.

    Returns:
        What its caller is told.
    """
    email = pb.User.FromString(raw).email
    rejected.put(key, email, rival.cause, raw, by_core=False)
    index.wait(rival.number, key)
    return Refusal(email, rival.cause)
