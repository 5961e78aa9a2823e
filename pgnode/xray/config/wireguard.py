"""From what a panel sends for a core of type WIREGUARD to a config of the Xray core. Pure.

The panel names an interface: keys, port, addresses. It becomes one ``wireguard`` inbound, whose peers are the users, and one
outbound of the same name, by which the panel asks for statistics. Nothing else is in the config but what the operator's
``WG_EGRESS_…`` settings ask for.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pgnode.errors import StartFailedError
from pgnode.xray.config.document import load_document
from pgnode.xray.config.inbounds import json_type, short
from pgnode.xray.config.peers import key_hex, network, public_key_of

DEFAULT_INTERFACE: Final = "wg0"
DEFAULT_PORT: Final = 51820
#: What WireGuard's own tools choose on Ethernet, and what panels write into the configs of users.
DEFAULT_MTU: Final = 1420
#: IPv4 needs no less; more than this no network carries.
MTU_MIN: Final = 576
MTU_MAX: Final = 9000

DEFAULT_TEST_URL: Final = "https://www.gstatic.com/generate_204"
DEFAULT_TIMEOUT_SECONDS: Final = 5
TIMEOUT_MAX_SECONDS: Final = 60
#: Seconds between two probes of the latency.
PROBE_SECONDS: Final = 30

#: The first release of the core whose WireGuard inbounds take users while they run; earlier ones know no users there at all.
FIRST_CORE: Final = (26, 6, 27)

#: Tag of the outbound that answers questions to the interface's own addresses; an interface cannot have it.
DNS_TAG: Final = "PG_NODE_WG_DNS"

#: What panels take for the name of an interface.
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Egress:
    """What the operator wants for the traffic of WireGuard users."""

    #: An outbound of the core in place of a plain ``freedom``; its tag is the interface's in any case.
    outbound: Mapping[str, Any] = field(default_factory=lambda: {"protocol": "freedom"})
    #: Servers that answer what is asked at port 53 of the interface's own addresses; empty: nobody does.
    dns: tuple[str, ...] = ()
    #: Whether the core finds out by the first bytes of a connection which name it is for.
    sniffing: bool = False


#: A plain way out.
PLAIN: Final = Egress()


def takes_peers(version: str) -> bool:
    """Whether a core that calls itself ``version`` ("26.10.10") keeps users in WireGuard inbounds."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return numbers is None or tuple(map(int, numbers.groups())) >= FIRST_CORE


def is_interface(text: str) -> bool:
    """Whether a config is that of a WireGuard interface, and not the core's own: it has a private key, and no inbounds."""
    try:
        document = load_document(text)
    except StartFailedError:
        return False
    return "private_key" in document and "inbounds" not in document


def xray_config(text: str, egress: Egress = PLAIN) -> str:
    """Make a config of the core, without users.

    Args:
        text: ``Backend.config`` of a start with the type WIREGUARD. Keys that are not known are left alone.
        egress: What the operator wants.

    Returns:
        The config, as JSON.

    Raises:
        StartFailedError: A value cannot be used; the text names it, and no secret.
    """
    panel = load_document(text)
    name = _interface(panel.get("interface_name"))
    private_key = _key(panel, "private_key")
    if private_key is None:
        raise StartFailedError("private_key is missing: the interface needs one")
    addresses = _addresses(panel.get("address"))
    settings: dict[str, Any] = {
        "secretKey": private_key,
        "address": addresses,
        "mtu": _number(panel, "mtu", DEFAULT_MTU, MTU_MIN, MTU_MAX),
        "peers": [],
    }
    pre_shared_key = _key(panel, "pre_shared_key")
    if pre_shared_key is not None:
        # Not the core's: the node gives it to each peer.
        settings["preSharedKey"] = pre_shared_key
    _check_public_key(panel, private_key)
    inbound: dict[str, Any] = {
        "tag": name,
        "protocol": "wireguard",
        "port": _number(panel, "listen_port", DEFAULT_PORT, 1, 65535),
        "settings": settings,
    }
    listen = _listen(panel.get("listen"))
    if listen:
        inbound["listen"] = listen
    if egress.sniffing:
        inbound["sniffing"] = {"enabled": True, "destOverride": ["http", "tls", "quic"]}
    document: dict[str, Any] = {
        # With a line for each connection, as where a config says nothing of it.
        "log": {"loglevel": "warning"},
        "inbounds": [inbound],
        "outbounds": [{**egress.outbound, "tag": name}],
    }
    if egress.dns:
        _add_dns(document, name, addresses, egress.dns)
    latency = _latency(panel.get("latency"))
    if latency is not None:
        document["burstObservatory"] = {"subjectSelector": [name], "pingConfig": latency}
    return json.dumps(document)


