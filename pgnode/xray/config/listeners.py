"""What a config binds: one socket for each inbound and port, and that of the metrics. Pure.

The core binds with SO_REUSEPORT, so two inbounds on one address and port share connections at random, without a word. What is
legal: one port at different addresses, and TCP beside UDP. "0.0.0.0" and "::" are one address: Go takes either for all of them.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pgnode.xray.config.inbounds import InboundSpec, short

#: Claims that are looked at; a range such as 1-65535 is left to the core beyond that (one try takes about 10 µs).
MAX_CLAIMS: Final = 8192

_LARGEST_PORT: Final = 65535

#: All addresses of the machine, as the core binds them.
_ALL_ADDRESSES: Final = "::"
_WILDCARDS: Final = frozenset({"0.0.0.0", _ALL_ADDRESSES})

#: The core makes a file of that name beside a unix socket, to lock it.
LOCK_SUFFIX: Final = ".lock"

_FILE_MODE: Final = re.compile(r"[0-7]{1,4}")


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket of an inbound, or its device. ``kind`` is "tcp", "udp", "unix" or "tun"; a port is there for the first two."""

    kind: str
    address: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix socket {short(self.address)[1:-1]}"
        if self.kind == "tun":
            return f"network device {short(self.address)}" if self.address else "a network device"
        return f"port {self.port} on {self.address} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Claim:
    """A part of the config that binds a socket. ``owner`` names the part as an operator would."""

    owner: str
    listener: Listener


def listeners(inbound: InboundSpec) -> Iterator[Listener]:
    """Yield the sockets that ``inbound`` opens, ranges expanded; none for one whose address only the core understands."""
    if inbound.device is not None:
        yield Listener("tun", inbound.device)
        return
    if inbound.is_unix:
        # A file's mode may follow the path: "/run/x.sock,0666".
        yield Listener("unix", inbound.listen.partition(",")[0] if inbound.listen.startswith("/") else inbound.listen)
        return
    address = plain_address(inbound.listen)
    if address is None:
        return
    for first, last in inbound.ports:
        for port in range(first, last + 1):
            for kind in sorted(inbound.kinds):
                yield Listener(kind, address, port)


def plain_address(listen: str) -> str | None:
    """Write the address of a ``listen`` as the kernel has it, "" as 0.0.0.0; None where it is no address."""
    named = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(listen, listen).strip("[]")
    try:
        address = ipaddress.ip_address(named)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(address if mapped is None else mapped)


def claims_of(inbounds: Iterable[InboundSpec], metrics: object = None) -> list[Claim]:
    """List what a config binds, :data:`MAX_CLAIMS` of it at most.

    Args:
        inbounds: Its inbounds.
        metrics: Its ``metrics`` section.

    Returns:
        The claims; that of the metrics is the first one.
    """
    listener = metrics_listener(metrics)
    found = [Claim("metrics", listener)] if listener is not None else []
    every = (Claim(inbound.title, listener) for inbound in inbounds for listener in listeners(inbound))
    return found + list(itertools.islice(every, MAX_CLAIMS))


def unix_fault(listen: str) -> str | None:
    """Say why the core cannot listen at this path or abstract name, or None. The core ends over it without a word."""
    shown = f"listen {short(listen)}"
    if not listen.startswith("/"):
        return None if listen.strip("@") else f"{shown} has no name behind the @"
    path, comma, mode = listen.partition(",")
    if comma and _FILE_MODE.fullmatch(mode) is None:
        return f"{shown}: behind the comma stands the file's mode, such as 0666, and {short(mode)} is none"
    return f"{shown} is a folder: give the path of a file in it" if path.endswith("/") else None


