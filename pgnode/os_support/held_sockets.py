"""Which sockets a process offers, as the kernel tells it: ``/proc/PID/fd`` and ``/proc/PID/net`` (proc(5)).

A port that is in use by the process one is about to end or to change is not in anybody's way.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: A TCP socket that takes connections.
_LISTENING: Final = "0A"
#: A UDP socket that has no peer.
_UNCONNECTED: Final = "07"
_SOCKET_LINK: Final = "socket:["


@dataclass(frozen=True, slots=True)
class OfferedSocket:
    """A socket that takes connections or packets. ``kind`` is "tcp" or "udp"."""

    kind: str
    address: str
    port: int
    inode: int


class HeldSockets:
    """The sockets that one process holds. Reads ``/proc`` anew at every call, which blocks for some milliseconds.

    Args:
        pid: The process. One that has gone, or that may not be looked into, holds nothing.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __repr__(self) -> str:
        return f"HeldSockets(pid {self._pid})"

    def alone_at(self, kind: str, address: str, port: int) -> bool:
        """Whether this process offers something that overlaps with that address and port, and nobody else does.

        Args:
            kind: "tcp" or "udp".
            address: An IP address; the unspecified ones overlap with all of their family, and "::" with IPv4, too.
            port: The port.

        Returns:
            Whether only this process would be in the way of somebody who binds there.
        """
        own = self._inodes()
        found = [item for item in self._offered(kind) if item.port == port and overlap(item.address, address)]
        return bool(found) and all(item.inode in own for item in found)

    def serves_path(self, path: str) -> bool:
        """Whether this process listens on the unix socket of that path, be it by another name ("@name": an abstract one)."""
        own = self._inodes()
        wanted = _real(path)
        return any(inode in own and _real(name) == wanted for name, inode in self._unix())

    def _inodes(self) -> set[int]:
        found: set[int] = set()
        folder = f"/proc/{self._pid}/fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    target = str(Path(folder, name).readlink())
                    if target.startswith(_SOCKET_LINK):
                        found.add(int(target[len(_SOCKET_LINK) : -1]))
        return found

    def _offered(self, kind: str) -> Iterator[OfferedSocket]:
        wanted = _LISTENING if kind == "tcp" else _UNCONNECTED
        for name in (kind, f"{kind}6"):
            for line in self._lines(name):
                fields = line.split()
                if len(fields) > 9 and fields[3] == wanted:
                    address, _, port = fields[1].partition(":")
                    yield OfferedSocket(kind, address_of(address), int(port, 16), int(fields[9]))

    def _unix(self) -> Iterator[tuple[str, int]]:
        for line in self._lines("unix"):
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[6].isdigit():
                yield fields[7], int(fields[6])

    def _lines(self, name: str) -> Iterator[str]:
        try:
            # The first line names the columns. Names of abstract sockets may be any bytes.
            content = Path(f"/proc/{self._pid}/net/{name}").read_bytes()
        except OSError:
            return
        yield from content.decode(errors="surrogateescape").splitlines()[1:]


def _real(name: str) -> str:
    return os.path.realpath(name) if name.startswith("/") else name


def address_of(text: str) -> str:
    """Read an address as ``/proc/net`` writes it: words of four bytes, in the machine's order, as hex."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words))


def overlap(one: str, other: str) -> bool:
    """Whether sockets at these two IP addresses are in each other's way."""
    first, second = (plain_address(ipaddress.ip_address(text)) for text in (one, other))
    if first == second:
        return True
    for wild, any_other in ((first, second), (second, first)):
        # "::" takes IPv4 as well.
        if wild.is_unspecified and (wild.version == 6 or any_other.version == 4):
            return True
    return False


def plain_address(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Write an IPv4 address that stands in an IPv6 one as what it is."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped
