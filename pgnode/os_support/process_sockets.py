"""The TCP connections that a process holds, and how one of them is shut down by whoever may duplicate its descriptors.

A connection is looked at through a duplicate, and only the duplicate is shut down and closed: the process's own descriptor may
become another's at any moment, and is never touched. A shutdown acts on the connection, so its owner sees it end in good order.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from pgnode.os_support.tcp_ends import Connection, Door, Seen, Target, plain

#: Descriptors that are looked at before others get their turn, and the pause after them in seconds.
STEP: Final = 256
PAUSE_SECONDS: Final = 0.001

#: ``pidfd_getfd(2)``: the same number on every architecture.
_PIDFD_GETFD: Final = 438


class Descriptors(Protocol):
    """A process whose descriptors can be duplicated."""

    def numbers(self) -> list[int]:
        """List them. Raises OSError."""

    def duplicate(self, number: int) -> int:
        """Duplicate one of them. Raises OSError."""


class OwnDescriptors:
    """Those of this process."""

    def numbers(self) -> list[int]:
        """List them."""
        return [int(name) for name in os.listdir("/proc/self/fd")]

    def duplicate(self, number: int) -> int:
        """Duplicate one of them. Raises OSError."""
        return os.dup(number)


class OtherDescriptors:
    """Those of another process.

    Args:
        pid: The process.
        pidfd: Its descriptor, which refers to this very process.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall

    def numbers(self) -> list[int]:
        """List them. Raises OSError where this process may not look into that one."""
        return [int(name) for name in os.listdir(f"/proc/{self._pid}/fd")]

    def duplicate(self, number: int) -> int:
        """Duplicate one of them. Raises OSError."""
        found: int = self._syscall(_PIDFD_GETFD, self._pidfd, number, 0)
        if found < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return found


def go_through(
    descriptors: Descriptors,
    doors: Sequence[Door],
    targets: Iterable[Target] = (),
    *,
    listed: bool = False,
    pause: Callable[[float], object] = time.sleep,
) -> Seen:
    """Look at every connection that came in by some doors, and shut some of them down.

    Args:
        descriptors: The process.
        doors: The doors.
        targets: Which connections are shut down.
        listed: Whether all of them are returned.
        pause: Lets others have their turn.

    Returns:
        What was found and done.

    Raises:
        OSError: The process may not be looked into, or has no descriptor left.
    """
    wanted = frozenset(targets)
    seen = Seen()
    looked = 0
    refused: OSError | None = None
    by_port = _by_port(doors)
    for number in descriptors.numbers():
        looked += 1
        if looked % STEP == 0:
            pause(PAUSE_SECONDS)
        try:
            copy = descriptors.duplicate(number)
        except OSError as error:
            if error.errno == errno.EBADF:
                # It was closed meanwhile.
                continue
            refused = error
            break
        try:
            # Nothing is asked for its family: addresses of IPv4 fit where those of IPv6 do, and each says what it is.
            one = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, copy)
        except OSError:
            # It is no socket.
            os.close(copy)
            continue
        with one, contextlib.suppress(OSError):
            connection = _connection(one, by_port)
            if connection is not None:
                _take(one, connection, doors, wanted, seen, listed=listed)
    if refused is not None:
        raise refused
    return seen


def _by_port(doors: Sequence[Door]) -> Callable[[int], bool]:
    ranges = [ports for door in doors for ports in door.ports]
    single: Mapping[int, bool] = {first: True for first, last in ranges if first == last}
    wide = [(first, last) for first, last in ranges if first != last]
    return lambda port: port in single or any(first <= port <= last for first, last in wide)


def _connection(one: socket.socket, came_to: Callable[[int], bool]) -> Connection | None:
    """Return the connection of a socket, None where it is none of those. Raises OSError for what is no socket."""
    own = one.getsockname()
    if not isinstance(own, tuple) or len(own) < 2 or not isinstance(own[1], int) or not came_to(own[1]):
        return None
    if one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return None
    peer = one.getpeername()
    return Connection(plain(peer[0]), peer[1], plain(own[0]), own[1])


def _take(
    one: socket.socket,
    connection: Connection,
    doors: Sequence[Door],
    wanted: frozenset[Target],
    seen: Seen,
    *,
    listed: bool,
) -> None:
    for place, door in enumerate(doors):
        if not door.takes(connection):
            continue
        if listed:
            seen.found.append((place, connection))
        target = (connection.peer, connection.peer_port, place)
        if target in wanted:
            one.shutdown(socket.SHUT_RDWR)
            seen.cut.append(target)
            return
