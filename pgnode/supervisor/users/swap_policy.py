"""Whether an inbound is altered user by user, or swapped as a whole. Pure.

To alter takes one core call for each removed and each added user. To swap is to remove the running inbound and to add it with
another list of users; live connections stay.
"""

from __future__ import annotations

from pgnode.xray.config.inbounds import InboundSpec

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
SWAP_USERS_MAX = 48_000

#: Each AlterInbound makes a Shadowsocks-2022 inbound build its table of users anew.
SHADOWSOCKS_2022_USER_COST_MS = 0.002


def users_in_swap(inbound: InboundSpec) -> int:
    """Return how many users a swap of this inbound holds at most, whatever fits into the message."""
    away = SWAP_AWAY_MS_BY_PROTOCOL.get(inbound.protocol, SWAP_AWAY_MS)
    return int(SWAP_AWAY_MAX_MS / away)


def choose_swap(inbound: InboundSpec, calls: int, users_after: int, seconds_since_swap: float = float("inf")) -> bool:
    """Decide how an inbound is brought to its state.

    Args:
        inbound: The inbound.
        calls: Core calls that it takes to alter it.
        users_after: Users in it afterwards, at most.
        seconds_since_swap: Seconds since it was swapped last.

    Returns:
        Whether replacing the whole list beats single calls.
    """
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
