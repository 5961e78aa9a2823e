"""Asks the inbounds of a core that does not answer its API whether they take connections: is it alive, or does it hang?

Connecting alone says nothing: the kernel does that for a process that stands still. So a connection counts when the core took
it (its own end then belongs to a process), or when anything came back; a packet counts when it was read. Nothing is sent that
means anything: a connection is closed at once, and a packet is empty.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgnode.xray.config.listeners import Listener

#: Seconds that inbounds have to take a connection.
PROBE_SECONDS: Final = 2.0

#: Inbounds that are asked at once.
MAX_ASKED: Final = 8

#: Seconds after which a core that is well has taken them, and is looked at first.
_FIRST_SECONDS: Final = 0.1

#: States of a process that was stopped by a signal or a debugger (proc(5)).
_STOPPED: Final = "Tt"

_LOCAL, _REMOTE, _QUEUES, _INODE = 1, 2, 4, 9

#: What comes back on a connection, be it its end.
_ANSWER: Final = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLRDHUP


@dataclass(frozen=True, slots=True)
class _Probe:
    socket: socket.socket
    listener: Listener
    connected: bool


def takes_connections(pid: int, listeners: Sequence[Listener], *, seconds: float = PROBE_SECONDS) -> bool | None:
    """Find out whether a core takes connections at one of its inbounds. Blocks for ``seconds`` at most.

    Args:
        pid: Of the core.
        listeners: Sockets of its inbounds.
        seconds: Seconds that it has for that.

    Returns:
        True when one of them does, or when the core cannot be asked; False when none does; None when none could be asked, and
        the process was not stopped.
    """
    with contextlib.ExitStack() as opened:
        asked = [probe for listener in listeners if (probe := _open(listener)) is not None]
        for probe in asked:
            opened.callback(probe.socket.close)
        if asked:
            for wait in _waits(seconds):
                if _answered([probe.socket for probe in asked if probe.connected], wait):
                    return True
                if any(_taken(pid, probe) for probe in asked):
                    return True
            return False
    return False if _is_stopped(pid) else None


def _waits(seconds: float) -> Iterator[float]:
    """Yield pauses that grow, so many seconds of them in all."""
    wait = _FIRST_SECONDS
    while seconds > 0:
        yield min(wait, seconds)
        seconds -= wait
        wait *= 2


def _open(listener: Listener) -> _Probe | None:
    """Ask one inbound; None where that is not possible, or where nobody listens."""
    kind = socket.SOCK_DGRAM if listener.kind == "udp" else socket.SOCK_STREAM
    family: int = socket.AF_UNIX
    address: str | bytes | tuple[str, int] = _unix_address(listener.address)
    if listener.kind != "unix":
        host = _reachable(listener.address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = (host, listener.port)
    try:
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:
        return None
    error = made.connect_ex(address)
    if error == errno.EINPROGRESS:
        # To this machine it is decided at once, unless the queue is full.
        error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error in (0, errno.EAGAIN):
        return _Probe(made, listener, connected=_say_nothing(made, listener))
    made.close()
    return None


def _say_nothing(made: socket.socket, listener: Listener) -> bool:
    """Send an empty packet, or the end of a connection; returns whether there is a connection."""
    with contextlib.suppress(OSError):
        if listener.kind == "udp":
            made.send(b"")
            return False
        # Fails where the queue is full.
        made.getpeername()
        made.shutdown(socket.SHUT_WR)
        return True
    return False


def _unix_address(name: str) -> str | bytes:
    return b"\0" + name[1:].encode() if name.startswith("@") else name


def _reachable(address: str) -> str:
    """Return where a socket bound to that address is reached from here."""
    if address == "::":
        # It takes IPv4 as well, and a machine without IPv6 has no other.
        return "127.0.0.1"
    return "127.0.0.1" if ipaddress.ip_address(address).is_unspecified else address


def _answered(probes: Iterable[socket.socket], seconds: float) -> bool:
    """Wait for anything that comes back."""
    by_descriptor = {probe.fileno(): probe for probe in probes}
    if not by_descriptor:
        time.sleep(seconds)
        return False
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, _ANSWER)
    return any(
        # The kernel refuses by itself; who ends a connection that was there is alive.
        by_descriptor[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNRESET, errno.EPIPE)
        for descriptor, _ in poll.poll(seconds * 1000)
    )


def _taken(pid: int, probe: _Probe) -> bool:
    """Whether the core took a connection, or read a packet, as the kernel tells it."""
    listener = probe.listener
    if listener.kind == "unix":
        return False
    if listener.kind == "udp":
        queues = [int(fields[_QUEUES].partition(":")[2], 16) for fields in _sockets(pid, "udp", listener.port)]
        return bool(queues) and not any(queues)
    try:
        own_port = probe.socket.getsockname()[1]
    except OSError:
        return False
    return any(
        _port(fields[_REMOTE]) == own_port and fields[_INODE] != "0" for fields in _sockets(pid, "tcp", listener.port)
    )


def _sockets(pid: int, kind: str, port: int) -> Iterator[list[str]]:
    """Yield the lines of ``/proc/PID/net`` for sockets at a local port, as fields."""
    wanted = f":{port:04X} "
    for name in (kind, f"{kind}6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                if wanted in line and len(fields := line.split()) > _INODE and _port(fields[_LOCAL]) == port:
                    yield fields


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _is_stopped(pid: int) -> bool:
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return content.rpartition(b")")[2].split()[0].decode() in _STOPPED
