"""Names and addresses under which a socket of this host is reached, as the file of hosts and the interfaces tell."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import psutil

_HOSTS: Final = Path("/etc/hosts")

#: More than any file of hosts that somebody wrote by hand.
_HOSTS_BYTES: Final = 1 << 20


def own_names(listening: str, hosts: Path = _HOSTS) -> frozenset[str]:
    """Return the names and addresses, beside those of loopback, that lead to a socket of this host. Reads files.

    Args:
        listening: The address that the socket listens on.
        hosts: The file of hosts. One that cannot be read names nothing.

    Returns:
        In small letters. The names of the file of hosts that stand for loopback are among them.
    """
    try:
        with hosts.open("rb") as file:
            text = file.read(_HOSTS_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    try:
        interfaces = [found.address for of_one in psutil.net_if_addrs().values() for found in of_one]
    except (OSError, psutil.Error):
        interfaces = []
    return names_among(text, listening, interfaces)


def names_among(hosts: str, listening: str, interfaces: Iterable[str]) -> frozenset[str]:
    """Return the names and addresses that lead to a socket. Pure.

    Args:
        hosts: The text of the file of hosts.
        listening: The address that the socket listens on; one that stands for all is reached at every interface.
        interfaces: The addresses of the interfaces; what is no IP address is left out.

    Returns:
        In small letters.
    """
    listens = _address(listening)
    reached = {found for found in map(_address, interfaces) if found} if listens and listens.is_unspecified else set()
    if listens and not listens.is_unspecified:
        reached.add(listens)
    names = {
        name.rstrip(".").lower()
        for address, name in _entries(hosts)
        if address.is_loopback or address.is_unspecified or address in reached
    }
    return frozenset(names | {str(address) for address in reached})


_IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def _entries(hosts: str) -> Iterator[tuple[_IP, str]]:
    for line in hosts.splitlines():
        first, *names = line.partition("#")[0].split() or [""]
        address = _address(first)
        if address is not None:
            for name in names:
                yield address, name


def _address(text: str) -> _IP | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
