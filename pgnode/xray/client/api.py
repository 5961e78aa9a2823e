"""Client of the core's own gRPC API, on its unix socket.

Statuses and texts are those of Xray 26.10.10, measured: the core answers nearly every error with UNKNOWN and a sentence,
so errors are told apart by their text (``classify``). tests/integration/xray/test_api.py keeps this true against the real core.

What the core does with users differs by protocol, and callers have to know:

* Adding a known e-mail: VLESS, VMess, Trojan and Shadowsocks-2022 refuse it ("already exists", whatever the case of the
  letters); Shadowsocks takes it and then has the user **twice**; Hysteria knows users by their key, so a new key for the
  same e-mail leaves the old key valid. To change a user, remove first, then add.
* Removing an unknown e-mail is "not found", but Hysteria accepts it silently. Hysteria compares e-mails exactly, all
  others in lower case. Where an e-mail is there twice, one removal takes one.
* A Shadowsocks-2022 inbound that was configured without users is one for a single user; nobody can be added to it.
  ``swap_inbound_users`` turns it into one for several, which the core offers for the aes methods only.
* An account of another protocol than the inbound's **ends the core** (a Go panic). So does an empty AddInbound.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from pgnode.xray.proto import (
    core_pb2,
    handler_command_pb2,
    hysteria_pb2,
    shadowsocks_2022_pb2,
    shadowsocks_pb2,
    stats_command_pb2,
    trojan_pb2,
    typed_message_pb2,
    user_pb2,
    vless_inbound_pb2,
    vmess_inbound_pb2,
)
from pgnode.xray.transport.http2 import Failure
from pgnode.xray.transport.pipelined import PipelinedGrpcClient

_MessageT = TypeVar("_MessageT", bound=Message)

_HANDLER: Final = "/xray.app.proxyman.command.HandlerService/"
_STATS: Final = "/xray.app.stats.command.StatsService/"

#: What the client accepts: statistics of 100,000 users are 10 MB.
MAX_RECEIVE_BYTES: Final = 64 * 1024 * 1024
#: What the core accepts: grpc-go's default of 4 MiB, less some room for what encloses the users.
MAX_SEND_BYTES: Final = 4 * 1024 * 1024 - 64 * 1024

_CHANNEL_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_RECEIVE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # Each core run gets a channel of its own, untouched by the connection back-off of an earlier one.
    ("grpc.use_local_subchannel_pool", 1),
    # The socket appears about 0.1 s after the core was started.
    ("grpc.initial_reconnect_backoff_ms", 10),
    # In spite of its name the time one attempt to connect has: a busy core answers late.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 100),
)


#: How often a core that starts is tried; one try takes 10 µs.
_READY_POLL_SECONDS = 0.005


class ErrorKind(StrEnum):
    """What an error of the core's API means to the caller."""

    UNAVAILABLE = "unavailable"  # no connection: the core is not there, or went away
    DEADLINE = "deadline"  # the core did not answer in time; whether it acted is unknown
    ALREADY_EXISTS = "already_exists"  # the user, or the tag, is there already
    NOT_FOUND = "not_found"  # no such user, counter or online entry
    NO_HANDLER = "no_handler"  # no inbound or outbound of this tag
    REFUSED = "refused"  # anything else; the text is the core's reason


class CoreApiError(Exception):
    """A call to the core's API failed. ``str(error)`` is the core's own text."""

    def __init__(self, text: str, kind: ErrorKind) -> None:
        super().__init__(text)
        self.kind = kind

    @property
    def reason(self) -> str:
        """The innermost cause without the Go package that names it: "Unsupported cipher"."""
        return _PACKAGE.sub("", str(self).rsplit(" > ", 1)[-1]).rstrip(".")


class SwapFailedError(CoreApiError):
    """The inbound was removed and the new one refused.

    ``restored`` tells whether the old one is back with the users it had.
    """

    def __init__(self, text: str, kind: ErrorKind, *, restored: bool) -> None:
        super().__init__(text, kind)
        self.restored = restored


