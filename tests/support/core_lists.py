"""What the core itself lists, asked through its API without any of the node's code but the messages."""

from __future__ import annotations

from pathlib import Path

import grpc

from pgnode.xray.proto import handler_command_pb2

_SERVICE = "/xray.app.proxyman.command.HandlerService"
_TIMEOUT_SECONDS = 30.0


async def inbound_tags(core_socket: Path) -> list[str]:
    """The tags of the running core's inbounds."""
    async with grpc.aio.insecure_channel(f"unix:{core_socket}") as channel:
        call = channel.unary_unary(
            f"{_SERVICE}/ListInbounds",
            request_serializer=handler_command_pb2.ListInboundsRequest.SerializeToString,
            response_deserializer=handler_command_pb2.ListInboundsResponse.FromString,
        )
        answer = await call(handler_command_pb2.ListInboundsRequest(isOnlyTags=True), timeout=_TIMEOUT_SECONDS)
        return [inbound.tag for inbound in answer.inbounds]


async def inbound_users(core_socket: Path, tag: str) -> dict[str, str]:
    """E-mail -> type of account, of all users in one inbound of the running core. E-mails are as they were added."""
    async with grpc.aio.insecure_channel(f"unix:{core_socket}") as channel:
        call = channel.unary_unary(
            f"{_SERVICE}/GetInboundUsers",
            request_serializer=handler_command_pb2.GetInboundUserRequest.SerializeToString,
            response_deserializer=handler_command_pb2.GetInboundUserResponse.FromString,
        )
        answer = await call(handler_command_pb2.GetInboundUserRequest(tag=tag), timeout=_TIMEOUT_SECONDS)
        return {user.email: user.account.type for user in answer.users}
