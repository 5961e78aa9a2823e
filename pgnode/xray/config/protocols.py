"""The protocols and transports of the core, one row each: everything the node has to know of them. Pure.

Whoever needs to know something about a protocol asks here, so that a new one is a new row (and, where it has users, a maker of
accounts in :mod:`pgnode.xray.config.accounts`). Names and aliases are those of Xray 26.10.10 (xray-core ``infra/conf/xray.go``
and ``transport_internet.go``); what is said about running cores was measured.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message

from pgnode.xray.proto import (
    hysteria_pb2,
    shadowsocks_2022_pb2,
    shadowsocks_pb2,
    trojan_pb2,
    vless_inbound_pb2,
    vmess_inbound_pb2,
    wireguard_pb2,
)


class Credential(enum.Enum):
    """What a user of a protocol is known by."""

    UUID = "a UUID"
    PASSWORD = "any text"  # noqa: S105 - no password
    KEY = "random bytes of a fixed length, in base64"
    PUBLIC_KEY = "32 bytes, in hexadecimal"


class Detail(enum.Enum):
    """How the second field of an account, next to the credential, is encoded."""

    NONE = "there is none"
    TEXT = "as text"
    CIPHER = "as a number of xray.proxy.shadowsocks.CipherType"
    PEER = "a pre-shared key as text, which may be missing, and the addresses"


class Sockets(enum.Enum):
    """Which sockets an inbound opens on each of its ports."""

    TRANSPORT = "that of its transport"
    BY_NETWORK = "TCP, UDP or both, as settings.network says; TCP is that of its transport"
    WITH_UDP = "that of its transport, and UDP where settings.udp says so"
    UDP = "UDP"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class UserList:
    """Where an inbound keeps its users, in its settings as the core encodes them."""

    message: type[Message]
    field: str

    @property
    def type_name(self) -> str:
        """Full name of the settings' message."""
        return self.message.DESCRIPTOR.full_name

    @property
    def number(self) -> int:
        """Number of the field."""
        return self.message.DESCRIPTOR.fields_by_name[self.field].number


@dataclass(frozen=True, slots=True)
class AccountKind:
    """How an account is written. The credential is field 1 of every account's message, the detail follows."""

    #: ``Account.protocol``.
    name: str
    credential: Credential
    #: Full name of the account's message.
    type_name: str
    users: UserList
    #: Names of the credential and of the detail among the ``clients`` of a config. The inbound's settings may hold a field
    #: of the detail's name, too.
    credential_key: str
    detail_key: str = ""
    detail: Detail = Detail.NONE
    #: Name of the list of users in the settings of an inbound.
    list_key: str = "clients"
    #: An addition with a credential that is known replaces the user who has it, and connections go on.
    replaced_in_place: bool = False
    #: The core looks users up by their credential: of two with one the later one gets in, and a removal of either takes it
    #: (Hysteria: the earlier user itself is gone). Shadowsocks tries one user after the other (measured).
    by_credential: bool = True
    #: Where the text of a UUID has what the core drops before it looks a user up: ids that differ only there are one id to it.
    ignored_id_text: tuple[int, int] | None = None
    #: The core lists accounts as they were given. To a VMess one it adds the cipher it would choose as a client.
    listed_as_given: bool = True
    #: Connections go on while their inbound is away. Those of Hysteria do not: its one UDP socket carries all of them, and
    #: clients notice only after some 30 s that it is another one (measured).
    outlives_listener: bool = True


#: ``Account.protocol`` of an account in a Shadowsocks-2022 inbound; all others are named as their protocol.
SHADOWSOCKS_2022: Final = "shadowsocks-2022"
WIREGUARD: Final = "wireguard"

ACCOUNT_KINDS: Final = {
    kind.name: kind
    for kind in (
        AccountKind(
            "vless",
            Credential.UUID,
            "xray.proxy.vless.Account",
            UserList(vless_inbound_pb2.Config, "users"),
            credential_key="id",
            detail_key="flow",
            detail=Detail.TEXT,
            # Bytes 7 and 8, measured.
            ignored_id_text=(14, 18),
        ),
        AccountKind(
            "vmess",
            Credential.UUID,
            "xray.proxy.vmess.Account",
            UserList(vmess_inbound_pb2.Config, "user"),
            credential_key="id",
            listed_as_given=False,
        ),
        AccountKind(
            "trojan",
            Credential.PASSWORD,
            "xray.proxy.trojan.Account",
            UserList(trojan_pb2.ServerConfig, "users"),
            credential_key="password",
        ),
        AccountKind(
            "shadowsocks",
            Credential.PASSWORD,
            "xray.proxy.shadowsocks.Account",
            UserList(shadowsocks_pb2.ServerConfig, "users"),
            credential_key="password",
            detail_key="method",
            detail=Detail.CIPHER,
            by_credential=False,
        ),
        AccountKind(
            SHADOWSOCKS_2022,
            Credential.KEY,
            "xray.proxy.shadowsocks_2022.Account",
            UserList(shadowsocks_2022_pb2.MultiUserServerConfig, "users"),
            credential_key="password",
        ),
        AccountKind(
            "hysteria",
            Credential.PASSWORD,
            "xray.proxy.hysteria.account.Account",
            UserList(hysteria_pb2.ServerConfig, "users"),
            credential_key="auth",
            outlives_listener=False,
        ),
        AccountKind(
            WIREGUARD,
            Credential.PUBLIC_KEY,
            "xray.proxy.wireguard.PeerConfig",
            UserList(wireguard_pb2.DeviceConfig, "users"),
            credential_key="publicKey",
            detail_key="allowedIPs",
            detail=Detail.PEER,
            list_key="peers",
            replaced_in_place=True,
            outlives_listener=False,
        ),
    )
}