#: "proxy/vless: " in front of each link of the core's chain of causes.
_PACKAGE = re.compile(r"^[a-z0-9_/]+: ")
_NO_HANDLER = re.compile(r"handler not found: |not enough information for making a decision")
_ALREADY_EXISTS = re.compile(r"already exists\.?$|existing tag found: ")
_NOT_FOUND = re.compile(r"not found\.?$")


def classify(code: grpc.StatusCode, text: str) -> ErrorKind:
    """The kind of an error by its gRPC status and the core's text."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ErrorKind.DEADLINE
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ErrorKind.UNAVAILABLE
    if _NO_HANDLER.search(text):
        return ErrorKind.NO_HANDLER
    if _ALREADY_EXISTS.search(text):
        return ErrorKind.ALREADY_EXISTS
    if _NOT_FOUND.search(text):
        return ErrorKind.NOT_FOUND
    return ErrorKind.REFUSED


def _translated(error: grpc.aio.AioRpcError) -> CoreApiError:
    text = error.details() or error.code().name.lower().replace("_", " ")
    return CoreApiError(text, classify(error.code(), text))


_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _failed(failure: Failure) -> CoreApiError:
    code = _STATUS_CODES.get(failure.code, grpc.StatusCode.UNKNOWN)
    text = failure.text or code.name.lower().replace("_", " ")
    return CoreApiError(text, classify(code, text))


_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _ONE_BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field: lets serialized users be put into messages without parsing them."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


@functools.lru_cache(maxsize=1024)
def _tag_field(tag: str) -> bytes:
    """What every request for this inbound begins with."""
    return _field(1, tag.encode())


def _operation_head(kind: type[Message]) -> bytes:
    """A TypedMessage of this kind up to the length of its value."""
    return _field(1, kind.DESCRIPTOR.full_name.encode()) + b"\x12"


_ADD_HEAD: Final = _operation_head(handler_command_pb2.AddUserOperation)
_REMOVE_HEAD: Final = _operation_head(handler_command_pb2.RemoveUserOperation)


class AlterOperation(NamedTuple):
    """One change to the users of an inbound: ``user`` (a serialized xray.common.protocol.User) is added; None removes."""

    tag: str
    email: str
    user: bytes | None = None

    @classmethod
    def add(cls, tag: str, user: bytes) -> AlterOperation:
        """Add the user; the e-mail is read from the message."""
        return cls(tag, user_pb2.User.FromString(user).email, user)

    @classmethod
    def remove(cls, tag: str, email: str) -> AlterOperation:
        """Remove the user of this e-mail."""
        return cls(tag, email)

    def request(self) -> bytes:
        """The serialized AlterInboundRequest."""
        # Spelled out, since this is done for every user in every inbound; a test holds it against the generated messages.
        if self.user is None:
            content, head = self.email.encode(), _REMOVE_HEAD
        else:
            content, head = self.user, _ADD_HEAD
        size = _varint(len(content))
        length = len(content) + len(size) + 1
        inner = _varint(length)
        return b"%b\x12%b%b%b\x0a%b%b" % (
            _tag_field(self.tag),
            _varint(len(head) + len(inner) + length),
            head,
            inner,
            size,
            content,
        )


#: Where each protocol keeps the users of an inbound: message and field, by the type name in ``proxy_settings``.
USER_LISTS: Final[Mapping[str, tuple[type[Message], str]]] = {
    message.DESCRIPTOR.full_name: (message, field)
    for message, field in (
        (vless_inbound_pb2.Config, "users"),
        (vmess_inbound_pb2.Config, "user"),
        (trojan_pb2.ServerConfig, "users"),
        (shadowsocks_pb2.ServerConfig, "users"),
        (shadowsocks_2022_pb2.MultiUserServerConfig, "users"),
        (hysteria_pb2.ServerConfig, "users"),
    )
}
#: An inbound of this type is never swapped: its one UDP socket carries all connections, and clients notice only after
#: some 30 s that it is another one (measured). Its users are cheap to alter.
_NEVER_SWAPPED: Final = hysteria_pb2.ServerConfig.DESCRIPTOR.full_name
_SINGLE_USER: Final = shadowsocks_2022_pb2.ServerConfig.DESCRIPTOR.full_name


def with_users(
    inbound: core_pb2.InboundHandlerConfig, users: Sequence[bytes], limit_bytes: int = MAX_SEND_BYTES
) -> tuple[core_pb2.InboundHandlerConfig, Sequence[bytes]]:
    """The inbound with exactly ``users`` (serialized User messages), and those that did not fit into ``limit_bytes``.

    Everything else of the inbound is kept. An inbound without a user list is refused. Pure.
    """
    settings = inbound.proxy_settings
    name = settings.type
    if name == _SINGLE_USER:
        single = shadowsocks_2022_pb2.ServerConfig.FromString(settings.value)
        several = shadowsocks_2022_pb2.MultiUserServerConfig(
            method=single.method, key=single.key, network=single.network
        )
        name, bare, number = several.DESCRIPTOR.full_name, several.SerializeToString(), 3
    elif name in USER_LISTS:
        message_type, field = USER_LISTS[name]
        parsed = message_type.FromString(settings.value)
        parsed.ClearField(field)
        bare, number = parsed.SerializeToString(), message_type.DESCRIPTOR.fields_by_name[field].number
    else:
        raise CoreApiError(f"inbound {inbound.tag!r} has no list of users ({name})", ErrorKind.REFUSED)
    left = limit_bytes - len(bare) - len(inbound.receiver_settings.value)
    parts = [bare]
    taken = 0
    for user in users:
        part = _field(number, user)
        left -= len(part)
        if left < 0:
            break
        parts.append(part)
        taken += 1
    changed = core_pb2.InboundHandlerConfig(
        tag=inbound.tag,
        receiver_settings=inbound.receiver_settings,
        proxy_settings=typed_message_pb2.TypedMessage(type=name, value=b"".join(parts)),
    )
    return changed, users[taken:]


class CoreApi:
    """The API of one running core. Belongs to the event loop of its first call; ``aclose`` it there.

    Every ``deadline_seconds`` bounds the whole method. Every method may raise CoreApiError.
    """

    def __init__(self, socket_path: Path | str) -> None:
        self._socket_path = str(socket_path)
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._finishing: set[asyncio.Task[None]] = set()
        self._lane: PipelinedGrpcClient | None = None
        #: Inbounds as the core encodes them, without users, by tag: listing them brings all that were configured.
        self._bare: dict[str, core_pb2.InboundHandlerConfig] = {}

    def __repr__(self) -> str:
        return f"<CoreApi {self._socket_path} {'idle' if self._channel is None else 'open'}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the channel; calls under way end as unavailable."""
        channel, self._channel = self._channel, None
        lane, self._lane = self._lane, None
        self._calls.clear()
        if lane is not None:
            await lane.aclose()
        if channel is not None:
            await channel.close(None)

    def _method(self, path: str) -> Any:
        """The callable of one method, bytes in and out; made here since grpc objects belong to the running loop."""
        method = self._calls.get(path)
        if method is None:
            if self._channel is None:
                self._channel = grpc.aio.insecure_channel(f"unix:{self._socket_path}", options=_CHANNEL_OPTIONS)
            method = self._calls[path] = self._channel.unary_unary(path, None, None)
        return method

    async def call(self, path: str, request: bytes, deadline_seconds: float) -> bytes:
        """Any method of the core's API by its path, messages as bytes; for the modules beside this one."""
        return await self._call(path, request, deadline_seconds)

    async def _call(self, path: str, request: bytes, deadline_seconds: float, *, wait_for_ready: bool = False) -> bytes:
        try:
            answer: bytes = await self._method(path)(
                request, timeout=max(deadline_seconds, 0.0), wait_for_ready=wait_for_ready
            )
        except grpc.aio.AioRpcError as error:
            raise _translated(error) from None
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise CoreApiError(f"the channel to the core is closed: {error}", ErrorKind.UNAVAILABLE) from None
        except asyncio.CancelledError:
            # grpc cancels the calls of a channel that is closed; whoever made this one was not cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise CoreApiError("the channel to the core was closed", ErrorKind.UNAVAILABLE) from None
        return answer

    # --- state of the core

    async def wait_ready(self, deadline_seconds: float) -> stats_command_pb2.SysStatsResponse:
        """Wait until the core answers, and not longer: a channel whose first attempt fails makes a pause of 0.1 s."""
        end = time.monotonic() + deadline_seconds
        while not _is_served(self._socket_path) and time.monotonic() < end:  # noqa: ASYNC110 - another process
            await asyncio.sleep(_READY_POLL_SECONDS)
        left = max(end - time.monotonic(), 0.0)
        answer = await self._call(_STATS + "GetSysStats", b"", left, wait_for_ready=True)
        return parsed(stats_command_pb2.SysStatsResponse, answer)

    async def sys_stats(self, deadline_seconds: float) -> stats_command_pb2.SysStatsResponse:
        """Memory, goroutines and uptime of the core."""
        return parsed(
            stats_command_pb2.SysStatsResponse, await self._call(_STATS + "GetSysStats", b"", deadline_seconds)
        )

    # --- counters and online users; counters are never reset

    async def query_stats(self, pattern: str, deadline_seconds: float) -> stats_command_pb2.QueryStatsResponse:
        """All counters whose name holds ``pattern``; values in bytes since the core's start."""
        request = stats_command_pb2.QueryStatsRequest(pattern=pattern).SerializeToString()
        return parsed(
            stats_command_pb2.QueryStatsResponse,
            await self._call(_STATS + "QueryStats", request, deadline_seconds),
        )

    async def query_stats_pieces(self, pattern: str, deadline_seconds: float) -> list[bytes]:
        """:meth:`query_stats`, each ``Stat`` as the bytes it came in."""
        request = stats_command_pb2.QueryStatsRequest(pattern=pattern).SerializeToString()
        return await _pieces(await self._call(_STATS + "QueryStats", request, deadline_seconds))

    async def users_stats_pieces(self, deadline_seconds: float, *, include_traffic: bool) -> list[bytes]:
        """:meth:`users_stats`, each ``UserStat`` as the bytes it came in."""
        request = stats_command_pb2.GetUsersStatsRequest(include_traffic=include_traffic).SerializeToString()
        return await _pieces(await self._call(_STATS + "GetUsersStats", request, deadline_seconds))

    async def get_stat(self, name: str, deadline_seconds: float) -> int | None:
        """The counter of exactly this name; None when the core has none."""
        return await self._stat("GetStats", name, deadline_seconds)

    async def online_count(self, email: str, deadline_seconds: float) -> int | None:
        """From how many addresses the user is online; None when the core has no entry for the user."""
        return await self._stat("GetStatsOnline", f"user>>>{email}>>>online", deadline_seconds)

    async def _stat(self, method: str, name: str, deadline_seconds: float) -> int | None:
        request = stats_command_pb2.GetStatsRequest(name=name).SerializeToString()
        try:
            answer = await self._call(_STATS + method, request, deadline_seconds)
        except CoreApiError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return None
            raise
        return parsed(stats_command_pb2.GetStatsResponse, answer).stat.value

    async def online_ips(self, email: str, deadline_seconds: float) -> dict[str, int] | None:
        """Addresses the user is online from, to the Unix second each was last seen; None when there is no entry."""
        request = stats_command_pb2.GetStatsRequest(name=f"user>>>{email}>>>online").SerializeToString()
        try:
            answer = await self._call(_STATS + "GetStatsOnlineIpList", request, deadline_seconds)
        except CoreApiError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                return None
            raise
        return dict(parsed(stats_command_pb2.GetStatsOnlineIpListResponse, answer).ips)

    async def online_users(self, deadline_seconds: float) -> list[str]:
        """The counter names (``user>>>alice>>>online``) of all users that are online."""
        answer = await self._call(_STATS + "GetAllOnlineUsers", b"", deadline_seconds)
        return list(parsed(stats_command_pb2.GetAllOnlineUsersResponse, answer).users)

    async def online(self, deadline_seconds: float) -> dict[str, dict[str, int]]:
        """E-mail of each online user to its addresses, each with the Unix second it was last seen."""
        answer = await self.users_stats(deadline_seconds, include_traffic=False)
        return {user.email: {entry.ip: entry.last_seen for entry in user.ips} for user in answer.users}

    async def users_stats(
        self, deadline_seconds: float, *, include_traffic: bool = True
    ) -> stats_command_pb2.GetUsersStatsResponse:
        """Addresses, last-seen times and, if asked, traffic of the users that are online; of nobody else."""
        request = stats_command_pb2.GetUsersStatsRequest(include_traffic=include_traffic).SerializeToString()
        return parsed(
            stats_command_pb2.GetUsersStatsResponse,
            await self._call(_STATS + "GetUsersStats", request, deadline_seconds),
        )

    # --- users of an inbound

    async def add_user(self, tag: str, user_message: bytes, deadline_seconds: float) -> None:
        """Add a serialized xray.common.protocol.User. Its account must be of the inbound's protocol: see the module."""
        await self._alter(AlterOperation(tag, "", user_message), deadline_seconds)

    async def remove_user(self, tag: str, email: str, deadline_seconds: float) -> None:
        """Remove a user; live connections of the user go on."""
        await self._alter(AlterOperation(tag, email), deadline_seconds)

    async def _alter(self, operation: AlterOperation, deadline_seconds: float) -> None:
        await self._call(_HANDLER + "AlterInbound", operation.request(), deadline_seconds)

    async def alter_many(
        self,
        operations: Sequence[AlterOperation],
        deadline_seconds: float,
    ) -> list[CoreApiError | None]:
        """Carry out all operations, many at a time; the result of each: None, or its error. Never raises one.

        Operations on the same e-mail of the same inbound run one after the other, in the order given. What could not
        be begun in time is answered with a deadline error.
        """
        followers = _followers(operations)
        if self._lane is None:
            self._lane = PipelinedGrpcClient(self._socket_path, _HANDLER + "AlterInbound")

        def request(index: int) -> bytes:
            return operations[index].request()

        failures = await self._lane.run(len(operations), request, deadline_seconds, followers)
        if not any(failures):
            return [None] * len(failures)
        return [None if failure is None else _failed(failure) for failure in failures]

    async def inbound_users(self, tag: str, deadline_seconds: float) -> list[user_pb2.User]:
        """All users of an inbound, in no order."""
        answer = await self._inbound_users(tag, deadline_seconds)
        return list(parsed(handler_command_pb2.GetInboundUserResponse, answer).users)

    async def _inbound_users(self, tag: str, deadline_seconds: float) -> bytes:
        request = handler_command_pb2.GetInboundUserRequest(tag=tag).SerializeToString()
        return await self._call(_HANDLER + "GetInboundUsers", request, deadline_seconds)

    async def inbound_user_count(self, tag: str, deadline_seconds: float) -> int:
        """How many users an inbound has."""
        request = handler_command_pb2.GetInboundUserRequest(tag=tag).SerializeToString()
        answer = await self._call(_HANDLER + "GetInboundUsersCount", request, deadline_seconds)
        return parsed(handler_command_pb2.GetInboundUsersCountResponse, answer).count

    # --- inbounds and outbounds

    async def list_inbounds(self, deadline_seconds: float) -> list[core_pb2.InboundHandlerConfig]:
        """The inbounds as they were configured: users that were added or removed since do not show here."""
        answer = await self._call(_HANDLER + "ListInbounds", b"", deadline_seconds)
        return list(parsed(handler_command_pb2.ListInboundsResponse, answer).inbounds)

    async def inbound_tags(self, deadline_seconds: float) -> set[str]:
        """The tags of all inbounds; the core's own API is none of them."""
        request = handler_command_pb2.ListInboundsRequest(isOnlyTags=True).SerializeToString()
        answer = await self._call(_HANDLER + "ListInbounds", request, deadline_seconds)
        return {inbound.tag for inbound in parsed(handler_command_pb2.ListInboundsResponse, answer).inbounds} - {""}

    async def add_inbound(self, config: core_pb2.InboundHandlerConfig, deadline_seconds: float) -> None:
        """Add an inbound and listen. A tag in use is ALREADY_EXISTS, a port that cannot be bound REFUSED."""
        if not config.HasField("receiver_settings") or not config.HasField("proxy_settings"):
            raise CoreApiError(f"inbound {config.tag!r} is not complete", ErrorKind.REFUSED)
        self._bare.pop(config.tag, None)
        await self._add_inbound(config, deadline_seconds)

    async def _add_inbound(self, config: core_pb2.InboundHandlerConfig, deadline_seconds: float) -> None:
        request = handler_command_pb2.AddInboundRequest(inbound=config).SerializeToString()
        await self._call(_HANDLER + "AddInbound", request, deadline_seconds)

    async def bare_inbound(self, tag: str, deadline_seconds: float) -> core_pb2.InboundHandlerConfig:
        """An inbound as it was configured, but without users. One that is not there is NO_HANDLER."""
        if tag not in self._bare:
            for inbound in await self.list_inbounds(deadline_seconds):
                message_type, field = USER_LISTS.get(inbound.proxy_settings.type, (None, ""))
                if message_type is not None:
                    settings = message_type.FromString(inbound.proxy_settings.value)
                    settings.ClearField(field)
                    inbound.proxy_settings.value = settings.SerializeToString()
                self._bare[inbound.tag] = core_pb2.InboundHandlerConfig()
                self._bare[inbound.tag].CopyFrom(inbound)
        if tag not in self._bare:
            raise CoreApiError(f"handler not found: {tag}", ErrorKind.NO_HANDLER)
        return self._bare[tag]

    async def remove_inbound(self, tag: str, deadline_seconds: float) -> None:
        """Stop listening and forget the inbound; an unknown tag is NO_HANDLER."""
        self._bare.pop(tag, None)
        await self._remove_inbound(tag, deadline_seconds)

    async def _remove_inbound(self, tag: str, deadline_seconds: float) -> None:
        request = handler_command_pb2.RemoveInboundRequest(tag=tag).SerializeToString()
        await self._call(_HANDLER + "RemoveInbound", request, deadline_seconds)

    async def list_outbounds(self, deadline_seconds: float) -> list[core_pb2.OutboundHandlerConfig]:
        """The outbounds as they were configured."""
        answer = await self._call(_HANDLER + "ListOutbounds", b"", deadline_seconds)
        return list(parsed(handler_command_pb2.ListOutboundsResponse, answer).outbounds)

    async def add_outbound(self, config: core_pb2.OutboundHandlerConfig, deadline_seconds: float) -> None:
        """Add an outbound."""
        if not config.HasField("proxy_settings"):
            raise CoreApiError(f"outbound {config.tag!r} is not complete", ErrorKind.REFUSED)
        request = handler_command_pb2.AddOutboundRequest(outbound=config).SerializeToString()
        await self._call(_HANDLER + "AddOutbound", request, deadline_seconds)

    async def remove_outbound(self, tag: str, deadline_seconds: float) -> None:
        """Remove an outbound."""
        request = handler_command_pb2.RemoveOutboundRequest(tag=tag).SerializeToString()
        await self._call(_HANDLER + "RemoveOutbound", request, deadline_seconds)

    async def swap_inbound_users(
        self,
        tag: str,
        users: Sequence[bytes],
        deadline_seconds: float,
        before: Callable[[], Awaitable[Sequence[bytes]]] | None = None,
    ) -> Sequence[bytes]:
        """Give a running inbound exactly ``users`` (serialized User messages) by removing and adding it again.

        Returns those, from the end of ``users``, that did not fit into one message to the core; the caller adds them
        with ``alter_many``. Live connections over TCP stay; the inbound does not listen for some milliseconds. If the
        core refuses the new one (a user twice, say), the old one is put back with the users it had and
        SwapFailedError is raised; ``before`` tells who these are, else the core is asked before. A Hysteria inbound is refused
        untouched (REFUSED): its clients would stall. Nothing is removed without time left, and what follows has
        ``deadline_seconds`` anew.
        """
        end = time.monotonic() + deadline_seconds
        inbound = await self.bare_inbound(tag, deadline_seconds)
        if inbound.proxy_settings.type == _NEVER_SWAPPED:
            text = f"inbound {tag!r} cannot be swapped without cutting off its clients; alter its users instead"
            raise CoreApiError(text, ErrorKind.REFUSED)
        changed, rest = with_users(inbound, users)
        if before is None:
            listed = b""
            if inbound.proxy_settings.type != _SINGLE_USER:
                listed = await self._inbound_users(tag, end - time.monotonic())
            before = _listed(listed)
        await self._remove_inbound(tag, end - time.monotonic())
        # From here on the inbound is gone: whoever gives up waiting must not leave it so.
        finish = asyncio.create_task(self._finish_swap(changed, inbound, before, deadline_seconds))
        self._finishing.add(finish)
        finish.add_done_callback(self._finishing.discard)
        await asyncio.shield(finish)
        return rest

    async def _finish_swap(
        self,
        changed: core_pb2.InboundHandlerConfig,
        inbound: core_pb2.InboundHandlerConfig,
        before: Callable[[], Awaitable[Sequence[bytes]]],
        deadline_seconds: float,
    ) -> None:
        try:
            await self._add_inbound(changed, deadline_seconds)
        except CoreApiError as error:
            restored = await self._restore(inbound, await before(), deadline_seconds)
            state = "the old one is back" if restored else "the old one could not be put back"
            text = f"{error} (inbound {inbound.tag!r}; {state})"
            raise SwapFailedError(text, error.kind, restored=restored) from None

    async def _restore(
        self, inbound: core_pb2.InboundHandlerConfig, before: Sequence[bytes], deadline_seconds: float
    ) -> bool:
        rest: Sequence[bytes] = ()
        if before:
            inbound, rest = with_users(inbound, before)
        try:
            await self._add_inbound(inbound, deadline_seconds)
        except CoreApiError:
            return False
        operations = [AlterOperation(inbound.tag, user_pb2.User.FromString(user).email, user) for user in rest]
        return not any(await self.alter_many(operations, deadline_seconds))


