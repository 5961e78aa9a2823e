"""Keys and addresses of WireGuard, as panels write them and as the core wants them. Pure.

Panels write keys in base64, the core's messages hold them in hexadecimal. Of an address with a length only the bits within that
length count, so that two ways to write one network are equal here.

Besides its public key, the account of a WireGuard user holds a *detail*: one text, the pre-shared key (or nothing), a bar, and
the networks from which the user may come, with commas.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network, ip_network
from typing import Final

from pgnode.wire import varint
from pgnode.wire.texts import shown
from pgnode.xray.proto import wireguard_pb2

#: Bytes of a private, a public and a pre-shared key.
KEY_BYTES: Final = 32

_KEY_END: Final = "|"
_NETWORK_END: Final = ","
#: What a network begins with where it is a credential.
_CREDENTIAL: Final = "wireguard network "

#: One IPv4 address as it is usually written: nearly all are, and reading them otherwise takes ten times as long.
_ONE_IPV4 = re.compile(
    r"((?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3})(?:/32)?", re.A
)


def key_hex(text: str) -> str | None:
    """Return a key in hexadecimal.

    Args:
        text: The key in base64; its padding may be missing.

    Returns:
        The key; None where this is not base64 of 32 bytes.
    """
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key.hex() if len(key) == KEY_BYTES else None


def core_key_hex(text: str) -> str | None:
    """Do the same for a key in a config of the core, which may also be in URL-safe base64 or in hexadecimal."""
    if len(text) == 2 * KEY_BYTES:
        try:
            return bytes.fromhex(text).hex()
        except ValueError:
            return None
    return key_hex(text.replace("-", "+").replace("_", "/"))


def public_key_of(private_key: str) -> str:
    """Return the public key of a private one, both in hexadecimal."""
    # Only where a config has such keys: the library takes 7 MB.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(private_key)).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


@functools.lru_cache(maxsize=8192)
def network(text: str) -> str | None:
    """Return the network that an address, alone or with a length, stands for.

    Args:
        text: Such as "10.0.0.2", "10.0.0.2/32" or "fd00::2/128".

    Returns:
        The network as the core writes it, without bits beyond its length; None where this is none. IPv4 within IPv6 is none:
        the core would never find a packet from there.
    """
    plain = _ONE_IPV4.fullmatch(text)
    if plain is not None:
        return f"{plain[1]}/32"
    address, slash, length = text.partition("/")
    if ":" in text and (length == "128" or not slash):
        # Nearly all others; read as a network they take three times as long.
        return _one_ipv6(address)
    if "%" in text or ("/" in text and not text.rpartition("/")[2].isdecimal()):
        return None
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped is not None:
        return None
    return str(found)


def _one_ipv6(text: str) -> str | None:
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    return None if address.scope_id is not None or address.ipv4_mapped is not None else f"{address}/128"


def user_key(text: str, own_key: str) -> str:
    """Read the public key of a user.

    Args:
        text: The key in base64.
        own_key: The inbound's public key, in hexadecimal.

    Returns:
        The key in hexadecimal.

    Raises:
        ValueError: It cannot be a user's; the text names the field, and not the key.
    """
    if not text:
        raise ValueError("public_key is empty")
    key = key_hex(text)
    if key is None:
        raise ValueError("public_key is not 32 bytes in base64")
    if key == own_key:
        raise ValueError("public_key is that of the node itself")
    return key


def detail(pre_shared_key: str, addresses: Iterable[str]) -> str:
    """Make the detail of a user's account.

    Args:
        pre_shared_key: In hexadecimal, "" for none.
        addresses: Addresses and networks from which the user may come.

    Returns:
        The detail; each network stands in it once.

    Raises:
        ValueError: One of them is no address; the text names it.
    """
    networks: dict[str, None] = {}
    for address in addresses:
        found = network(address)
        if found is None:
            raise ValueError(f"peer_ips: {shown(address)} is no address or network")
        networks[found] = None
    return f"{pre_shared_key}{_KEY_END}{_NETWORK_END.join(networks)}"


def without_key(text: str) -> str:
    """Return a detail for people: without the pre-shared key."""
    return text.rpartition(_KEY_END)[2]


def fields(text: str) -> bytes:
    """Encode a detail as what follows on the public key in the message of a peer."""
    key, _, networks = text.rpartition(_KEY_END)
    parts = [varint.field(2, key.encode())] if key else []
    parts += [varint.field(5, item.encode()) for item in networks.split(_NETWORK_END)]
    return b"".join(parts)


def json_fields(text: str) -> str:
    """Write a detail as what follows on the public key among the peers of a config, a comma first."""
    key, _, networks = text.rpartition(_KEY_END)
    listed = networks.replace(_NETWORK_END, '","')
    pre_shared = f',"preSharedKey":"{key}"' if key else ""
    return f'{pre_shared},"allowedIPs":["{listed}"]'


def network_credentials(text: str) -> list[str]:
    """Return a detail's networks as credentials."""
    return [_CREDENTIAL + item for item in without_key(text).split(_NETWORK_END)]


def listed_credentials(message: bytes) -> list[str]:
    """Return the same of a peer as the core lists it."""
    allowed = wireguard_pb2.PeerConfig.FromString(message).allowed_ips
    return [_CREDENTIAL + (network(item) or item) for item in allowed]


def network_of(credential: str) -> str:
    """Return the network that a credential stands for."""
    return credential.removeprefix(_CREDENTIAL)
