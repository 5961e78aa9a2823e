"""Connections of this process that a library holds: what waits in them, and their end, for which it gives no way."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import termios
from array import array
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

#: Where ``tcpi_bytes_received`` is in ``struct tcp_info``, and what it is.
_RECEIVED_AT: Final = 128
_COUNT: Final = struct.Struct("Q")

#: An ``int``.
_NOTHING: Final = array("i", (0,))

#: ``struct sockaddr`` with a family alone.
_NO_ADDRESS: Final = struct.Struct("H14x")


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
    count = _NOTHING[:]
    try:
        # It is put there: of many calls that is the quickest, and some callers ask for every request.
        fcntl.ioctl(number, termios.FIONREAD, count)
    except (OSError, ValueError):
        return 0
    return count[0]


def end_connections(peers: AbstractSet[Peer]) -> int:
    """Break off the TCP connections of these callers; whoever holds one finds it broken, and closes it.

    A connection is reset. If it was only shut down, its holder would first read all that the caller has sent before, which can
    be megabytes, and the caller's machine would keep what it has still to send.

    All descriptors of this process are looked at, some microseconds each: not for the event loop.

    Args:
        peers: The addresses that they come from.

    Returns:
        How many were ended.
    """
    ended = 0
    for connection in _sockets():
        with contextlib.suppress(OSError):
            if _peer(connection) in peers:
                _reset(connection)
                ended += 1
    return ended


def received_bytes(port: int) -> dict[Peer, int]:
    """Tell how much callers have sent on their connections; not for the event loop either.

    Args:
        port: The port that they came to.

    Returns:
        Bytes since each connection was made, by its caller; what is not told by the kernel is left out.
    """
    received: dict[Peer, int] = {}
    for connection in _sockets():
        with contextlib.suppress(OSError, struct.error):
            peer = _peer(connection)
            if peer is not None and connection.getsockname()[1] == port:
                told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + _COUNT.size)
                (received[peer],) = _COUNT.unpack_from(told, _RECEIVED_AT)
    return received


def _sockets() -> Iterator[socket.socket]:
    """Yield each socket of this process, for a moment."""
    for name in os.listdir("/proc/self/fd"):
        try:
            # Not a copy of the descriptor: that would keep the connection alive where its holder closes it meanwhile.
            found = socket.socket(fileno=int(name))
        except OSError:
            continue
        try:
            yield found
        finally:
            found.detach()


def _reset(connection: socket.socket) -> None:
    """Break a connection off, with nothing left to read or to send. Raises OSError."""
    # To connect to no address is the way to dissolve a connection (connect(2)), which Python's own method does not know.
    nowhere = _NO_ADDRESS.pack(socket.AF_UNSPEC)
    if _libc.connect(connection.fileno(), nowhere, len(nowhere)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _peer(connection: socket.socket) -> Peer | None:
    """Return who is at the other end; None where that is nobody with an address of IP. Raises OSError."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    host, port, *_ = connection.getpeername()
    return Peer(plain_host(host), port)
