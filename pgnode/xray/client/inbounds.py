"""Client of the core's HandlerService, as far as whole inbounds and outbounds go: listed, added, removed.

What Xray 26.10.10 does, measured:

* The core lists inbounds and outbounds as they were configured. Users that were added or removed since do not show.
* An empty AddInbound **ends the core** (a Go panic); here it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pgnode.wire import varint
from pgnode.xray.client.channel import MAX_SEND_BYTES, CoreChannel, decode_answer
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.config.protocols import KINDS_BY_SETTINGS, SINGLE_USER_SETTINGS
from pgnode.xray.proto import core_pb2, shadowsocks_2022_pb2, typed_message_pb2
from pgnode.xray.proto import handler_command_pb2 as pb

_SERVICE: Final = "/xray.app.proxyman.command.HandlerService/"


class InboundsClient:
    """Inbounds and outbounds of one running core.

    Every ``deadline_seconds`` bounds the whole method. Every method may raise CoreApiError.
    """

    def __init__(self, channel: CoreChannel) -> None:
        self._channel = channel
        #: Inbounds as the core encodes them, without users, by tag: listing them brings all that were configured.
        self._bare: dict[str, core_pb2.InboundHandlerConfig] = {}
        #: Inbounds that are out of the core and are to come back, by tag: how the core encodes them, None where nobody knows.
        self.away: dict[str, core_pb2.InboundHandlerConfig | None] = {}

    def __repr__(self) -> str:
        return f"<InboundsClient {self._channel!r}>"

    async def list_inbounds(self, deadline_seconds: float) -> list[core_pb2.InboundHandlerConfig]:
        """List the inbounds as they were configured: users that were added or removed since do not show here."""
        answer = await self._channel.call(_SERVICE + "ListInbounds", b"", deadline_seconds)
        return list(decode_answer(pb.ListInboundsResponse, answer).inbounds)

    async def inbound_tags(self, deadline_seconds: float) -> set[str]:
        """List the tags of all inbounds; the core's own API is none of them."""
        request = pb.ListInboundsRequest(isOnlyTags=True).SerializeToString()
        answer = await self._channel.call(_SERVICE + "ListInbounds", request, deadline_seconds)
        return {inbound.tag for inbound in decode_answer(pb.ListInboundsResponse, answer).inbounds} - {""}

    async def bare_inbound(self, tag: str, deadline_seconds: float) -> core_pb2.InboundHandlerConfig:
        """Return an inbound as it was configured, but without users. One that is not there is NO_HANDLER."""
        if tag not in self._bare:
            for inbound in await self.list_inbounds(deadline_seconds):
                self._bare[inbound.tag] = without_users(inbound)
        if tag not in self._bare:
            raise CoreApiError(f"handler not found: {tag}", ErrorKind.NO_HANDLER)
        return self._bare[tag]

    async def add_inbound(self, config: core_pb2.InboundHandlerConfig, deadline_seconds: float) -> None:
        """Add an inbound and listen. A tag in use is ALREADY_EXISTS, a port that cannot be bound REFUSED."""
        if not config.HasField("receiver_settings") or not config.HasField("proxy_settings"):
            raise CoreApiError(f"inbound {config.tag!r} is not complete", ErrorKind.REFUSED)
        self._bare.pop(config.tag, None)
        await self.put_in(config, deadline_seconds)

    async def put_in(self, config: core_pb2.InboundHandlerConfig, deadline_seconds: float) -> None:
        """Add an inbound that differs in its users only from the one that :meth:`bare_inbound` knows."""
        request = pb.AddInboundRequest(inbound=config).SerializeToString()
        await self._channel.call(_SERVICE + "AddInbound", request, deadline_seconds)

    async def remove_inbound(self, tag: str, deadline_seconds: float) -> None:
        """Stop listening and forget the inbound; an unknown tag is NO_HANDLER."""
        self._bare.pop(tag, None)
        await self.take_out(tag, deadline_seconds)

    async def take_out(self, tag: str, deadline_seconds: float) -> None:
        """Remove an inbound that :meth:`put_in` will add again."""
        request = pb.RemoveInboundRequest(tag=tag).SerializeToString()
        await self._channel.call(_SERVICE + "RemoveInbound", request, deadline_seconds)

    async def list_outbounds(self, deadline_seconds: float) -> list[core_pb2.OutboundHandlerConfig]:
        """List the outbounds as they were configured."""
        answer = await self._channel.call(_SERVICE + "ListOutbounds", b"", deadline_seconds)
        return list(decode_answer(pb.ListOutboundsResponse, answer).outbounds)

    async def add_outbound(self, config: core_pb2.OutboundHandlerConfig, deadline_seconds: float) -> None:
        """Add an outbound. A tag in use is ALREADY_EXISTS."""
        if not config.HasField("proxy_settings"):
            raise CoreApiError(f"outbound {config.tag!r} is not complete", ErrorKind.REFUSED)
        request = pb.AddOutboundRequest(outbound=config).SerializeToString()
        await self._channel.call(_SERVICE + "AddOutbound", request, deadline_seconds)

    async def remove_outbound(self, tag: str, deadline_seconds: float) -> None:
        """Remove an outbound."""
        request = pb.RemoveOutboundRequest(tag=tag).SerializeToString()
        await self._channel.call(_SERVICE + "RemoveOutbound", request, deadline_seconds)


