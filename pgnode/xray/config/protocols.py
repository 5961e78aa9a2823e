"""The protocols of the core, one row each: what the node has to know of them. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from google.protobuf.message import Message

from pgnode.xray.proto import (
    hysteria_pb2,
    shadowsocks_2022_pb2,
    shadowsocks_pb2,
    trojan_pb2,
    vless_inbound_pb2,
    vmess_inbound_pb2,
)


class UserList(NamedTuple):
    """Where an inbound keeps its users, in the settings as the core encodes them."""

    message: type[Message]
    field: str

    @property
    def number(self) -> int:
        """Number of the field."""
        return self.message.DESCRIPTOR.fields_by_name[self.field].number


#: Where each protocol keeps the users of an inbound, by the type name in ``proxy_settings``.
USER_LISTS: Final = {
    message.DESCRIPTOR.full_name: UserList(message, field)
    for message, field in (
        (vless_inbound_pb2.Config, "users"),
        (vmess_inbound_pb2.Config, "user"),
        (trojan_pb2.ServerConfig, "users"),
        (shadowsocks_pb2.ServerConfig, "users"),
        (shadowsocks_2022_pb2.MultiUserServerConfig, "users"),
        (hysteria_pb2.ServerConfig, "users"),
    )
}
SINGLE_USER_SETTINGS: Final = shadowsocks_2022_pb2.ServerConfig.DESCRIPTOR.full_name
_HYSTERIA: Final = hysteria_pb2.ServerConfig.DESCRIPTOR.full_name


def outlives_listener(settings_type: str) -> bool:
    """Whether connections go on while the inbound is away.

    Those of Hysteria do not: its one UDP socket carries all of them, and clients notice only after some 30 s that it is
    another one (measured).
    """
    return settings_type != _HYSTERIA
