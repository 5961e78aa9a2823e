"""Inbounds and users as messages of the core."""

from __future__ import annotations

from collections.abc import Iterable

from pgnode.xray.config.accounts import Account, user_message
from pgnode.xray.config.protocols import ACCOUNT_KINDS
from pgnode.xray.proto import core_pb2, user_pb2

DEADLINE_SECONDS = 10.0


def make_user(email: str, padding: int = 0) -> bytes:
    """A serialized user with a Trojan account."""
    return user_message(email, Account("trojan", email + "x" * padding))


def make_inbound(tag: str, kind: str = "trojan", users: Iterable[bytes] = ()) -> core_pb2.InboundHandlerConfig:
    """An inbound with these users, as the core lists it."""
    settings = ACCOUNT_KINDS[kind].users.message()
    getattr(settings, ACCOUNT_KINDS[kind].users.field).extend(user_pb2.User.FromString(user) for user in users)
    inbound = core_pb2.InboundHandlerConfig(tag=tag)
    inbound.receiver_settings.type = "xray.app.proxyman.ReceiverConfig"
    inbound.receiver_settings.value = b"\x0a\x00"
    inbound.proxy_settings.type = settings.DESCRIPTOR.full_name
    inbound.proxy_settings.value = settings.SerializeToString()
    return inbound
