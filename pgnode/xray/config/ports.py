"""Are the sockets free that a config's inbounds want to listen on?

The core binds with SO_REUSEPORT, so two cores share a port without a word and each gets half of the connections; and
when a port is held by someone else its error names no inbound. So the node tries first, without SO_REUSEPORT.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pgnode.errors import StartFailedError
from pgnode.xray.config.inbounds import InboundSpec

#: Sockets tried in one check; a range such as 1-65535 is left to the core beyond that (one try takes about 10 µs).
MAX_LISTENERS: Final = 8192

#: How long a server behind a unix socket has to take a connection before its path counts as stale, in seconds.
_UNIX_CONNECT_SECONDS: Final = 0.5

#: Length of ``sockaddr_un.sun_path`` on Linux; "@@name" fills it with zeros (xray-core ``transport/internet``).
_UNIX_PATH_BYTES: Final = 108


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket of an inbound. ``kind`` is "tcp", "udp" or "unix"; ``port`` is 0 for "unix", else 1 to 65535."""

    kind: str
    address: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix socket {self.address}"
        return f"port {self.port} on {self.address} ({self.kind})"


def listeners(inbound: InboundSpec) -> Iterator[Listener]:
    """Yield the sockets that ``inbound`` opens, ranges expanded; none for one whose address only the core understands."""
    if inbound.is_unix:
        # A file's mode may follow the path: "/run/x.sock,0666".
        yield Listener("unix", inbound.listen.partition(",")[0] if inbound.listen.startswith("/") else inbound.listen)
        return
    address = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(inbound.listen, inbound.listen).strip("[]")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return
    for first, last in inbound.ports:
        for port in range(first, last + 1):
            for kind in sorted(inbound.kinds):
                yield Listener(kind, address, port)


def check_ports(inbounds: Iterable[InboundSpec], skip: Collection[Listener] = frozenset()) -> None:
    """Try to open every socket of ``inbounds``, and close it again at once.

    ``skip``: what the running core itself holds. Blocks for milliseconds (longer when a unix socket does not answer): call
    it through :func:`check_ports_in_thread` from an event loop. Raises StartFailedError for the first one that is not free.
    """
    tried = 0
    for inbound in inbounds:
        for listener in listeners(inbound):
            if listener in skip:
                continue
            tried += 1
            if tried > MAX_LISTENERS:
                return
            fault = _try_unix(listener.address) if listener.kind == "unix" else _try_port(listener)
            if fault is not None:
                raise StartFailedError(f"inbound {inbound.tag!r}: {listener} {fault}")


async def check_ports_in_thread(inbounds: Collection[InboundSpec], skip: Collection[Listener] = frozenset()) -> None:
    """Do what :func:`check_ports` does, without blocking the event loop."""
    await asyncio.to_thread(check_ports, inbounds, skip)


def _try_port(listener: Listener) -> str | None:
    """Return what is wrong with the port, or None."""
    is_ipv6 = ":" in listener.address
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    kind = socket.SOCK_STREAM if listener.kind == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as probe:
            if listener.kind == "tcp":
                # As Go does: connections that linger in TIME_WAIT hold no port. For UDP it would allow sharing.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_ipv6:
                # Go takes IPv4 as well on "::".
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if listener.address == "::" else 1)
            probe.bind((listener.address, listener.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "is in use"
        if error.errno == errno.EADDRNOTAVAIL:
            return "cannot be opened: this machine has no such address"
        if error.errno in {errno.EACCES, errno.EPERM}:
            return "cannot be opened: ports this low need CAP_NET_BIND_SERVICE or root"
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            # Says nothing about the port; the core will tell.
            return None
        return f"cannot be opened: {error.strerror}"
    return None


def _try_unix(address: str) -> str | None:
    if address.startswith("/") and not os.path.lexists(address):
        return None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_UNIX_CONNECT_SECONDS)
            probe.connect(_unix_name(address))
    except TimeoutError:
        return "is in use (its server does not take connections)"
    except OSError as error:
        # EAGAIN: a server is there, its queue is full. Anything else: nobody listens; the core replaces a stale file.
        return "is in use" if error.errno == errno.EAGAIN else None
    return "is in use"


def _unix_name(address: str) -> str | bytes:
    if address.startswith("@@"):
        return b"\0" + address[2:].encode().ljust(_UNIX_PATH_BYTES - 1, b"\0")
    if address.startswith("@"):
        return b"\0" + address[1:].encode()
    return address