def outbound_of(text: str) -> dict[str, Any]:
    """Read an operator's outbound.

    Args:
        text: One outbound of the core, as a JSON object.

    Returns:
        The outbound.

    Raises:
        StartFailedError: It is none.
    """
    outbound = load_document(text)
    protocol = outbound.get("protocol")
    if not isinstance(protocol, str) or not protocol:
        raise StartFailedError('protocol is missing: an outbound is an object such as {"protocol": "freedom"}')
    return outbound


def _interface(value: object) -> str:
    if value is None or value == "":
        return DEFAULT_INTERFACE
    if not isinstance(value, str):
        raise StartFailedError(f"interface_name must be a string, not {json_type(value)}")
    if not _INTERFACE.fullmatch(value) or value == DNS_TAG:
        raise StartFailedError(
            f"interface_name {short(value)} is not valid: letters, digits and _.- are, with a letter or digit first"
        )
    return value


def _key(panel: Mapping[str, Any], name: str) -> str | None:
    value = panel.get(name)
    if value is None or value == "":
        return None
    key = key_hex(value) if isinstance(value, str) else None
    if key is None:
        raise StartFailedError(f"{name} is not a WireGuard key: it must be 32 bytes in base64")
    return key


def _check_public_key(panel: Mapping[str, Any], private_key: str) -> None:
    """Refuse a public key that is not that of the private one: no user who was given it could connect."""
    public_key = _key(panel, "public_key")
    if public_key is not None and public_key != public_key_of(private_key):
        raise StartFailedError("public_key is not that of private_key: users who have it could not connect")


def _number(panel: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = panel.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise StartFailedError(f"{name} {short(value)} is not valid: it must be a number from {least} to {most}")
    return value


def _addresses(value: object) -> list[str]:
    if value is None or value == []:
        raise StartFailedError("address is missing: the interface needs at least one network, such as 10.0.0.1/24")
    if not isinstance(value, list):
        raise StartFailedError(f"address must be a list, not {json_type(value)}")
    for number, item in enumerate(value):
        if not isinstance(item, str) or network(item) is None:
            raise StartFailedError(f"address[{number}] {short(item)} is no address or network, such as 10.0.0.1/24")
    return list(value)


def _listen(value: object) -> str:
    if value is None or value == "":
        return ""
    try:
        return str(ipaddress.ip_address(value)) if isinstance(value, str) else _no_address(value)
    except ValueError:
        return _no_address(value)


def _no_address(value: object) -> str:
    raise StartFailedError(f"listen {short(value)} is no address, such as 0.0.0.0 or ::")


def _latency(value: object) -> dict[str, Any] | None:
    """Return how the outbound is probed; None where the panel did not ask for it."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise StartFailedError(f"latency must be an object, not {json_type(value)}")
    url = value.get("test_url")
    if url is None or url == "":
        url = DEFAULT_TEST_URL
    if not isinstance(url, str) or not re.fullmatch(r"https?://[^\s/?#]+\S*", url):
        raise StartFailedError(f"latency.test_url {short(url)} is not valid: it must begin with http:// or https://")
    seconds = value.get("timeout_seconds")
    if seconds is None:
        seconds = DEFAULT_TIMEOUT_SECONDS
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= TIMEOUT_MAX_SECONDS:
        raise StartFailedError(
            f"latency.timeout_seconds {short(seconds)} is not valid: it must be a number up to {TIMEOUT_MAX_SECONDS}"
        )
    # One probe at a time: the answer is the last one, not an average of minutes.
    return {
        "destination": url,
        "interval": f"{PROBE_SECONDS}s",
        "sampling": 1,
        "timeout": f"{max(round(seconds * 1000), 1)}ms",
    }


def _add_dns(document: dict[str, Any], name: str, addresses: list[str], servers: tuple[str, ...]) -> None:
    """Have the core answer what users ask at port 53 of the interface's own addresses."""
    own = [f"{address}/{address.max_prefixlen}" for address in map(_own_address, addresses)]
    document["dns"] = {"servers": list(servers)}
    document["outbounds"].append({"tag": DNS_TAG, "protocol": "dns"})
    rule = {"type": "field", "inboundTag": [name], "ip": own, "port": "53", "outboundTag": DNS_TAG}
    document["routing"] = {"rules": [rule]}


def _own_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_interface(text).ip
