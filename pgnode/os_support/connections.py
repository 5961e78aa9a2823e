"""Connections of this process that a library holds: what waits in them, and their end, for which it gives no way."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
import termios
from collections.abc import Set as AbstractSet
from typing import NamedTuple


class Peer(NamedTuple):
    """The address of a caller, in the one form in which addresses are compared."""

    host: str
    port: int


def plain_host(host: str) -> str:
    """Return an address of IP in one form.

    Args:
        host: As a socket or a library says it, perhaps with a zone, or of version 4 inside one of version 6.

    Returns:
        The address without zone, of version 4 where it is that; what is no address as it is.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def unread_bytes(number: int) -> int:
    """Tell how much has come on a connection and was not read yet.

    Args:
        number: The file number of its socket.

    Returns:
        How many bytes; 0 where it is closed.
    """
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(number, termios.FIONREAD, bytes(4)))
    except (OSError, ValueError):
        return 0
    return int(count)


def end_connections(peers: AbstractSet[Peer]) -> int:
    """Shut down the TCP connections of these callers; whoever holds one reads its end, and closes it.

    All descriptors of this process are looked at, some microseconds each: not for the event loop.

    Args:
        peers: The addresses that they come from.

    Returns:
        How many were ended.
    """
    ended = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            # Not a copy of the descriptor: that would keep the connection alive where its holder closes it meanwhile.
            connection = socket.socket(fileno=int(name))
        except OSError:
            continue
        try:
            if _peer(connection) in peers:
                connection.shutdown(socket.SHUT_RDWR)
                ended += 1
        except OSError:
            pass
        finally:
            connection.detach()
    return ended


def _peer(connection: socket.socket) -> Peer | None:
    """Return who is at the other end; None where that is nobody with an address of IP. Raises OSError."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port, *_ = connection.getpeername()
    return Peer(plain_host(host), port)