def without_users(inbound: core_pb2.InboundHandlerConfig) -> core_pb2.InboundHandlerConfig:
    """Make a copy of the inbound whose list of users is empty. Pure."""
    bare = core_pb2.InboundHandlerConfig()
    bare.CopyFrom(inbound)
    kind = KINDS_BY_SETTINGS.get(inbound.proxy_settings.type)
    if kind is not None:
        settings = kind.users.message.FromString(inbound.proxy_settings.value)
        settings.ClearField(kind.users.field)
        bare.proxy_settings.value = settings.SerializeToString()
    return bare


def with_users(
    inbound: core_pb2.InboundHandlerConfig, users: Sequence[bytes], limit_bytes: int = MAX_SEND_BYTES
) -> tuple[core_pb2.InboundHandlerConfig, Sequence[bytes]]:
    """Make a copy of the inbound with exactly ``users``. Pure.

    Everything else of the inbound is kept. A Shadowsocks-2022 inbound for a single user becomes one for several.

    Args:
        inbound: As the core encodes it.
        users: Serialized xray.common.protocol.User messages.
        limit_bytes: Bytes that the inbound may have in all.

    Returns:
        The inbound, and those of ``users``, from their end, that did not fit.

    Raises:
        CoreApiError: The inbound has no list of users.
    """
    settings = inbound.proxy_settings
    if settings.type == SINGLE_USER_SETTINGS:
        single = shadowsocks_2022_pb2.ServerConfig.FromString(settings.value)
        parsed = shadowsocks_2022_pb2.MultiUserServerConfig(
            method=single.method, key=single.key, network=single.network
        )
        name, bare = parsed.DESCRIPTOR.full_name, parsed.SerializeToString()
    elif settings.type in KINDS_BY_SETTINGS:
        name, bare = settings.type, without_users(inbound).proxy_settings.value
    else:
        raise CoreApiError(f"inbound {inbound.tag!r} has no list of users ({settings.type})", ErrorKind.REFUSED)
    number = KINDS_BY_SETTINGS[name].users.number
    left = limit_bytes - len(bare) - len(inbound.receiver_settings.value) - len(inbound.tag.encode())
    pieces = [bare]
    taken = 0
    for user in users:
        piece = varint.field(number, user)
        left -= len(piece)
        if left < 0:
            break
        pieces.append(piece)
        taken += 1
    changed = core_pb2.InboundHandlerConfig(
        tag=inbound.tag,
        receiver_settings=inbound.receiver_settings,
        proxy_settings=typed_message_pb2.TypedMessage(type=name, value=b"".join(pieces)),
    )
    return changed, users[taken:]
