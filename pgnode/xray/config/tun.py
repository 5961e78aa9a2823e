"""``tun`` inbounds: what is wrong with their settings, which no core is shown before it has to start with them. Pure.

A core that sets up a network device acts on the machine, so none is tried beside the one that runs. What it takes, and what it
ends over, was measured with Xray 26.10.10.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from pgnode.xray.config.inbounds import json_type, short

#: Bytes of the name of a network device, at most.
_NAME_BYTES: Final = 15
#: What the kernel takes; 0 is the core's own choice.
_MTU: Final = range(68, 65536)
#: IPv6 needs so much (RFC 8200).
_MTU_IPV6_MIN: Final = 1280
_UINT32_MAX: Final = 2**32 - 1

_TEXT, _NUMBER, _TEXTS = "a string", "a whole number from 0 to 4294967295", "a list of strings"

#: Type of each field, in small letters: the core takes them in any case.
_FIELDS: Final = {
    "name": ("name", _TEXT),
    "desc": ("desc", _TEXT),
    "mtu": ("mtu", _NUMBER),
    "gateway": ("gateway", _TEXTS),
    "dns": ("dns", _TEXTS),
    "userlevel": ("userLevel", _NUMBER),
    "autosystemroutingtable": ("autoSystemRoutingTable", _TEXTS),
    "autooutboundsinterface": ("autoOutboundsInterface", _TEXT),
}


def tun_fault(settings: object) -> str | None:
    """Say what is wrong with the settings of a ``tun`` inbound.

    Args:
        settings: As the config has them.

    Returns:
        A fault that begins with the field, or None.
    """
    if settings is None:
        return None
    if not isinstance(settings, dict):
        return f"settings must be an object, not {json_type(settings)}"
    given = {key.lower(): value for key, value in settings.items() if value is not None}
    for key, (field, kind) in _FIELDS.items():
        if key in given and not _is(given[key], kind):
            return f"settings.{field} must be {kind}, not {short(given[key])}"
    return (
        _name_fault(given.get("name", ""))
        or _mtu_fault(given)
        or _networks_fault("gateway", given.get("gateway", ()), strict=False)
        or _networks_fault("autoSystemRoutingTable", given.get("autosystemroutingtable", ()), strict=True)
    )


def _is(value: object, kind: str) -> bool:
    match kind:
        case "a string":
            return isinstance(value, str)
        case "a list of strings":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _UINT32_MAX


def _name_fault(name: str) -> str | None:
    if len(name.encode(errors="replace")) > _NAME_BYTES:
        return f"the name {short(name)} is too long: a network device has at most {_NAME_BYTES} bytes"
    # The kernel would put a number in place of a "%d".
    wrong = name in {".", ".."} or any(c in "/:%" or c.isspace() for c in name)
    return f"the name {short(name)} is none that a network device can have" if wrong else None


def _mtu_fault(given: Mapping[str, Any]) -> str | None:
    mtu = given.get("mtu", 0)
    if mtu == 0:
        return None
    if mtu not in _MTU:
        return f"settings.mtu {mtu} is not valid: a network device takes {_MTU.start} to {_MTU[-1]}"
    if mtu < _MTU_IPV6_MIN and any(":" in address for address in given.get("gateway", ())):
        return f"settings.mtu {mtu} is not valid: an IPv6 address in gateway needs {_MTU_IPV6_MIN} at least"
    return None


def _networks_fault(field: str, networks: list[str], *, strict: bool) -> str | None:
    """Return what is wrong with a list of networks. Where ``strict``, each stands for its whole network, and none comes twice."""
    seen = set()
    for text in networks:
        found = _network(text)
        # No device can have "::", but all addresses may be led to it.
        if found is None or (not strict and found.ip == ipaddress.IPv6Address(0)):
            example = "10.0.0.0/8" if strict else "10.0.0.1/24"
            return f"settings.{field} {short(text)} is no network such as {example}"
        entry = found.network if strict else found
        if entry in seen:
            return f"settings.{field} has {short(text)} twice"
        seen.add(entry)
    return None


def _network(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """Read an address with the length of its network as the core does; None for what it ends over."""
    address, _, length = text.partition("/")
    # No netmasks, no zones, and no IPv4 written as IPv6.
    if not length.isdigit() or "%" in address:
        return None
    try:
        found = ipaddress.ip_interface(text)
    except ValueError:
        return None
    return None if isinstance(found.ip, ipaddress.IPv6Address) and found.ip.ipv4_mapped is not None else found
