"""A worker's side of the command stream: asks the supervisor, and waits for its answers.

One instance per process; everything in it belongs to the event loop that called :meth:`CommandClient.start`. A command that is
lost with the Redis it was in is asked again, for as long as its caller waits (:mod:`pgnode.bus.reply_reader`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable

from pgnode.bus.command_sender import AWAY_TEXT, CommandSender
from pgnode.bus.commands import Kind, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import WORKER_TTL_MS, Keys
from pgnode.bus.loan_settler import LoanSettler
from pgnode.bus.ownership import Owner, decode_owner
from pgnode.bus.pending import PendingCommand, PendingCommands
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.reply_reader import ReplyReader
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits
from pgnode.errors import BusUnavailableError, DeadlineExceededError, NodeError, StoreUnavailableError
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.beats import pause_to_beat
from pgnode.os_support.lasting import keep_going

#: How often a worker says that it is alive.
ALIVE_SECONDS = WORKER_TTL_MS / 4000

#: After these errors the supervisor may hold a loan all the same.
_PERHAPS_DONE = (BusUnavailableError, DeadlineExceededError, StoreUnavailableError)


#: Bytes of a message from which on what it took is worth giving back.
LARGE_BYTES = 1024 * 1024


def _nothing_at_all() -> None:
    """Do nothing."""


class CommandClient:
    """Sends commands to the supervisor and waits for their replies.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        worker: Name of this worker, unique among all.
        node: The node that this worker belongs to; commands are refused while another one has its prefix. None: not
            asked.
        waits: How long to wait for what.
        large_ended: Called when a call with a large message has ended.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        worker: str,
        node: Owner | None = None,
        *,
        waits: ClientWaits = CLIENT_WAITS,
        large_ended: Callable[[], None] = _nothing_at_all,
    ) -> None:
        self._large_ended = large_ended
        self._keys = keys
        self._waits = waits
        self._worker = worker
        self._node = node
        #: The node that has the prefix instead.
        self._other: Owner | None = None
        #: Ids are this and a number: unique also where two processes should have the same name.
        self._prefix = secrets.token_hex(6).encode()
        self._number = 0
        self._redis = PipelinedRedis(url)
        self._blocking_redis = PipelinedRedis(url, timeout_seconds=waits.hanging_seconds)
        self._pending = PendingCommands()
        self._sender = CommandSender(self._redis, keys, worker, self._pending, waits=waits)
        self._reader = ReplyReader(
            self._blocking_redis, keys, worker, self._pending, self._sender.send_again, waits=waits
        )
        self._settler = LoanSettler(self.call)
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"CommandClient({self._worker}, {len(self._pending)} waiting)"

    def start(self) -> None:
        """Begin to send and to read, until :meth:`close`."""
        work = {"commands": self._sender.run, "replies": self._reader.run, "sign of life": self._say_alive}
        self._tasks = [asyncio.create_task(keep_going(*one)) for one in work.items()]

    async def close(self) -> None:
        """End, after a moment for what is still to be told; callers who wait are told so."""
        await self._settler.close()
        await end_tasks(self._tasks)
        self._pending.fail(BusUnavailableError("this worker is shutting down"))
        self._redis.drop()
        self._blocking_redis.drop()

    async def call(self, kind: Kind, body: bytes, budget_seconds: float) -> bytes:
        """Ask the supervisor.

        Args:
            kind: What for.
            body: The command's message.
            budget_seconds: Seconds that the caller waits.

        Returns:
            The body of the reply.

        Raises:
            NodeError: What the supervisor answered; BusUnavailableError when Redis is away, DeadlineExceededError when
                the time is up.
        """
        # The reply is awaited here rather than in one more coroutine: this is done for every change of a user.
        command, answered = self._ask(kind, body, budget_seconds)
        try:
            reply = await answered
        finally:
            self._sender.ended(command)
            if len(body) >= LARGE_BYTES:
                self._large_ended()
        if reply.error is not None:
            raise reply.error
        return await self._fetch(command.id.decode(), reply.lent) if reply.lent else reply.body

    async def lend(self, kind: Kind, body: bytes, budget_seconds: float) -> tuple[bytes, Callable[[bool], None]]:
        """Ask for what is on loan. When this raises, the loan, if there is one, is given back.

        Args:
            kind: What for.
            body: The command's message.
            budget_seconds: Seconds that the caller waits.

        Returns:
            The body of the reply, and a function that takes whether it reached its caller. That function returns at once
            and does nothing the second time; the supervisor is told for as long as it takes.

        Raises:
            NodeError: As :meth:`call` does.
        """
        command, answered = self._ask(kind, body, budget_seconds)
        loan = command.id.decode()
        try:
            try:
                reply = await answered
            finally:
                self._sender.ended(command)
            if reply.error is not None:
                raise reply.error
            data = await self._fetch(loan, reply.lent) if reply.lent else reply.body
        except BaseException as error:
            if not isinstance(error, NodeError) or isinstance(error, _PERHAPS_DONE):
                self._settler.settle(loan, delivered=False)
            raise
        return data, _nothing if reply.lent is None else self._settler.once(loan)

    def _ask(self, kind: Kind, body: bytes, budget_seconds: float) -> tuple[PendingCommand, asyncio.Future[Reply]]:
        """Begin to ask; whoever does so awaits the reply, and tells the sender of the end."""
        if self._other is not None:
            raise BusUnavailableError(
                f"another node uses REDIS_PREFIX={self._keys.prefix} ({self._other.description}): give one of them another"
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        self._number = number = self._number + 1
        answer_by = loop.time() + budget_seconds
        command = PendingCommand(
            b"%b%x" % (self._prefix, number),
            kind,
            body,
            budget_seconds,
            answer_by,
            answer_by + self._waits.answer_seconds,
            future,
        )
        self._sender.add(command)
        return command, future

    async def _fetch(self, loan: str, count: int) -> bytes:
        """Fetch the body of a loan that is too large for the stream of replies. Raises BusUnavailableError."""
        keys = [self._keys.loan_part(loan, number) for number in range(count)]
        try:
            # A caller that cannot fetch all of it gives it back, so the parts are needed only once.
            parts: list[bytes | None] = await self._redis.pipeline([("GETDEL", key) for key in keys])
        except BUS_ERRORS as error:
            raise BusUnavailableError(f"{AWAY_TEXT} ({error})") from None
        if None in parts:
            raise BusUnavailableError("the node's Redis has lost this answer, try again")
        return b"".join(part for part in parts if part is not None)

    async def _say_alive(self) -> None:
        key = self._keys.worker(self._worker)
        while True:
            with contextlib.suppress(*BUS_ERRORS):
                await self._redis.execute("SET", key, 1, "PX", WORKER_TTL_MS)
                if self._node is not None:
                    held = await self._redis.execute("GET", self._keys.owner)
                    other = decode_owner(held) if isinstance(held, bytes) else self._node
                    self._other = other if other.identity != self._node.identity else None
            await pause_to_beat(ALIVE_SECONDS)


def _nothing(_delivered: bool) -> None:
    """Do nothing."""
