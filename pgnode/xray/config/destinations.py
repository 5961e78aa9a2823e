"""Destinations in a config that lead to a port where the node itself answers without a key: that of its metrics. Pure.

Its other ports ask for the key, and its unix sockets are looked for in :mod:`pgnode.xray.config.strings`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from pgnode.xray.config.inbounds import short
from pgnode.xray.config.strings import named

#: Fields, in small letters, that hold a whole destination: a port, "host:port" or an address of a page.
_WHOLE: Final = frozenset({"dest", "target", "redirect", "url"})

#: Fields that are a destination together.
_PAIRS: Final = (("address", "port"), ("rewriteaddress", "rewriteport"))

#: The field of a tunnel whose values are destinations, by the port at which it is asked.
_MAP: Final = "portmap"

#: Inbounds that lead to one destination, which is this machine where they name no address.
_TUNNELS: Final = frozenset({"tunnel", "dokodemo-door"})


def own_port_fault(
    document: dict[str, Any],
    port: int | None,
    numbers: Mapping[str, Sequence[int]],
    names: Collection[str] = frozenset(),
) -> str | None:
    """Say where a config leads to a port of the node's own, or None.

    Args:
        document: The config.
        port: The port; None where there is none.
        numbers: By list the place of each item in the panel's own.
        names: Names and addresses, in small letters, that lead to the port as those of loopback do.

    Returns:
        A sentence that begins with the place.
    """
    if port is None:
        return None
    for where, value in _destinations(document, names):
        if _leads_to(value, port, names):
            return f"{named(document, where, numbers)} {short(value)} {_IS}"
    return None


def _destinations(document: dict[str, Any], names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield what may lead to a port of this machine, with its place."""
    for place, part in _objects(document):
        fields = {key.lower(): key for key in part}
        for name in _WHOLE & fields.keys():
            yield f"{place}.{fields[name]}".lstrip("."), part[fields[name]]
        ports = part[fields[_MAP]] if _MAP in fields else None
        if isinstance(ports, dict):
            for key, value in ports.items():
                yield f"{place}.{fields[_MAP]}.{short(key)[1:-1]}".lstrip("."), value
        for address, number in _PAIRS:
            if number in fields and _names_here(part, fields.get(address), place, document, names):
                yield f"{place}.{fields[number]}".lstrip("."), part[fields[number]]


def _names_here(
    part: dict[str, Any], address: str | None, place: str, document: dict[str, Any], names: Collection[str]
) -> bool:
    """Whether the address beside a port is this machine's; in a tunnel one that is missing is."""
    host = part[address] if address is not None else None
    if host is not None and host != "":
        return isinstance(host, str) and _is_here(host, names)
    found = _TUNNEL_SETTINGS.fullmatch(place)
    inbounds = document.get("inbounds")
    inbound = inbounds[int(found[1])] if found is not None and isinstance(inbounds, list) else None
    return isinstance(inbound, dict) and str(inbound.get("protocol")).lower() in _TUNNELS


_TUNNEL_SETTINGS: Final = re.compile(r"inbounds\[(\d+)\]\.settings", re.I)

_IS: Final = "on this machine is METRICS_PORT of the node itself, which is not for users"


def _leads_to(value: object, port: int, names: Collection[str]) -> bool:
    if isinstance(value, int):
        return value == port
    if not isinstance(value, str):
        return False
    place = value.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
    host, _, number = place.rpartition(":")
    # The core takes "+9100", "09100" and " 9100" as well.
    digits = number.strip().removeprefix("+")
    return digits.isdecimal() and digits.lstrip("0") == str(port) and _is_here(host, names)


def _is_here(host: str, names: Collection[str]) -> bool:
    """Whether a host is this machine, as far as its name and the names that are known tell."""
    name = host.strip("[]").rstrip(".").lower()
    if name in {"", "localhost"} or name.endswith(".localhost") or name in names:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified or str(address) in names


def _objects(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of a config with its place."""
    stack: list[tuple[str, Any]] = [("", document)]
    while stack:
        place, value = stack.pop()
        if isinstance(value, dict):
            yield place, value
            stack.extend((f"{place}.{short(key)[1:-1]}".lstrip("."), item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend((f"{place}[{index}]", item) for index, item in reversed(list(enumerate(value))))
