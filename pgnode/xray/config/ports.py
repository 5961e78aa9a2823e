"""Can a config's sockets be had? Looked at before anything that runs is touched.

The core binds with SO_REUSEPORT, so two cores share a port without a word and each gets half of the connections; and
when a port is held by someone else its error names no inbound. So the node tries first, without SO_REUSEPORT. What the node's
own core holds is in nobody's way: it is ended, or the inbound that has it is taken away first.

A unix socket whose server was killed leaves its file behind, and the core cannot listen there again. Such a file is removed,
and nothing else ever is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from pgnode.errors import StartFailedError
from pgnode.os_support.held_sockets import HeldSockets
from pgnode.xray.config.inbounds import short
from pgnode.xray.config.listeners import LOCK_SUFFIX, Claim, Listener

#: How long a server behind a unix socket has to take a connection before its path counts as stale, in seconds.
_UNIX_CONNECT_SECONDS: Final = 0.5

#: Length of ``sockaddr_un.sun_path`` on Linux; "@@name" fills it with zeros (xray-core ``transport/internet``).
_UNIX_PATH_BYTES: Final = 108

#: To set up a network device (Linux ``if_tun.h``).
_TUN_FILE: Final = Path("/dev/net/tun")
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001


def check_claims(
    claims: Iterable[Claim], skip: Collection[Listener] = frozenset(), own: HeldSockets | None = None
) -> None:
    """Try to open every socket that a config claims, and close it again at once.

    Blocks for milliseconds (longer when a unix socket does not answer): call it through :func:`check_claims_in_thread` from an
    event loop.

    Args:
        claims: What is claimed.
        skip: What the running core has by its config; it is not even tried.
        own: What the running core holds in fact; None where none runs.

    Raises:
        StartFailedError: For the first one that is not free; the text names the part.
    """
    for claim in claims:
        listener = claim.listener
        if listener in skip:
            continue
        fault = _TRIES[listener.kind](listener, own)
        if fault is not None:
            raise StartFailedError(f"{claim.owner}: {listener} {fault}")


async def check_claims_in_thread(
    claims: Collection[Claim], skip: Collection[Listener] = frozenset(), own: HeldSockets | None = None
) -> None:
    """Do what :func:`check_claims` does, without blocking the event loop."""
    await asyncio.to_thread(check_claims, claims, skip, own)


def remove_stale_sockets(claims: Iterable[Claim]) -> list[str]:
    """Remove the files of unix sockets that nobody serves, so that the core can listen there.

    Args:
        claims: What is about to be bound.

    Returns:
        The paths that were removed.
    """
    removed: list[str] = []
    for claim in claims:
        path = claim.listener.address
        if claim.listener.kind != "unix" or not path.startswith("/"):
            continue
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISSOCK(os.lstat(path).st_mode) and not _is_served(path):
                Path(path).unlink()
                removed.append(path)
    return removed


def _try_port(listener: Listener, own: HeldSockets | None) -> str | None:
    """Return what is wrong with the port, or None."""
    error = _bind_error(listener, shared=False)
    if error is None:
        return None
    if error.errno == errno.EADDRINUSE:
        return None if own is not None and _is_own(listener, own) else "is in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return "cannot be opened: this machine has no such address"
    if error.errno == errno.EAFNOSUPPORT:
        return "cannot be opened: this machine has no IPv6"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "cannot be opened: ports this low need CAP_NET_BIND_SERVICE or root"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        # Says nothing about the port; the core will tell.
        return None
    return f"cannot be opened: {error.strerror}"


def _is_own(listener: Listener, own: HeldSockets) -> bool:
    """Whether only the running core is in the way. Who bound a TCP port and does not listen is seen by nobody, but binding."""
    # The core takes all addresses of either family for "0.0.0.0".
    address = "::" if listener.address == "0.0.0.0" else listener.address
    if not own.alone_at(listener.kind, address, listener.port):
        return False
    error = _bind_error(listener, shared=True)
    return error is None or error.errno != errno.EADDRINUSE


def _bind_error(listener: Listener, *, shared: bool) -> OSError | None:
    if listener.address != "0.0.0.0":
        return _bind_error_at(listener.address, listener, shared=shared)
    # Go takes that for all addresses, of IPv6 as well, on a machine that knows IPv6.
    error = _bind_error_at("::", listener, shared=shared)
    if error is not None and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
        return _bind_error_at(listener.address, listener, shared=shared)
    return error


def _bind_error_at(address: str, listener: Listener, *, shared: bool) -> OSError | None:
    is_ipv6 = ":" in address
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    kind = socket.SOCK_STREAM if listener.kind == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as probe:
            if listener.kind == "tcp":
                # As Go does: connections that linger in TIME_WAIT hold no port. For UDP it would allow sharing.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if is_ipv6:
                # Go takes IPv4 as well on "::".
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
            probe.bind((address, listener.port))
    except OSError as error:
        return error
    return None


def _try_device(listener: Listener, _own: HeldSockets | None, file: Path = _TUN_FILE) -> str | None:
    """Set a network device up and let it go. One of that name which the running core has is not tried: its config names it."""
    request = struct.pack("16sH22x", listener.address.encode(errors="replace"), _IFF_TUN_NO_PI)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, request)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            return "cannot be set up: that needs CAP_NET_ADMIN or root"
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            return f"cannot be set up: this machine has no {file}"
        return "is in use" if error.errno == errno.EBUSY else f"cannot be set up: {error.strerror}"
    return None


def _try_unix(listener: Listener, own: HeldSockets | None) -> str | None:
    """Return what is wrong with the path or the name, or None."""
    address = listener.address
    if len(_unix_bytes(address)) >= _UNIX_PATH_BYTES or "\0" in address:
        return f"cannot be opened: a path has at most {_UNIX_PATH_BYTES - 1} bytes, and no NUL"
    if own is not None and own.serves_path(address):
        return None
    if address.startswith("/"):
        return _path_fault(Path(address))
    return "is in use" if _is_served(address) else None


def _path_fault(path: Path) -> str | None:
    folder = path.parent
    lock = Path(f"{path}{LOCK_SUFFIX}")
    try:
        if lock.exists() and not lock.is_file():
            return f"cannot be opened: {short(str(lock))}, where the core locks it, is no plain file; remove that"
        found = os.lstat(path)
    except FileNotFoundError:
        if not folder.is_dir():
            return f"cannot be opened: there is no folder {short(str(folder))}"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"cannot be opened: {short(str(folder))} is not writable"
        return _bind_fault(path)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    if not stat.S_ISSOCK(found.st_mode):
        return "cannot be opened: something else is there, no socket; remove it, or choose another path"
    return "is in use" if _is_served(str(path)) else None


def _bind_fault(path: Path) -> str | None:
    """Make a socket there for a moment: a folder that may be written need not take any, as in /proc."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    return None


def _is_served(address: str) -> bool:
    """Whether somebody listens on this unix socket, be it a server that does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_UNIX_CONNECT_SECONDS)
            probe.connect(_unix_name(address))
    except OSError as error:
        # Only these two say that nobody is there: no socket of that name, or one without a server.
        return error.errno not in {errno.ECONNREFUSED, errno.ENOENT}
    return True


def _unix_name(address: str) -> str | bytes:
    if address.startswith("@@"):
        return b"\0" + _unix_bytes(address)[2:].ljust(_UNIX_PATH_BYTES - 1, b"\0")
    if address.startswith("@"):
        return b"\0" + _unix_bytes(address)[1:]
    return address


def _unix_bytes(address: str) -> bytes:
    return os.fsencode(address)


_TRIES: Final[dict[str, Callable[[Listener, HeldSockets | None], str | None]]] = {
    "tcp": _try_port,
    "udp": _try_port,
    "unix": _try_unix,
    "tun": _try_device,
}
