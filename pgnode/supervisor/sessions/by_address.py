"""Which connections belong to users who are gone where no line tells: by the addresses that they are online from. Pure.

The core knows from which addresses each user has connections, and since when the last one of each. A connection that no line is
about is ended where nobody else is online from its address, and where it is certainly older than the user's new account.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final

from pgnode.os_support.tcp_ends import Connection, plain
from pgnode.supervisor.sessions.access_lines import Peer
from pgnode.supervisor.sessions.due import Due
from pgnode.supervisor.sessions.plan import ADDRESS, UDP, UNKNOWN, Found, Hit
from pgnode.xray.config.accounts import email_key

#: Seconds by which the core's clock, which counts whole ones, is not trusted.
CLOCK_SECONDS: Final = 2.0

#: User -> address -> Unix second at which the last connection from there began.
Online = Mapping[str, Mapping[str, int]]


def others_by_address(online: Online) -> dict[str, set[str]]:
    """Return who is online from which address: keys by address."""
    found: dict[str, set[str]] = {}
    for email, addresses in online.items():
        for address in addresses:
            found.setdefault(plain(address.strip("[]")), set()).add(email_key(email))
    return found


def judge(
    dues: Iterable[Due],
    online: Online,
    connections: Sequence[tuple[str, Connection]],
    told: Set[Peer],
    *,
    since: Mapping[tuple[str, str], Set[Peer]],
) -> Found:
    """Decide about connections that no line is about.

    Args:
        dues: Whose, and where.
        online: Who is online, from where.
        connections: All connections to the inbounds, by tag.
        told: Ends that a line is about: whose these are is known.
        since: Key and tag -> ends that were there right after the change; a connection that began later has another one.

    Returns:
        What is to be ended, and what is left.
    """
    found = Found()
    by_address = others_by_address(online)
    own = {email_key(email): addresses for email, addresses in online.items()}
    places: dict[tuple[str, str], list[Connection]] = {}
    for tag, connection in connections:
        places.setdefault((tag, connection.peer), []).append(connection)
    for due in dues:
        for text, last in own.get(due.key, {}).items():
            address = plain(text.strip("[]"))
            there = places.get((due.tag, address), ())
            open_ones = [peer for one in there if (peer := (one.peer, one.peer_port)) not in told]
            if not open_ones:
                continue
            if by_address[address] != {due.key}:
                found.left.add((due.key, ADDRESS))
                continue
            old_enough = due.until is None or last < due.at - CLOCK_SECONDS
            early = since.get((due.key, due.tag), frozenset())
            for peer in open_ones:
                if old_enough or peer in early:
                    found.hits.add(Hit(peer, due.tag, due.key))
                else:
                    found.left.add((due.key, UNKNOWN))
    return found


def left_online(dues: Iterable[Due], online: Online, kinds: Mapping[str, Set[str]]) -> set[tuple[str, str]]:
    """Return who is online still through inbounds that have no connections of TCP: (user, why)."""
    own = {email_key(email) for email, addresses in online.items() if addresses}
    return {(due.key, UDP) for due in dues if due.key in own and "tcp" not in kinds.get(due.tag, frozenset({"tcp"}))}
