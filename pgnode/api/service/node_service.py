"""The node's methods without any transport: what a call is checked for and where its answer comes from.

Every handler takes the bytes of the request's message. Reads are answered from the worker's own copy of the snapshots and
are plain functions that return the bytes of the response's message; calls that change something, or that have to be booked,
go to the supervisor and return an awaitable of those bytes, or of a :class:`TrackedResponse` answer of which the face has to
say whether it arrived. Errors are those of :mod:`pgnode.errors`.

What is ``at_once`` in the table has, beside its handler, a function ``…_at_once``: the answer where it is at hand, else
None, and then the handler knows why. A face may ask it first, and spare itself everything that waiting and refusing take.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from pgnode.api.service import deadline as budget
from pgnode.api.service import streams
from pgnode.api.service.decoding import decode
from pgnode.api.service.routing import RoutingCalls
from pgnode.api.service.stats_reads import StatQueries, StatQuery
from pgnode.api.service.tracked import Settle, TrackedResponse
from pgnode.bus import snapshots
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.snapshots import NodeStatus
from pgnode.errors import (
    BusUnavailableError,
    CoreNotStartedError,
    CoreUnavailableError,
    InvalidRequestError,
    NotFoundError,
    NotInitializedError,
    UnsupportedError,
)
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import users_of

#: Bodies above this are parsed in a thread: 20 MB take the parser tens of milliseconds, in which nothing else in the
#: event loop would be answered.
THREAD_BYTES = 1_000_000

#: Seconds that taking statistics (reset) may last at most; callers give up after ten.
TAKE_STATS_SECONDS = 10.0

CORE_TYPE = "xray"

Answer = bytes | Awaitable[bytes]
Handler = Callable[[bytes], Answer]
#: Of methods that are ``booked`` in the table.
BookedAnswer = bytes | Awaitable[bytes | TrackedResponse]
BookedHandler = Callable[[bytes], BookedAnswer]

_M = TypeVar("_M", bound=Message)


class Reads(Protocol):
    """The worker's own copy of the snapshots; every access is a look-up in memory."""

    @property
    def status(self) -> NodeStatus | None:
        """The node's state, None before the first look at the store."""

    def body(self, name: str) -> bytes | None:
        """The bytes of a plain snapshot (``system``, ``backend``)."""

    def block(self, name: str) -> IndexedBlock | None:
        """An indexed snapshot (``stats.users``, ``stats.inbounds``, ``stats.outbounds``, ``online``)."""

    def fresh_block(self, name: str) -> IndexedBlock | None:
        """:meth:`block`, None also where the last reading of the core failed."""

    def age_seconds(self) -> float | None:
        """Since the core was read for the statistics; None where it was not yet."""

    def overdue(self) -> str:
        """Why the statistics are too old to be told, "" where they are not."""


class Commands(Protocol):
    """The way to the supervisor."""

    async def call(self, kind: Kind, body: bytes, budget_seconds: float) -> bytes:
        """The reply's body. Raises the supervisor's NodeError, or BusUnavailable- and DeadlineExceededError."""

    async def lend(self, kind: Kind, body: bytes, budget_seconds: float) -> tuple[bytes, Settle]:
        """As :meth:`call`, for what is on loan until the second value was called; it is given back when this raises."""


#: Looks at the store for newer snapshots; returns soon, also when the store is away, and never raises.
Refresh = Callable[[], Awaitable[None]]

#: A log line with its entry id, without a line end; None when there was nothing for a while: time for a heartbeat.
LogEntry = tuple[str, bytes] | None


class LogSource(Protocol):
    """Where viewers get log lines from."""

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[LogEntry]]:
        """The lines from now on, after a short replay. A viewer too slow for them finds ``[N lines dropped]``."""