#: Kinds of accounts by the type name of the inbound's settings.
KINDS_BY_SETTINGS: Final = {kind.users.type_name: kind for kind in ACCOUNT_KINDS.values()}

#: Settings of a Shadowsocks-2022 inbound that was configured without users: it is for a single user, and has no list.
SINGLE_USER_SETTINGS: Final = shadowsocks_2022_pb2.ServerConfig.DESCRIPTOR.full_name


def can_be_swapped(settings_type: str) -> bool:
    """Whether connections through an inbound with settings of this type go on while it is away."""
    kind = KINDS_BY_SETTINGS.get(settings_type)
    return kind is None or kind.outlives_listener


@dataclass(frozen=True, slots=True)
class InboundProtocol:
    """What the node has to know of inbounds of one protocol."""

    sockets: Sockets = Sockets.TRANSPORT
    #: How its users are written, where it has users that the node owns.
    users: AccountKind | None = None
    #: It is no more than a listener and a protocol behind it, so a running core can add and remove it. "tun" sets up a
    #: device, "wireguard" a network.
    hot: bool = True
    #: The least settings with which the core takes it.
    least_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboundProtocol:
    """What the node has to know of outbounds of one protocol."""

    #: It does nothing before it is dialled through, so a running core can add and remove it.
    hot: bool = True
    #: It leads to where a probe could come back from.
    observable: bool = True
    #: It drops whatever is sent through it.
    drops: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol, by its name in a config."""

    name: str
    inbound: InboundProtocol | None = None
    outbound: OutboundProtocol | None = None


_BLACKHOLE = OutboundProtocol(observable=False, drops=True)
_TUNNEL = InboundProtocol(Sockets.BY_NETWORK)
_SOCKS = InboundProtocol(Sockets.WITH_UDP)

_PROTOCOLS: Final = (
    Protocol(
        "vless",
        InboundProtocol(users=ACCOUNT_KINDS["vless"], least_settings={"decryption": "none"}),
        OutboundProtocol(),
    ),
    Protocol("vmess", InboundProtocol(users=ACCOUNT_KINDS["vmess"]), OutboundProtocol()),
    Protocol("trojan", InboundProtocol(users=ACCOUNT_KINDS["trojan"]), OutboundProtocol()),
    Protocol(
        "shadowsocks",
        InboundProtocol(Sockets.BY_NETWORK, users=ACCOUNT_KINDS["shadowsocks"], least_settings={"clients": []}),
        OutboundProtocol(),
    ),
    Protocol(
        "hysteria",
        InboundProtocol(users=ACCOUNT_KINDS["hysteria"], least_settings={"version": 2}),
        OutboundProtocol(hot=False),
    ),
    Protocol("dokodemo-door", _TUNNEL),
    Protocol("tunnel", _TUNNEL),
    Protocol("socks", _SOCKS, OutboundProtocol()),
    Protocol("mixed", _SOCKS),
    Protocol("http", InboundProtocol(), OutboundProtocol()),
    Protocol(
        WIREGUARD,
        InboundProtocol(Sockets.UDP, users=ACCOUNT_KINDS[WIREGUARD], hot=False),
        OutboundProtocol(hot=False),
    ),
    Protocol("tun", InboundProtocol(Sockets.NONE, hot=False)),
    Protocol("freedom", None, OutboundProtocol()),
    Protocol("direct", None, OutboundProtocol()),
    Protocol("blackhole", None, _BLACKHOLE),
    Protocol("block", None, _BLACKHOLE),
    Protocol("dns", None, OutboundProtocol(observable=False)),
    Protocol("loopback", None, OutboundProtocol(hot=False, observable=False)),
)

#: Inbound protocols by their name in a config, in lower case.
INBOUND_PROTOCOLS: Final = {row.name: row.inbound for row in _PROTOCOLS if row.inbound is not None}
#: Outbound protocols by their name in a config, in lower case.
OUTBOUND_PROTOCOLS: Final = {row.name: row.outbound for row in _PROTOCOLS if row.outbound is not None}


@dataclass(frozen=True, slots=True)
class Transport:
    """One transport, by the name that the node uses."""

    name: str
    aliases: tuple[str, ...] = ()
    udp: bool = False
    #: Its connections go on while their inbound is away (measured, one by one). Those of the others are served by an object
    #: that ends with the listener.
    outlives_listener: bool = False


_TRANSPORTS: Final = (
    Transport("raw", ("tcp",), outlives_listener=True),
    Transport("ws", ("websocket",), outlives_listener=True),
    Transport("httpupgrade", outlives_listener=True),
    Transport("grpc"),
    Transport("xhttp", ("splithttp",)),
    Transport("mkcp", ("kcp",), udp=True),
    Transport("hysteria", udp=True),
)

#: Transports by each of their names in a config, in lower case.
TRANSPORTS: Final = {name: row for row in _TRANSPORTS for name in (row.name, *row.aliases)}
