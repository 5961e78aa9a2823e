"""A panel's side of the REST API: protobuf over TLS, as the real panel does it, and odd requests for the tests.

The client verifies the node's certificate against the PEM it was given, offers only ``h2`` in ALPN and speaks HTTP/1.1
all the same, keeps connections, and sends a request again when a kept connection turns out dead: the habits of the
panel's own client. Nothing here is shared with the node's code but the messages, so the two check each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from google.protobuf.message import Message

from pgnode.testing.connection import Connection, LogViewer, NoAnswerError, Response
from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint

#: Whoever calls a node needs these, too.
__all__ = [
    "PROTOBUF",
    "USERS_PER_CHUNK",
    "Auth",
    "NoAnswerError",
    "PanelClient",
    "PanelError",
    "Response",
    "Traffic",
    "chunk_frames",
    "frame",
]

MessageType = TypeVar("MessageType", bound=Message)
Auth = Literal["x-api-key", "bearer", "none"]

#: The panel's own time limit for every call but syncs.
CALL_TIMEOUT_SECONDS = 10.0
#: The panel's own time limit for syncs; generous here, since a demo may run on a slow machine.
SYNC_TIMEOUT_SECONDS = 60.0
#: How long the panel keeps an idle connection.
KEEP_ALIVE_SECONDS = 15.0
#: Longest response head and longest log line that are taken.
_MAX_LINE_BYTES = 1024 * 1024
#: How many users the panel puts into one chunk.
USERS_PER_CHUNK = 100

PROTOBUF = "application/x-protobuf"


class PanelError(Exception):
    """The node answered with an error. ``str(error)`` is "<status> <code>: <text>"."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.status = response.status
        self.code, self.text = _error_of(response)
        super().__init__(f"{self.status} {self.code}: {self.text}")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a user's counters say, in bytes."""

    uplink_bytes: int
    downlink_bytes: int


def _error_of(response: Response) -> tuple[str, str]:
    """(code, text) of an error; a body of another form shows as it is under an empty code."""
    if "x-error-code" in response.headers:
        return response.headers["x-error-code"], response.body.decode("utf-8", "replace")
    try:
        body = json.loads(response.body)
        return str(body["code"]), str(body["error"])
    except (ValueError, KeyError, TypeError):
        return "", response.body.decode("utf-8", "replace")


def frame(message: Message) -> bytes:
    """One frame of a chunked sync: varint length, then the message."""
    data = message.SerializeToString()
    return varint.encode(len(data)) + data


def chunk_frames(users: Sequence[pb.User], users_per_chunk: int = USERS_PER_CHUNK) -> list[bytes]:
    """Return the frames of a chunked sync of ``users``; the last one is marked as last, also when there are no users."""
    parts = [users[i : i + users_per_chunk] for i in range(0, len(users), users_per_chunk)] or [[]]
    return [
        frame(pb.UsersChunk(users=part, index=index, last=index == len(parts) - 1)) for index, part in enumerate(parts)
    ]


