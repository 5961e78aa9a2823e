"""Starts, stops and changes of users: checked here, done by the supervisor.

None looks at the state first: only the supervisor's own is not out of date.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Final, TypeVar

from google.protobuf.message import Message

from pgnode.api.service import deadline, streams
from pgnode.api.service.decoding import decode
from pgnode.api.service.off_loop import THREAD_BYTES, off_loop
from pgnode.api.service.ports import Commands, Refresh
from pgnode.bus.commands import Kind
from pgnode.errors import InvalidRequestError, UnsupportedError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import users_of

_M = TypeVar("_M", bound=Message)

_NO_EMAIL: Final = "empty email: every user needs one"


class ChangeCalls:
    """The handlers of Start, Stop and the syncs of users.

    Args:
        commands: The way to the supervisor.
        refresh: Fetches newer snapshots.
        write_timeout_seconds: How long a start or a change of users may take.
        max_body_bytes: Size of all messages of one stream together.
    """

    def __init__(
        self, commands: Commands, refresh: Refresh, *, write_timeout_seconds: float, max_body_bytes: int
    ) -> None:
        self._commands = commands
        self._refresh = refresh
        self._write_seconds = write_timeout_seconds
        self._max_body_bytes = max_body_bytes

    def __repr__(self) -> str:
        return f"ChangeCalls({self._write_seconds:g} s)"

    async def start(self, body: bytes) -> bytes:
        """Return BaseInfoResponse for a Backend. Raise InvalidRequestError, UnsupportedError or StartFailedError."""
        backend = await _decode_off_loop(pb.Backend, body)
        if backend.type not in (pb.XRAY, pb.WIREGUARD):
            raise UnsupportedError(
                f"backend type {backend.type} is not supported: this node runs XRAY (0) and WIREGUARD (1)"
            )
        if not backend.config:
            raise InvalidRequestError("empty config: Backend.config must hold the core's JSON config")
        return await self._change_state(Kind.START, body)

    def stop(self, _body: bytes = b"") -> Awaitable[bytes]:
        """Return Empty."""
        return self._change_state(Kind.STOP, b"")

    async def _change_state(self, kind: Kind, body: bytes) -> bytes:
        response = await self._call(kind, body)
        # The caller's next request may come to this worker, which then has to know the new state.
        await self._refresh()
        return response

    def sync_user(self, body: bytes) -> Awaitable[bytes]:
        """Return Empty, for a User. Raise InvalidRequestError, or UsersRefusedError from the supervisor."""
        # The call that comes most often: a small body is read right here, in no coroutine of its own.
        if len(body) > THREAD_BYTES:
            return self._sync_large_user(body)
        if not decode(pb.User, body).email:
            raise InvalidRequestError(_NO_EMAIL)
        return self._commands.call(Kind.SYNC_USER, body, deadline.remaining(self._write_seconds))

    async def _sync_large_user(self, body: bytes) -> bytes:
        user = await _decode_off_loop(pb.User, body)
        if not user.email:
            raise InvalidRequestError(_NO_EMAIL)
        return await self._call(Kind.SYNC_USER, body)

    async def sync_users(self, body: bytes) -> bytes:
        """Return Empty, for Users. Raise as :meth:`sync_user`."""
        await off_loop(_check_users, body, len(body))
        return await self._call(Kind.SYNC_USERS, body)

    async def sync_users_chunked(self, body: bytes) -> bytes:
        """Return Empty, for framed UsersChunks (:mod:`pgnode.wire.framing`). Raise as :meth:`sync_user`."""
        return await self._call(Kind.SYNC_CHUNKED, await off_loop(_assemble, body, len(body)))

    async def sync_user_stream(self, messages: AsyncIterator[bytes]) -> bytes:
        """Return Empty, for a stream of User messages, which are applied as they come; an error says how far it got."""
        return await streams.apply_users(messages, self.sync_user, alone_bytes=THREAD_BYTES)

    async def sync_users_chunked_stream(self, messages: AsyncIterator[bytes]) -> bytes:
        """Return Empty, for a stream of UsersChunks; nothing is applied before it is complete."""
        return await self._call(Kind.SYNC_CHUNKED, await streams.assemble(messages, max_bytes=self._max_body_bytes))

    def _call(self, kind: Kind, body: bytes) -> Awaitable[bytes]:
        return self._commands.call(kind, body, deadline.remaining(self._write_seconds))


async def _decode_off_loop(message: type[_M], body: bytes) -> _M:
    return await off_loop(lambda data: decode(message, data), body, len(body))


def _check_users(body: bytes) -> None:
    decode(pb.Users, body)


def _assemble(body: bytes) -> bytes:
    return users_of(body).SerializeToString()