def conflict(
    inbounds: Iterable[InboundSpec], metrics: object = None, resolve: Callable[[str], str] = os.path.realpath
) -> str | None:
    """Say which two parts of a config claim one socket. Ranges of ports are compared as they are.

    Args:
        inbounds: The config's inbounds.
        metrics: Its ``metrics`` section.
        resolve: Follows links in a path.

    Returns:
        A sentence, or None.
    """
    found = list(inbounds)
    return _beside_metrics(found, metrics_listener(metrics)) or _between(found, resolve)


def _beside_metrics(inbounds: Iterable[InboundSpec], metrics: Listener | None) -> str | None:
    """Say which inbound is in the way of the metrics: these share no port, not even one at another of their addresses."""
    if metrics is None:
        return None
    for inbound in inbounds:
        address = plain_address(inbound.listen)
        if "tcp" not in inbound.kinds or address is None or not _overlap(address, metrics.address):
            continue
        if any(first <= metrics.port <= last for first, last in inbound.ports):
            return (
                f"{inbound.title}: {Listener('tcp', address, metrics.port)} is that of metrics, too: change one of them"
            )
    return None


def _between(inbounds: Iterable[InboundSpec], resolve: Callable[[str], str]) -> str | None:
    ranges: dict[tuple[str, str], list[tuple[int, int, int, str]]] = {}
    for number, inbound in enumerate(inbounds):
        if inbound.device == "":
            # The core chooses a name that nobody has.
            continue
        if inbound.is_unix or inbound.device is not None:
            [listener] = listeners(inbound)
            name = resolve(listener.address) if listener.address.startswith("/") else listener.address
            taken = [name, name + LOCK_SUFFIX] if listener.address.startswith("/") else [name]
            for held in taken:
                ranges.setdefault((listener.kind, held), []).append((0, 0, number, inbound.title))
            continue
        address = plain_address(inbound.listen)
        for kind in inbound.kinds if address is not None else ():
            at = ranges.setdefault((kind, _place(address or "")), [])
            at.extend((first, last, number, inbound.title) for first, last in inbound.ports)
    for (kind, address), claimed in ranges.items():
        if not claimed:
            continue
        claimed.sort(key=lambda item: item[:3])
        widest = claimed[0]
        for item in claimed[1:]:
            if item[0] <= widest[1] and item[2] != widest[2]:
                one, other = sorted((widest, item), key=lambda claim: claim[2])
                where = (
                    f"port {item[0]} on all addresses ({kind})"
                    if address == _ALL_ADDRESSES
                    else str(Listener(kind, address, item[0]))
                )
                return f"{other[3]}: {where} is that of {one[3]}, too: change one of them"
            widest = max(widest, item, key=lambda claim: claim[1])
    return None


def _overlap(one: str, other: str) -> bool:
    places = {_place(one), _place(other)}
    return len(places) == 1 or _ALL_ADDRESSES in places


def _place(address: str) -> str:
    """Return where the core binds for an address."""
    return _ALL_ADDRESSES if address in _WILDCARDS else address


def metrics_listener(metrics: object) -> Listener | None:
    """Return the socket of a ``metrics`` section; None where it has none, or one that only the core understands."""
    listen = metrics.get("listen") if isinstance(metrics, dict) else None
    if not isinstance(listen, str) or not listen:
        return None
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _LARGEST_PORT:
        return None
    # Without an address Go takes all of them, IPv6 included.
    address = plain_address(host) if host else "::"
    return Listener("tcp", address, int(port)) if address is not None else None


def metrics_fault(metrics: Any) -> str | None:
    """Say what is wrong with where a ``metrics`` section listens, or None: the core ends when it starts, without a word."""
    listen = metrics.get("listen") if isinstance(metrics, dict) else None
    if listen is None or listen == "":
        return None
    if not isinstance(listen, str):
        return "metrics: listen must be a string such as 127.0.0.1:11111"
    port = listen.rpartition(":")[2]
    if metrics_listener(metrics) is None or "/" in listen or not port.isdigit():
        return f"metrics: listen {short(listen)} is no IP address with a port, such as 127.0.0.1:11111"
    return None
