"""What a config binds: one socket for each inbound and port, and that of the metrics. Pure.

The core binds with SO_REUSEPORT, so two inbounds on one address and port share connections at random, without a word. What is
legal: one port at different addresses, and TCP beside UDP.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pgnode.xray.config.inbounds import InboundSpec, short

#: Claims that are looked at; a range such as 1-65535 is left to the core beyond that (one try takes about 10 µs).
MAX_CLAIMS: Final = 8192

_LARGEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket of an inbound. ``kind`` is "tcp", "udp" or "unix"; ``port`` is 0 for "unix", else 1 to 65535."""

    kind: str
    address: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix socket {short(self.address)[1:-1]}"
        return f"port {self.port} on {self.address} ({self.kind})"


@dataclass(frozen=True, slots=True)
class Claim:
    """A part of the config that binds a socket. ``owner`` names the part as an operator would."""

    owner: str
    listener: Listener


def listeners(inbound: InboundSpec) -> Iterator[Listener]:
    """Yield the sockets that ``inbound`` opens, ranges expanded; none for one whose address only the core understands."""
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
    """Write the address of a ``listen`` as the kernel has it, "" as all of IPv4; None where it is no address."""
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


def conflict(inbounds: Iterable[InboundSpec], metrics: object = None) -> str | None:
    """Say which two parts of a config claim one socket, or None. Ranges of ports are compared as they are."""
    ranges: dict[tuple[str, str], list[tuple[int, int, int, str]]] = {}
    at_metrics = metrics_listener(metrics)
    if at_metrics is not None:
        ranges["tcp", at_metrics.address] = [(at_metrics.port, at_metrics.port, -1, "metrics")]
    for number, inbound in enumerate(inbounds):
        if inbound.is_unix:
            [listener] = listeners(inbound)
            ranges.setdefault(("unix", listener.address), []).append((0, 0, number, inbound.title))
            continue
        address = plain_address(inbound.listen)
        for kind in inbound.kinds if address is not None else ():
            at = ranges.setdefault((kind, address or ""), [])
            at.extend((first, last, number, inbound.title) for first, last in inbound.ports)
    for (kind, address), claimed in ranges.items():
        if not claimed:
            continue
        claimed.sort(key=lambda item: item[:3])
        widest = claimed[0]
        for item in claimed[1:]:
            if item[0] <= widest[1] and item[2] != widest[2]:
                one, other = sorted((widest, item), key=lambda claim: claim[2])
                listener = Listener(kind, address, item[0])
                return f"{other[3]}: {listener} is that of {one[3]}, too: change one of them"
            widest = max(widest, item, key=lambda claim: claim[1])
    return None


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
    if ":" not in listen or "/" in listen or not port or (port.isdigit() and not 0 < int(port) <= _LARGEST_PORT):
        return f"metrics: listen {short(listen)} is no address with a port, such as 127.0.0.1:11111"
    return None
