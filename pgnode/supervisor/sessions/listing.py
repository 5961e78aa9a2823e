"""Which open connections are a user's, and since when, for an operator who asks. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import asdict, dataclass
from typing import Any

from pgnode.os_support.tcp_ends import Connection, plain
from pgnode.supervisor.host.log_ring import Block
from pgnode.supervisor.sessions.access_lines import AccessLine, Peer, lines_of


@dataclass(frozen=True, slots=True)
class Session:
    """One connection."""

    address: str
    port: int
    inbound: str
    #: Unix seconds; None where no line says.
    since: float | None
    #: Others use it, or may: it carries several users, or no line tells whose it is and others are online from that address.
    shared: bool = False

    def encode(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return asdict(self)


class SessionList:
    """Reads the log's blocks, the oldest first, and tells whose open connections are.

    Args:
        connections: All open ones, by inbound.
        shared: Inbounds whose connections may carry several users.
    """

    def __init__(self, connections: Iterable[tuple[str, Connection]], shared: Collection[str]) -> None:
        self._tags: dict[Peer, list[str]] = {}
        self._shared = shared
        #: (end, inbound) -> (users, since).
        self._owners: dict[tuple[Peer, str], tuple[dict[str, None], float]] = {}
        for tag, connection in connections:
            self._tags.setdefault((connection.peer, connection.peer_port), []).append(tag)

    def __repr__(self) -> str:
        return f"SessionList({len(self._tags)} ends)"

    def read(self, block: Block) -> None:
        """Take note of what lines say of open connections."""
        for line in lines_of(block):
            for tag in self._tags.get(line.peer, ()):
                if line.tag in (None, tag) and not line.udp:
                    self._note(line, tag, block.at)

    def _note(self, line: AccessLine, tag: str, at: float) -> None:
        place = line.peer, tag
        if line.user is None:
            self._owners.pop(place, None)
            return
        users, since = self._owners.get(place, ({}, at))
        if tag in self._shared or (line.within and line.user in users):
            users[line.user] = None
        else:
            users, since = {line.user: None}, at
        self._owners[place] = users, since

    def of(self, name: str, online: Mapping[str, int], others: Set[str]) -> list[Session]:
        """Return a user's, the oldest first, those of which that is not known last.

        Args:
            name: The user, as lines spell it in lower case.
            online: Addresses that the user is online from.
            others: Addresses that others are online from.

        Returns:
            The connections.
        """
        addresses = {plain(text.strip("[]")) for text in online}
        found = []
        for peer, tags in self._tags.items():
            for tag in tags:
                users, since = self._owners.get((peer, tag), (None, 0.0))
                if users is None:
                    if peer[0] in addresses:
                        found.append(Session(*peer, tag, None, shared=peer[0] in others))
                elif name in users:
                    found.append(Session(*peer, tag, since, shared=len(users) > 1))
        return sorted(found, key=lambda one: (one.since is None, one.since or 0.0, one.address, one.port, one.inbound))
