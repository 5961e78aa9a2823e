"""Calls whose caller sends a stream of messages: users one by one, or the chunks of one change. No transport in here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import DecodeError

from pgnode.api.service.off_loop import off_loop
from pgnode.errors import InternalError, InvalidRequestError, NodeError, TooLargeError, UsersRefusedError, from_code
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import ChunkAssembler
from pgnode.wire.texts import shown

#: Users of one stream that are on their way to the supervisor at once: as many as one round trip takes.
IN_FLIGHT = 512

#: Refused users that the error of a stream names.
NAMED_MAX = 20

#: Seconds that the end of a stream may come after its last chunk. An answer before it resets the stream, which callers
#: that are still about to end it take for a failure.
END_SECONDS = 1.0

_REFUSED = "failed to update users: "

#: Changes whose stream broke off go on without it; kept here so that they are not collected.
_detached: set[asyncio.Task[None]] = set()


class _UserStream:
    """One stream of users: what became of each."""

    def __init__(self, sync: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._sync = sync
        self.read = 0
        self.applied = 0
        self.refusals: list[str] = []
        #: The first error that ends the stream, with the user it came for.
        self.failure: NodeError | None = None
        self.running: set[asyncio.Task[None]] = set()

    def begin(self, body: bytes) -> None:
        """Start applying the next user.

        Commands keep this order: each task runs as far as the command's queue at once.
        """
        self.read += 1
        task = asyncio.create_task(self._one(self.read, body))
        for kept in (self.running, _detached):
            kept.add(task)
            task.add_done_callback(kept.discard)

    async def wait_for_at_most(self, others: int) -> None:
        """Wait until at most ``others`` are under way."""
        while len(self.running) > others:
            await asyncio.wait(self.running, return_when=asyncio.FIRST_COMPLETED)

    async def _one(self, number: int, body: bytes) -> None:
        try:
            await self._sync(body)
        except UsersRefusedError as error:
            self.refusals.append(error.text.removeprefix(_REFUSED))
        except InvalidRequestError as error:
            email = _email(body)
            if email:  # one bad user among others, whom it does not concern
                self.refusals.append(f"{email}: {error.text}")
            else:
                self._fail(error, number, email)
        except NodeError as error:
            self._fail(error, number, _email(body))
        except Exception as error:  # told to the caller like any other fault of the node
            self._fail(InternalError.of(error), number, _email(body))
        else:
            self.applied += 1

    def _fail(self, error: NodeError, number: int, email: str) -> None:
        if self.failure is None:
            self.failure = _with_note(error, f"at user {number} of the stream{f', {shown(email)}' if email else ''}")

    def raise_for_end(self) -> None:
        """Raise what the caller has to know; return where every user was applied."""
        so_far = f"{self.applied} of {self.read} users applied"
        if self.failure is not None:
            raise _with_note(self.failure, so_far)
        if self.refusals:
            more = len(self.refusals) - NAMED_MAX
            tail = f"; and {more} more" if more > 0 else ""
            raise UsersRefusedError(f"{_REFUSED}{'; '.join(self.refusals[:NAMED_MAX])}{tail} ({so_far})")


async def apply_users(
    messages: AsyncIterator[bytes], sync: Callable[[bytes], Awaitable[bytes]], *, alone_bytes: int
) -> bytes:
    """Apply users as they come.

    Refused users hold up nobody and are named at the end. Any other error ends the stream and says how far it got; so does
    an error of ``messages``. When the stream is cancelled, what was read of it is applied all the same.

    Args:
        messages: User messages.
        sync: Applies one of them.
        alone_bytes: A larger user is not begun beside others: it is read in a thread, which others would overtake.

    Returns:
        Empty, when all are applied.
    """
    users = _UserStream(sync)
    try:
        async for body in messages:
            alone = len(body) > alone_bytes
            await users.wait_for_at_most(0 if alone else IN_FLIGHT - 1)
            if users.failure is not None:
                break
            users.begin(body)
            if alone:
                await users.wait_for_at_most(0)
    except NodeError as error:
        users.failure = users.failure or error
    await users.wait_for_at_most(0)
    users.raise_for_end()
    return b""


async def assemble(messages: AsyncIterator[bytes], *, max_bytes: int, end_seconds: float = END_SECONDS) -> bytes:
    """Put a whole stream of chunks together.

    Args:
        messages: UsersChunk messages.
        max_bytes: Size of all of them together.
        end_seconds: How long the end of the stream is waited for after the last chunk.

    Returns:
        One Users message.

    Raises:
        InvalidRequestError: A message is malformed, or a chunk is missing.
        TooLargeError: They are larger than ``max_bytes``.
    """
    assembler = ChunkAssembler()
    size = number = 0
    async for body in messages:
        number += 1
        size += len(body)
        if size > max_bytes:
            raise TooLargeError(
                f"the chunks have more than {max_bytes} bytes, the most that is allowed: raise MAX_BODY_MIB"
            )
        try:
            chunk = await off_loop(pb.UsersChunk.FromString, body, len(body))
        except DecodeError:
            raise InvalidRequestError(
                f"malformed UsersChunk: message {number} of the stream is not a UsersChunk, or text in it is not UTF-8"
            ) from None
        assembler.add(chunk)
        if assembler.complete:
            await _end_of(messages, end_seconds)
            break
    return await off_loop(_merged, assembler, size)


async def _end_of(messages: AsyncIterator[bytes], seconds: float) -> None:
    """Wait a moment for the end; what comes before it is no part of the change."""
    with contextlib.suppress(TimeoutError, NodeError):
        async with asyncio.timeout(seconds):
            async for _ in messages:
                pass


def _merged(assembler: ChunkAssembler) -> bytes:
    return assembler.users().SerializeToString()


def _with_note(error: NodeError, note: str) -> NodeError:
    """Return the same error with ``note`` after its cause."""
    return from_code(error.code, f"{error.text} ({note})")


def _email(body: bytes) -> str:
    with contextlib.suppress(DecodeError):
        return pb.User.FromString(body).email
    return ""
