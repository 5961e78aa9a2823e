"""A core's API in memory, on a unix socket: inbounds, users and counters, with the sentences of the real core.

The real core is what tests/integration/xray holds the client against. This one answers within a millisecond, and says what a
test wants it to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from pgnode.xray.config.protocols import KINDS_BY_SETTINGS
from pgnode.xray.proto import core_pb2, user_pb2
from pgnode.xray.proto import handler_command_pb2 as handler
from pgnode.xray.proto import stats_command_pb2 as stats

_HANDLER = "/xray.app.proxyman.command.HandlerService/"
_STATS = "/xray.app.stats.command.StatsService/"


if TYPE_CHECKING:
    _Handler = grpc.GenericRpcHandler[bytes, bytes]
else:
    _Handler = grpc.GenericRpcHandler


class Refusal(Exception):
    """The core says no; ``str`` is its sentence."""


class FakeCore(_Handler):
    """Start it with :meth:`start`; ``answers`` takes further methods, by path, and wins over its own."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.inbounds: dict[str, core_pb2.InboundHandlerConfig] = {}
        self.outbounds: dict[str, core_pb2.OutboundHandlerConfig] = {}
        #: Users by tag and e-mail in lower case.
        self.users: dict[str, dict[str, user_pb2.User]] = {}
        self.counters: dict[str, int] = {}
        self.online: dict[str, dict[str, int]] = {}
        self.answers: dict[str, Callable[[bytes], bytes]] = {}
        #: Methods that were called, without their service.
        self.calls: list[str] = []
        #: While this is cleared no call is answered.
        self.awake = asyncio.Event()
        self.awake.set()
        self._server: grpc.aio.Server | None = None

    def __repr__(self) -> str:
        return f"FakeCore({self.socket_path}, {len(self.inbounds)} inbounds)"

    async def start(self) -> None:
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(f"unix:{self.socket_path}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def service(self, details: Any) -> Any:
        """Find the handler of a method, as grpc asks for it."""
        path = details.method

        async def call(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            name = path.rsplit("/", 1)[1]
            self.calls.append(name)
            await self.awake.wait()
            try:
                if path in self.answers:
                    return self.answers[path](request)
                own: Callable[[bytes], Any] | None = getattr(self, f"_{name}", None)
                if own is None:
                    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"unknown service {path}")
                else:
                    answer: bytes = own(request).SerializeToString()
                    return answer
            except Refusal as refusal:
                await context.abort(grpc.StatusCode.UNKNOWN, str(refusal))
            raise AssertionError("abort raises")

        return grpc.unary_unary_rpc_method_handler(call, None, None)

    # --- HandlerService

    def add(self, inbound: core_pb2.InboundHandlerConfig) -> None:
        """Configure an inbound, with the users in it."""
        if inbound.tag in self.inbounds:
            raise Refusal(f"app/proxyman/inbound: existing tag found: {inbound.tag}")
        kind = KINDS_BY_SETTINGS.get(inbound.proxy_settings.type)
        users: dict[str, user_pb2.User] = {}
        if kind is not None:
            for user in getattr(kind.users.message.FromString(inbound.proxy_settings.value), kind.users.field):
                if user.email.lower() in users:
                    raise Refusal(f"proxy: failed to create > proxy/vless: User {user.email} already exists.")
                users[user.email.lower()] = user
        self.inbounds[inbound.tag] = inbound
        self.users[inbound.tag] = users

    def _users_of(self, tag: str) -> dict[str, user_pb2.User]:
        if tag not in self.users:
            raise Refusal(f"app/proxyman/command: failed to get handler: {tag} > handler not found: {tag}")
        return self.users[tag]

    def _AlterInbound(self, request: bytes) -> Any:
        message = handler.AlterInboundRequest.FromString(request)
        users, operation = self._users_of(message.tag), message.operation
        if operation.type.endswith("AddUserOperation"):
            user = handler.AddUserOperation.FromString(operation.value).user
            if user.email.lower() in users:
                raise Refusal(f"proxy/vless: User {user.email} already exists.")
            users[user.email.lower()] = user
        else:
            email = handler.RemoveUserOperation.FromString(operation.value).email
            if users.pop(email.lower(), None) is None:
                raise Refusal(f"proxy/vless: User {email} not found.")
        return handler.AlterInboundResponse()

    def _AddInbound(self, request: bytes) -> Any:
        self.add(handler.AddInboundRequest.FromString(request).inbound)
        return handler.AddInboundResponse()

    def _RemoveInbound(self, request: bytes) -> Any:
        tag = handler.RemoveInboundRequest.FromString(request).tag
        self._users_of(tag)
        del self.inbounds[tag], self.users[tag]
        return handler.RemoveInboundResponse()

    def _ListInbounds(self, request: bytes) -> Any:
        if handler.ListInboundsRequest.FromString(request).isOnlyTags:
            tags = ["", *self.inbounds]
            return handler.ListInboundsResponse(inbounds=[core_pb2.InboundHandlerConfig(tag=tag) for tag in tags])
        return handler.ListInboundsResponse(inbounds=self.inbounds.values())

    def _GetInboundUsers(self, request: bytes) -> Any:
        tag = handler.GetInboundUserRequest.FromString(request).tag
        return handler.GetInboundUserResponse(users=self._users_of(tag).values())

    def _GetInboundUsersCount(self, request: bytes) -> Any:
        tag = handler.GetInboundUserRequest.FromString(request).tag
        return handler.GetInboundUsersCountResponse(count=len(self._users_of(tag)))

    def _ListOutbounds(self, _request: bytes) -> Any:
        return handler.ListOutboundsResponse(outbounds=self.outbounds.values())

    def _AddOutbound(self, request: bytes) -> Any:
        outbound = handler.AddOutboundRequest.FromString(request).outbound
        self.outbounds[outbound.tag] = outbound
        return handler.AddOutboundResponse()

    def _RemoveOutbound(self, request: bytes) -> Any:
        self.outbounds.pop(handler.RemoveOutboundRequest.FromString(request).tag, None)
        return handler.RemoveOutboundResponse()

    # --- StatsService

    def _GetSysStats(self, _request: bytes) -> Any:
        return stats.SysStatsResponse(NumGoroutine=7, Uptime=3)

    def _QueryStats(self, request: bytes) -> Any:
        pattern = stats.QueryStatsRequest.FromString(request).pattern
        found = [stats.Stat(name=name, value=value) for name, value in self.counters.items() if pattern in name]
        return stats.QueryStatsResponse(stat=found)

    def _GetStats(self, request: bytes) -> Any:
        name = stats.GetStatsRequest.FromString(request).name
        if name not in self.counters:
            raise Refusal(f"app/stats/command: {name} not found.")
        return stats.GetStatsResponse(stat=stats.Stat(name=name, value=self.counters[name]))

    def _ips(self, request: bytes) -> tuple[str, dict[str, int]]:
        name = stats.GetStatsRequest.FromString(request).name
        email = name.split(">>>")[1]
        if email not in self.online:
            raise Refusal(f"app/stats/command: {name} not found.")
        return name, self.online[email]

    def _GetStatsOnline(self, request: bytes) -> Any:
        name, ips = self._ips(request)
        return stats.GetStatsResponse(stat=stats.Stat(name=name, value=len(ips)))

    def _GetStatsOnlineIpList(self, request: bytes) -> Any:
        name, ips = self._ips(request)
        return stats.GetStatsOnlineIpListResponse(name=name, ips=ips)

    def _GetAllOnlineUsers(self, _request: bytes) -> Any:
        return stats.GetAllOnlineUsersResponse(users=[f"user>>>{email}>>>online" for email in self.online])

    def _GetUsersStats(self, request: bytes) -> Any:
        answer = stats.GetUsersStatsResponse()
        for email, ips in self.online.items():
            user = answer.users.add(email=email)
            for ip, seen in ips.items():
                user.ips.add(ip=ip, last_seen=seen)
            if stats.GetUsersStatsRequest.FromString(request).include_traffic:
                user.traffic.uplink = self.counters.get(f"user>>>{email}>>>traffic>>>uplink", 0)
        return answer