class NodeService(RoutingCalls):
    """One object per worker that answers every method of :data:`pgnode.api.methods.METHODS`.

    ``write_timeout_seconds`` is how long a start or a change of users may take. ``node_version`` is told to callers
    until the supervisor has said its own. ``max_body_bytes`` is for all messages of one stream together.
    """

    def __init__(
        self,
        reads: Reads,
        commands: Commands,
        logs: LogSource,
        refresh: Refresh,
        *,
        write_timeout_seconds: float,
        node_version: str,
        on_call: Callable[[], None] = lambda: None,
        max_body_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._reads = reads
        #: Seconds since the core was read for the statistics; None where it was not yet.
        self.stats_age = reads.age_seconds
        self._commands: Commands = commands
        self._logs = logs
        self._refresh = refresh
        self._write_seconds = write_timeout_seconds
        self._take_stats_seconds = min(TAKE_STATS_SECONDS, write_timeout_seconds)
        self._node_version = node_version
        self._on_call = on_call
        self._max_body_bytes = max_body_bytes
        self._queries = StatQueries()
        self._plain_queries = self._queries.plain
        self._info_of: NodeStatus | None = None
        self._info = self._encode_info(None)

    def __repr__(self) -> str:
        return f"NodeService({self._reads.status})"

    def called(self) -> None:
        """Every face says so of every call that brought the key: the supervisor may want to know that the panel is there."""
        status = self._reads.status
        if status is not None and status.keep_alive_seconds:
            self._on_call()

    # Reads

    def info(self, _body: bytes = b"") -> Answer:
        """BaseInfoResponse; never fails."""
        return self._info_now() if self._core_answers() else self._after_refresh(self._info_now)

    def _info_now(self) -> bytes:
        status = self._reads.status
        if status is not self._info_of:
            self._info = self._encode_info(status)
            self._info_of = status
        return self._info

    def system_stats(self, _body: bytes = b"") -> bytes:
        """SystemStatsResponse, in every state. Raises BusUnavailableError before the first one has arrived."""
        body = self._reads.body(snapshots.SYSTEM)
        if body is None:
            # Only in a worker's first moments.
            raise BusUnavailableError("no system statistics yet: the supervisor has not sent any, try again")
        return body

    def backend_stats(self, _body: bytes = b"") -> Answer:
        """BackendStatsResponse. Raises the UnavailableError of the node's state."""
        return self._backend_stats_now() if self._core_answers() else self._after_refresh(self._backend_stats_now)

    def _backend_stats_now(self) -> bytes:
        self._require_core("failed to get sys stats")
        body = self._reads.body(snapshots.BACKEND)
        if body is None:
            raise CoreUnavailableError("failed to get sys stats: not read from the core yet")
        return body

    def stats(self, body: bytes) -> BookedAnswer:
        """StatResponse for a StatRequest; an unknown name has no statistics, which is an empty response.

        With ``reset`` it is Booked: on loan until the face has told what became of it. Raises InvalidRequestError and the
        UnavailableError of the state.
        """
        answer = self.stats_at_once(body)
        if answer is not None:
            return answer
        query = self._queries.of(body)
        if fault := query.fault:
            raise InvalidRequestError(fault)
        if query.reset:
            return self._take_stats(body)
        if self._core_answers():
            return self._piece_of_block(query)
        return self._after_refresh(functools.partial(self._piece_of_block, query))

    def stats_at_once(self, body: bytes) -> bytes | None:
        """Where the same was asked before, the core answers, and nothing has failed of late."""
        plain = self._plain_queries.get(body)
        if plain is None or not self._core_answers():
            return None
        name, hashed = plain
        block = self._reads.fresh_block(name)
        if block is None:
            return None
        return block.body if hashed is None else block.find(hashed) or b""

    def _piece_of_block(self, query: StatQuery) -> bytes:
        block = self._block(query.snapshot)
        return (block.find(query.hashed) or b"") if query.single else block.body

    def books(self, body: bytes) -> bool:
        """Whether the answer of :meth:`stats` to ``body`` is Booked, if it is not an error."""
        try:
            return self._queries.of(body).reset
        except InvalidRequestError:
            return False

    async def _take_stats(self, body: bytes) -> TrackedResponse:
        return TrackedResponse(
            *await self._commands.lend(Kind.TAKE_STATS, body, budget.within(self._take_stats_seconds))
        )

    def user_online(self, body: bytes) -> Answer:
        """OnlineStatResponse: the number of addresses. Raises NotFoundError for who is not online."""
        name = self._online_name(body)
        return self._count(name) if self._core_answers() else self._after_refresh(lambda: self._count(name))

    def _count(self, name: str) -> bytes:
        segment = self._online(name)
        entry = pb.StatsOnlineIpListResponse.FromString(segment)
        return pb.OnlineStatResponse(name=entry.name or name, value=len(entry.ips)).SerializeToString()

    def user_online_ips(self, body: bytes) -> Answer:
        """StatsOnlineIpListResponse. Raises NotFoundError for who is not online."""
        name = self._online_name(body)
        return self._online(name) if self._core_answers() else self._after_refresh(lambda: self._online(name))

    def logs(self) -> AbstractAsyncContextManager[AsyncIterator[LogEntry]]:
        """The log, in every state, for as long as the context is entered."""
        return self._logs.watch()

    # Calls to the supervisor. None looks at the state first: only the supervisor's own is not out of date.

    async def start(self, body: bytes) -> bytes:
        """BaseInfoResponse for a Backend. Raises InvalidRequest-, Unsupported- and StartFailedError."""
        backend = await _parse(pb.Backend, body)
        if backend.type != pb.BackendType.XRAY:
            raise UnsupportedError(f"backend type {backend.type} is not supported: this node runs XRAY (0) only")
        if not backend.config:
            raise InvalidRequestError("empty config: Backend.config must hold the core's JSON config")
        return await self._change_state(Kind.START, body)

    def stop(self, _body: bytes = b"") -> Awaitable[bytes]:
        """Empty."""
        return self._change_state(Kind.STOP, b"")

    async def _change_state(self, kind: Kind, body: bytes) -> bytes:
        """The caller's next request may come to this worker, which then has to know the new state."""
        response = await self._commands.call(kind, body, budget.within(self._write_seconds))
        await self._refresh()
        return response

    async def sync_user(self, body: bytes) -> bytes:
        """Empty, for a User. Raises InvalidRequestError, and UsersRefusedError from the supervisor."""
        # The call that comes most often: a small body is read right here.
        user = decode(pb.User, body) if len(body) <= THREAD_BYTES else await _parse(pb.User, body)
        if not user.email:
            raise InvalidRequestError("empty email: a user is known by its email")
        return await self._commands.call(Kind.SYNC_USER, body, budget.within(self._write_seconds))

    async def sync_users(self, body: bytes) -> bytes:
        """Empty, for Users. Raises InvalidRequestError, and UsersRefusedError from the supervisor."""
        await _off_loop(_check_users, body)
        return await self._commands.call(Kind.SYNC_USERS, body, budget.within(self._write_seconds))

    async def sync_users_chunked(self, body: bytes) -> bytes:
        """Empty, for framed UsersChunks (:mod:`pgnode.wire.framing`). Errors as in :meth:`sync_users`."""
        users = await _off_loop(_assembled, body)
        return await self._commands.call(Kind.SYNC_CHUNKED, users, budget.within(self._write_seconds))

    # The same with a stream of messages in place of a body; an error says how far the stream got.

    async def sync_user_stream(self, messages: AsyncIterator[bytes]) -> bytes:
        """Empty, for a stream of User messages, which are applied as they come."""
        return await streams.apply_users(messages, self.sync_user, alone_bytes=THREAD_BYTES)

    async def sync_users_chunked_stream(self, messages: AsyncIterator[bytes]) -> bytes:
        """Empty, for a stream of UsersChunks; nothing is applied before it is complete."""
        users = await streams.assemble(messages, max_bytes=self._max_body_bytes)
        return await self._commands.call(Kind.SYNC_CHUNKED, users, budget.within(self._write_seconds))

    # Insides

    def _encode_info(self, status: NodeStatus | None) -> bytes:
        running = status is not None and status.state == "running"
        version = (status.node_version if status is not None else "") or self._node_version
        return pb.BaseInfoResponse(
            started=running,
            core_version=status.core_version if status is not None else "",
            node_version=version,
            version=version,
            core_type=CORE_TYPE,
            running=running,
        ).SerializeToString()

    def _core_answers(self) -> bool:
        status = self._reads.status
        return status is not None and status.state == "running" and not status.core_api_error

    async def _after_refresh(self, answer: Callable[[], bytes]) -> bytes:
        """``answer`` after a look for news: those of a start may still be on their way to this worker.

        A panel that is told "backend not initialized" right after its start would start once more.
        """
        await self._refresh()
        return answer()

    def _require_core(self, failure: str) -> None:
        """Raise what the node's state means for a read that needs the core; ``failure`` begins the text."""
        status = self._reads.status
        if status is None:
            raise BusUnavailableError("the node's state is not known yet: the supervisor has not sent it, try again")
        if status.state in ("starting", "recovering"):
            raise CoreNotStartedError
        if status.state != "running":
            raise NotInitializedError
        if status.core_api_error:
            raise CoreUnavailableError(f"{failure}: {status.core_api_error}")

    def _block(self, name: str) -> IndexedBlock:
        self._require_core("failed to get stats")
        return self._block_now(name)

    def _block_now(self, name: str) -> IndexedBlock:
        """:meth:`_block`, where the core is known to answer."""
        overdue = self._reads.overdue()
        if overdue:
            raise CoreUnavailableError(f"failed to get stats: {overdue}")
        block = self._reads.block(name)
        if block is None:
            raise CoreUnavailableError("failed to get stats: not read from the core yet")
        return block

    def _online_name(self, body: bytes) -> str:
        name = self._queries.of(body).name
        if not name:
            raise InvalidRequestError("empty name: StatRequest.name must hold the user's email")
        return name

    def _online(self, name: str) -> bytes:
        """The user's StatsOnlineIpListResponse."""
        segment = self._block(snapshots.ONLINE).get(name)
        if segment is None:
            raise NotFoundError(f"online entry of user '{name}' not found")
        return segment


_R = TypeVar("_R")


async def _off_loop(work: Callable[[bytes], _R], body: bytes) -> _R:
    """``work(body)``, in a thread where the body is large."""
    if len(body) > THREAD_BYTES:
        return await asyncio.to_thread(work, body)
    return work(body)


async def _parse(message: type[_M], body: bytes) -> _M:
    return await _off_loop(lambda data: decode(message, data), body)


def _check_users(body: bytes) -> None:
    decode(pb.Users, body)


def _assembled(body: bytes) -> bytes:
    return users_of(body).SerializeToString()
