"""Which connections belong to users who are gone, by the core's lines. Pure.

A connection of TCP is told by its two ends, and through nearly all transports it is one user's: the newest line about it says
whose. Where a transport carries several connections of its own within one (gRPC, XHTTP), so may a proxy in front of the node with
those of several users: such a connection is ended only where all lines about it are of one user.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pgnode.os_support.tcp_ends import Door
from pgnode.supervisor.host.log_ring import Block
from pgnode.supervisor.sessions.access_lines import AccessLine, Peer, lines_of, needle_of, needles_of
from pgnode.supervisor.sessions.due import Due
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.listeners import plain_address

#: Transports that carry several users' connections within one where something stands in front.
SHARED_TRANSPORTS: Final = frozenset({"grpc", "xhttp"})

#: Up to so many texts a block is searched for them before it is taken apart.
NEEDLES_MAX: Final = 16

#: Why connections were left alone.
SHARED: Final = "shared"
PROXIED: Final = "proxied"
UDP: Final = "udp"
ADDRESS: Final = "address"
UNKNOWN: Final = "unknown"
UNREACHABLE: Final = "unreachable"

#: The same in words.
LEFT_WORDS: Final[Mapping[str, str]] = {
    SHARED: "one connection carries several users",
    PROXIED: "something stands in front of the node, and the connection to it is not the user's",
    UDP: "it is no connection of TCP",
    ADDRESS: "no line of the log tells it from those of others at the same address",
    UNKNOWN: "no line of the log tells whether it is older than the user's new account",
    UNREACHABLE: "the core's process cannot be looked into",
}


class Hit(NamedTuple):
    """One connection that is to be ended."""

    peer: Peer
    tag: str
    key: str


@dataclass(slots=True)
class Found:
    """What lines say."""

    hits: set[Hit] = field(default_factory=set)
    #: (user, why) that some connection is left.
    left: set[tuple[str, str]] = field(default_factory=set)


def doors_of(inbounds: Iterable[InboundSpec]) -> dict[str, Door]:
    """Return where connections come in, by tag; inbounds without a port of TCP have none."""
    doors = {}
    for spec in inbounds:
        if "tcp" in spec.kinds and spec.ports and not spec.is_unix:
            address = plain_address(spec.listen) or ""
            doors[spec.tag] = Door("" if address in ("0.0.0.0", "::") else address, spec.ports)
    return doors


class Search:
    """Finds the connections of users who are gone. Give it each block twice: first to one method, then to the other.

    Args:
        dues: Whose, and where.
        inbounds: The inbounds of the core, by tag.
    """

    def __init__(self, dues: Collection[Due], inbounds: Mapping[str, InboundSpec]) -> None:
        self._dues: dict[str, list[Due]] = {}
        for due in dues:
            self._dues.setdefault(due.name, []).append(due)
        self._inbounds = inbounds
        emails = {due.email for due in dues}
        few = len(emails) <= NEEDLES_MAX and all(map(str.isascii, emails))
        self._needles: tuple[bytes, ...] = tuple(map(needle_of, emails)) if few else ()
        self._lines: dict[Peer, list[AccessLine]] = {}
        self._found = Found()

    def __repr__(self) -> str:
        return f"Search({len(self._dues)} users, {len(self._lines)} ends)"

    def find_ends(self, block: Block) -> None:
        """Take note of where the users came from."""
        for line in self._wanted(block):
            dues = self._dues.get(line.user) if line.user is not None else None
            for due in dues or ():
                if line.tag not in (None, due.tag) or (due.until is not None and line.number >= due.until):
                    continue
                if line.udp:
                    self._found.left.add((due.key, UDP))
                elif not line.peer[1]:
                    self._found.left.add((due.key, PROXIED))
                else:
                    self._lines.setdefault(line.peer, [])

    def ends_found(self) -> int:
        """Return how many ends there are; now blocks go to :meth:`find_owners`."""
        needles = [needle for peer in self._lines for needle in needles_of(peer)]
        self._needles = tuple(needles) if len(needles) <= 2 * NEEDLES_MAX else ()
        return len(self._lines)

    def find_owners(self, block: Block) -> None:
        """Take note of everybody who came from the same ends."""
        for line in self._wanted(block):
            lines = self._lines.get(line.peer)
            if lines is not None and not line.udp:
                lines.append(line)

    def _wanted(self, block: Block) -> Iterator[AccessLine]:
        if self._needles:
            # The same user may be spelt in several ways.
            raw = block.raw.lower()
            if not any(needle in raw for needle in self._needles):
                return iter(())
        return lines_of(block)

    def result(self) -> Found:
        """Return what is to be ended, and what is left."""
        for peer, lines in self._lines.items():
            users = {line.user for line in lines if line.user is not None}
            for name in users & self._dues.keys():
                for due in self._dues[name]:
                    self._judge(due, peer, [line for line in lines if line.tag in (None, due.tag)])
        return self._found

    def _judge(self, due: Due, peer: Peer, lines: Sequence[AccessLine]) -> None:
        """Decide about one connection, by what was said of it."""
        spec = self._inbounds.get(due.tag)
        own = [line for line in lines if line.user == due.name]
        if spec is None or not own:
            return
        shared = spec.transport in SHARED_TRANSPORTS
        if shared and any(line.user not in (None, due.name) for line in lines):
            self._found.left.add((due.key, SHARED))
            return
        newest = max(lines, key=lambda line: line.number)
        if newest.user != due.name:
            # Whoever has that port now came later.
            return
        if due.until is not None:
            first = min(line.number for line in own)
            if first >= due.until or (newest.number >= due.until and not shared and not newest.within):
                # By the account that the user has now, perhaps from the same port.
                return
        self._found.hits.add(Hit(peer, due.tag, due.key))
