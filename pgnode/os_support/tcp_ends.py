"""The two ends of a TCP connection, as one compares them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

_MAPPED: Final = "::ffff:"


class Connection(NamedTuple):
    """A TCP connection that somebody else opened; addresses as the kernel writes them, IPv4 as such."""

    peer: str
    peer_port: int
    local: str
    local_port: int


@dataclass(frozen=True, slots=True)
class Door:
    """Where connections come in: an address ("" for any) and ranges of ports, both ends included."""

    address: str
    ports: tuple[tuple[int, int], ...]

    def takes(self, connection: Connection) -> bool:
        """Whether a connection came in here."""
        return (not self.address or self.address == connection.local) and any(
            first <= connection.local_port <= last for first, last in self.ports
        )


#: The other end of a connection, and by which of several doors it came.
Target = tuple[str, int, int]


@dataclass(slots=True)
class Seen:
    """What was found, and what was done."""

    #: Connections by the place of their door.
    found: list[tuple[int, Connection]] = field(default_factory=list)
    #: Those that were shut down.
    cut: list[Target] = field(default_factory=list)


def plain(address: str) -> str:
    """Write an address as others do: IPv4 in IPv6 as what it is, and without a zone."""
    address = address.partition("%")[0]
    rest = address.removeprefix(_MAPPED)
    return rest if rest != address and "." in rest else address
