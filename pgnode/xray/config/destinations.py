"""Destinations in a config that lead to a port where the node itself answers without a key: that of its metrics. Pure.

Its other ports ask for the key, and its unix sockets are looked for in :mod:`pgnode.xray.config.strings`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pgnode.xray.config.inbounds import short
from pgnode.xray.config.strings import named

#: Fields, in small letters, that hold a whole destination: a port, "host:port" or an address of a page.
_WHOLE: Final = frozenset({"dest", "target", "redirect", "url"})

#: Fields that are a destination together.
_PAIRS: Final = (("address", "port"), ("rewriteaddress", "rewriteport"))


def own_port_fault(document: dict[str, Any], port: int | None, numbers: Mapping[str, Sequence[int]]) -> str | None:
    """Say where a config leads to a port of the node's own, or None.

    Args:
        document: The config.
        port: The port; None where there is none.
        numbers: By list the place of each item in the panel's own.

    Returns:
        A sentence that begins with the place.
    """
    if port is None:
        return None
    for place, part in _objects(document):
        fields = {key.lower(): key for key in part}
        for name in _WHOLE & fields.keys():
            if _leads_to(part[fields[name]], port):
                where = f"{place}.{fields[name]}".lstrip(".")
                return f"{named(document, where, numbers)} {short(part[fields[name]])} {_IS}"
        for address, number in _PAIRS:
            if address in fields and number in fields:
                host, value = part[fields[address]], part[fields[number]]
                if isinstance(host, str) and _is_here(host) and _leads_to(value, port):
                    where = f"{place}.{fields[number]}".lstrip(".")
                    return f"{named(document, where, numbers)} {short(value)} {_IS}"
    return None


_IS: Final = "on this machine is METRICS_PORT of the node itself, which is not for users"


def _leads_to(value: object, port: int) -> bool:
    if isinstance(value, int):
        return value == port
    if not isinstance(value, str):
        return False
    place = value.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
    host, _, number = place.rpartition(":")
    # The core takes "+9100", "09100" and " 9100" as well.
    digits = number.strip().removeprefix("+")
    return digits.isdecimal() and digits.lstrip("0") == str(port) and _is_here(host)


def _is_here(host: str) -> bool:
    """Whether a host is this machine, as far as its name tells."""
    name = host.strip("[]").rstrip(".").lower()
    if name in {"", "localhost"} or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


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
