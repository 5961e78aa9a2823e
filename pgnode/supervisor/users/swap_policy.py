"""From what the users should have and what the core has, to operations per inbound. Pure.

Per inbound one of three ways is taken: nothing, alter (one core call for each removed and each added user) or swap
(the running inbound with another list of users: remove and add of the whole inbound, live connections stay).
Removals go before additions: an id or an e-mail may move from one user to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pgnode.xray.config.accounts import Account
from pgnode.xray.config.document import InboundSpec

#: Milliseconds of one AlterInbound call, many in flight, with what surrounds it in the supervisor, on two cores that have nothing
#: else to do. Measured against core 26.10.10 with 100,000 users: 0.018 to 0.021 by itself; Trojan 0.024 to 0.027, since the core
#: formats each key of 56 bytes byte by byte.
ALTER_COST_MS = 0.022
ALTER_COST_MS_BY_PROTOCOL = {"trojan": 0.028}

#: Milliseconds of a swap apart from its users: RemoveInbound, AddInbound (measured against the core: 5 to 35).
SWAP_COST_MS = 20.0

#: Milliseconds of each user in a swap while the listener is away, decoding and adding in the core (measured as above, 48,000 and
#: 58,000 users in one message).
SWAP_AWAY_MS = 0.002
SWAP_AWAY_MS_BY_PROTOCOL = {"trojan": 0.016}

#: Milliseconds of each user in a swap before that: its message.
SWAP_MESSAGE_MS = 0.006

#: A swap holds no more users than the core adds in this time, in which nobody can connect.
SWAP_AWAY_MAX_MS = 250.0

#: An inbound is swapped where that takes at most this share of the time of altering: whoever does not fit is away for a while,
#: also those who stay as they were.
SWAP_SHARE_MAX = 0.8

#: An inbound is not swapped again within this time: its listener is away for some milliseconds each time, and with a swap
#: a second somebody would notice. Changes meanwhile are altered.
SWAP_PAUSE_SECONDS = 5.0

#: An inbound whose users are altered one by one is never away for a moment; below this many calls that is worth more.
SWAP_MIN_CALLS = 200

#: Users that fit into one message to the core, which takes 4 MiB, with e-mails and keys of usual length; the others follow one
#: by one.
SWAP_USERS_MAX = 45_000

#: Each AlterInbound makes a Shadowsocks-2022 inbound build its table of users anew.
SHADOWSOCKS_2022_USER_COST_MS = 0.002

#: E-mail as it is known to the core -> account, for one inbound.
Accounts = Mapping[str, Account]


class Change(NamedTuple):
    """One user in one inbound: ``old`` is removed if there may be one, ``new`` is added if there is one."""

    key: str
    old_email: str | None
    new_email: str | None
    new: Account | None


@dataclass(slots=True)
class InboundPlan:
    """What to alter in one inbound."""

    tag: str
    changes: list[Change] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """Core calls that it takes."""
        return sum((c.old_email is not None) + (c.new is not None) for c in self.changes)


def users_in_swap(inbound: InboundSpec) -> int:
    """How many users a swap of this inbound holds at most, whatever fits into the message."""
    away = SWAP_AWAY_MS_BY_PROTOCOL.get(inbound.protocol, SWAP_AWAY_MS)
    return int(SWAP_AWAY_MAX_MS / away)


def choose_swap(inbound: InboundSpec, calls: int, users_after: int, seconds_since_swap: float = float("inf")) -> bool:
    """Whether replacing the whole list of ``users_after`` users beats ``calls`` single calls."""
    if not inbound.outlives_listener or calls <= 1:
        return False
    if seconds_since_swap < SWAP_PAUSE_SECONDS:
        return False
    call = ALTER_COST_MS_BY_PROTOCOL.get(inbound.protocol, ALTER_COST_MS)
    alter = calls * call
    if inbound.is_shadowsocks_2022:
        alter += calls * users_after * SHADOWSOCKS_2022_USER_COST_MS
    elif calls < SWAP_MIN_CALLS:
        return False
    within = min(users_after, SWAP_USERS_MAX, users_in_swap(inbound))
    user = SWAP_AWAY_MS_BY_PROTOCOL.get(inbound.protocol, SWAP_AWAY_MS) + SWAP_MESSAGE_MS
    swap = SWAP_COST_MS + within * user + (users_after - within) * call
    return swap < alter * SWAP_SHARE_MAX
