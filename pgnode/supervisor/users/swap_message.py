"""Who is in a swap, and their messages to the core, made part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from pgnode.supervisor.users.decoding import account_in
from pgnode.supervisor.users.swap_policy import users_in_swap
from pgnode.xray.client.channel import MAX_SEND_BYTES
from pgnode.xray.config.accounts import Account, user_message
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.protocols import ACCOUNT_KINDS, Credential

#: Key -> ``User`` message that is desired now, None for nobody.
Desired = Callable[[str], bytes | None]

#: Kinds of accounts whose credential is a UUID.
_BY_UUID: Final = frozenset(name for name, kind in ACCOUNT_KINDS.items() if kind.credential is Credential.UUID)

#: A call of the class itself takes twice as long.
_new: Final = tuple.__new__


def swap_entry(raw: bytes | None, inbound: InboundSpec) -> bytes | None:
    """Make a user's message to the core, as short as the core reads it: what does not fit into a swap costs a call.

    Args:
        raw: The ``User`` message; None for nobody.
        inbound: The inbound.

    Returns:
        A serialized xray.common.protocol.User; None where the user has no account there.
    """
    found = account_in(raw, inbound)
    if found is None:
        return None
    email, account = found
    protocol, secret, detail = account
    if protocol in _BY_UUID:
        # The core takes an id without its dashes, and lists it with them.
        account = _new(Account, (protocol, secret.replace("-", ""), detail))
    return user_message(email, account)


class SwapMessage:
    """The users of one swap.

    Args:
        inbound: The inbound that is swapped.
        order: Keys of everybody, in the order in which they are put into the message.
        limit_bytes: What the message may have.
    """

    def __init__(self, inbound: InboundSpec, order: Sequence[str], *, limit_bytes: int = MAX_SEND_BYTES) -> None:
        self.inbound = inbound
        self.order = order
        self._limit_bytes = limit_bytes
        self._limit_users = users_in_swap(inbound)
        self._read = 0
        self._size_bytes = 0
        #: (key, the user's message as it was, its entry or None where it is not in this inbound).
        self._made: list[tuple[str, bytes, bytes | None]] = []

    def __repr__(self) -> str:
        """Say how many were read."""
        return f"SwapMessage({self.inbound.tag!r}, {self._read} of {len(self.order)} users)"

    @property
    def full(self) -> bool:
        """Whether no further user has to be read."""
        return (
            self._read >= len(self.order)
            or self._size_bytes >= self._limit_bytes
            or len(self._made) >= self._limit_users
        )

    def read(self, desired: Desired, count: int) -> None:
        """Make the messages of some further users.

        Args:
            desired: Says what is desired of a user.
            count: How many users, at most.
        """
        made, inbound = self._made, self.inbound
        for key in self.order[self._read : self._read + count]:
            if (raw := desired(key)) is not None:
                entry = swap_entry(raw, inbound)
                self._size_bytes += len(entry) if entry is not None else 0
                made.append((key, raw, entry))
        self._read += count

    def finish(self, desired: Desired) -> tuple[dict[str, bytes], set[str]]:
        """Return what to swap in; whoever was changed while the message was made is looked at again.

        Args:
            desired: Says what is desired of a user.

        Returns:
            Key -> message of everybody who is in it, and who was read and has no account in this inbound.
        """
        entries: dict[str, bytes] = {}
        absent: set[str] = set()
        for key, made_of, made in self._made:
            entry = made
            if (raw := desired(key)) is not made_of:
                entry = swap_entry(raw, self.inbound)
            elif made is None:
                absent.add(key)
            if entry is not None:
                entries[key] = entry
        if len(entries) > self._limit_users:
            entries = dict(islice(entries.items(), self._limit_users))
        return entries, absent