class PanelClient:
    """The panel. ``async with PanelClient(...) as panel:``; calls may run concurrently.

    Errors of the node are PanelError, a missing answer is NoAnswerError, a connection that cannot be made OSError.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ca_file: Path,
        api_key: str,
        auth: Auth = "x-api-key",
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        self.host = host
        self.port = port
        self.api_key = api_key
        self.auth = auth
        self.timeout_seconds = timeout_seconds
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._tls.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 and newer, and with them the panel, demand
        self._tls.set_alpn_protocols(["h2"])
        self._idle: list[Connection] = []

    async def __aenter__(self) -> PanelClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close kept connections."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close() for connection in idle))

    # The API, method by method.

    async def info(self) -> pb.BaseInfoResponse:
        """Ask what the node is."""
        return await self.call("GET", "/info", None, pb.BaseInfoResponse)

    async def start(
        self,
        config: Mapping[str, Any] | str,
        users: Iterable[pb.User] = (),
        *,
        exclude_inbounds: Iterable[str] = (),
        backend_type: pb.BackendType = pb.XRAY,
        timeout_seconds: float = SYNC_TIMEOUT_SECONDS,
    ) -> pb.BaseInfoResponse:
        """Start the node with a core's config (JSON text, or an object that becomes it)."""
        text = config if isinstance(config, str) else json.dumps(config)
        backend = pb.Backend(type=backend_type, config=text, users=users, exclude_inbounds=exclude_inbounds)
        return await self.call("POST", "/start", backend, pb.BaseInfoResponse, timeout_seconds=timeout_seconds)

    async def stop(self) -> None:
        """Stop the node."""
        await self.call("PUT", "/stop", pb.Empty(), pb.Empty)

    async def system_stats(self) -> pb.SystemStatsResponse:
        """Ask for the figures of the machine."""
        return await self.call("GET", "/stats/system", None, pb.SystemStatsResponse)

    async def backend_stats(self) -> pb.BackendStatsResponse:
        """Return the panel's health probe."""
        return await self.call("GET", "/stats/backend", None, pb.BackendStatsResponse)

    async def stats(self, kind: pb.StatType, name: str = "", *, reset: bool = False) -> list[pb.Stat]:
        """GET /stats, with the request in the body of the GET."""
        request = pb.StatRequest(name=name, reset=reset, type=kind)
        return list((await self.call("GET", "/stats", request, pb.StatResponse)).stats)

    async def traffic(self, email: str, *, reset: bool = False) -> Traffic:
        """One user's counters; zero for a user without any."""
        try:
            stats = await self.stats(pb.UserStat, email, reset=reset)
        except PanelError as error:
            if error.status != 404:
                raise
            stats = []
        values = {stat.type: stat.value for stat in stats}
        return Traffic(values.get("uplink", 0), values.get("downlink", 0))

    async def online(self, email: str) -> int:
        """How many addresses a user is online from; 0 where the node answers 404."""
        try:
            answer = await self.call("GET", "/stats/user/online", pb.StatRequest(name=email), pb.OnlineStatResponse)
        except PanelError as error:
            if error.status == 404:
                return 0
            raise
        return answer.value

    async def online_addresses(self, email: str) -> dict[str, int]:
        """Return the addresses a user is online from, with when they were last seen (Unix seconds); empty on a 404."""
        request = pb.StatRequest(name=email)
        try:
            answer = await self.call("GET", "/stats/user/online_ip", request, pb.StatsOnlineIpListResponse)
        except PanelError as error:
            if error.status == 404:
                return {}
            raise
        return dict(answer.ips)

    async def sync_user(self, user: pb.User) -> None:
        """Add or change one user; with empty ``inbounds``, remove it."""
        await self.call("PUT", "/user/sync", user, pb.Empty, timeout_seconds=SYNC_TIMEOUT_SECONDS)

    async def sync_users(self, users: Iterable[pb.User]) -> None:
        """Make the node's users exactly these."""
        await self.call("PUT", "/users/sync", pb.Users(users=users), pb.Empty, timeout_seconds=SYNC_TIMEOUT_SECONDS)

    async def sync_chunked(self, users: Sequence[pb.User], users_per_chunk: int = USERS_PER_CHUNK) -> None:
        """Add, change or (empty ``inbounds``) remove the users listed; all others stay as they are."""
        await self.send_chunks("/users/sync/chunked", chunk_frames(users, users_per_chunk))

    async def send_chunks(self, path: str, chunks: Iterable[bytes]) -> None:
        """PUT a body with ``Transfer-Encoding: chunked``; each of ``chunks`` becomes one HTTP chunk."""
        response = await self.request("PUT", path, chunks=chunks, timeout_seconds=SYNC_TIMEOUT_SECONDS)
        if response.status != 200:
            raise PanelError(response)

    @contextlib.asynccontextmanager
    async def logs(self, headers: Mapping[str, str] | None = None) -> AsyncIterator[LogViewer]:
        """Open the log stream on a connection of its own."""
        connection = await self.connect()
        try:
            connection.send(self.head("GET", "/logs", headers or {}))
            status, answer = await connection.read_head(self.timeout_seconds)
            if status != 200:
                raise PanelError(await connection.read_body(status, answer, self.timeout_seconds))
            yield LogViewer(connection, answer)
        finally:
            await connection.close()

    # What they are made of.

    async def call(
        self,
        method: str,
        path: str,
        message: Message | None,
        answer: type[MessageType],
        *,
        timeout_seconds: float | None = None,
    ) -> MessageType:
        """One unary call; no message means a request without a body. PanelError unless the answer is 200."""
        body = None if message is None else message.SerializeToString()
        response = await self.request(method, path, body, timeout_seconds=timeout_seconds)
        if response.status != 200:
            raise PanelError(response)
        return answer.FromString(response.body)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        chunks: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Response:
        """Any request, with whatever answer. ``headers`` are laid over the usual ones; "" takes one out."""
        extra = dict(headers or {})
        blocks: list[bytes] = []
        if chunks is not None:
            extra = {"Content-Type": PROTOBUF, "Transfer-Encoding": "chunked"} | extra
            blocks = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk] + [b"0\r\n\r\n"]
        elif body is not None:
            extra = {"Content-Type": PROTOBUF, "Content-Length": str(len(body))} | extra
            blocks = [body]
        head = self.head(method, path, extra)
        limit = timeout_seconds or self.timeout_seconds
        connection, kept = await self._take()
        try:
            response = await connection.exchange(head, blocks, limit)
        except NoAnswerError:
            await connection.close()
            if not kept or method == "POST":
                raise
            connection = await self.connect()  # a kept connection that had died: once again, on a new one
            try:
                response = await connection.exchange(head, blocks, limit)
            except NoAnswerError:
                await connection.close()
                raise
        if connection.ended:
            await connection.close()
        else:
            self._idle.append(connection)
        return response

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Return the head of a request, authentication included; headers with an empty value are left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = {"Host": f"{host}:{self.port}"}
        if self.auth == "x-api-key":
            lines["x-api-key"] = self.api_key
        elif self.auth == "bearer":
            lines["Authorization"] = f"Bearer {self.api_key}"
        lines |= headers
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")

    async def connect(self) -> Connection:
        """Return a new connection, certificate checked. OSError (ssl.SSLError among them), TimeoutError."""
        async with asyncio.timeout(self.timeout_seconds):
            reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self._tls, limit=_MAX_LINE_BYTES)
        return Connection(reader, writer)

    async def _take(self) -> tuple[Connection, bool]:
        """Return a connection, and whether it was kept from an earlier request."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.ended and now - connection.used_at_seconds < KEEP_ALIVE_SECONDS:
                return connection, True
            await connection.close()
        return await self.connect(), False