def _listed(answer: bytes) -> Callable[[], Awaitable[Sequence[bytes]]]:
    async def users() -> Sequence[bytes]:
        had = parsed(handler_command_pb2.GetInboundUserResponse, answer).users
        return [user.SerializeToString() for user in had]

    return users


def _followers(operations: Sequence[AlterOperation]) -> dict[int, int]:
    """Operations that have to wait for another one on the same user in the same inbound: number -> number of the next. Pure."""
    last: dict[tuple[str, str], int] = {}
    followers: dict[int, int] = {}
    for index, (tag, email, _) in enumerate(operations):
        name = (tag, email.lower())
        before = last.get(name)
        if before is not None:
            followers[before] = index
        last[name] = index
    return followers


def _is_served(path: str) -> bool:
    """Whether somebody takes connections on this unix socket; never blocks."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            return probe.connect_ex(path) in (0, errno.EAGAIN)
    except OSError:
        return False


def parsed(kind: type[_MessageT], answer: bytes) -> _MessageT:
    """The message in the core's answer. Raises CoreApiError where it is none."""
    try:
        return kind.FromString(answer)
    except DecodeError:
        raise CoreApiError(f"the core's answer is no {kind.__name__}", ErrorKind.REFUSED) from None


async def _pieces(answer: bytes) -> list[bytes]:
    return list((await asyncio.to_thread(parsed, stats_command_pb2.Pieces, answer)).piece)
