"""A worker's side of the command stream: sends commands in groups, waits for their replies.

What is asked while one round trip is under way goes with the next one; at low load nothing waits. One instance per
process; everything in it belongs to the event loop that called :meth:`CommandClient.start`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from pgnode.bus.commands import Kind, Reply, new_id
from pgnode.bus.connection import BUS_ERRORS, connect, stream_entries
from pgnode.bus.keys import BLOB_BYTES, BLOB_TTL_SECONDS, Keys
from pgnode.bus.tasks import end_tasks
from pgnode.errors import BusUnavailableError, DeadlineExceededError

log = structlog.get_logger(__name__)

#: Commands sent in one round trip at most.
GROUP_MAX = 512

#: How long one look for replies blocks in Redis. With the client's own limit on top, a Redis that hangs is noticed
#: within three seconds.
BLOCK_MS = 700

#: Callers whose replies cannot come because Redis is away are told after this time.
AWAY_SECONDS = 2.0

#: Pause before a lost connection is tried again.
RECONNECT_SECONDS = 0.1


@dataclass(slots=True)
class _Pending:
    kind: Kind
    body: bytes
    budget_seconds: float
    future: asyncio.Future[Reply]


class CommandClient:
    """Sends commands to the supervisor and waits for their replies."""

    def __init__(self, url: str, keys: Keys, worker: str) -> None:
        self._url = url
        self._keys = keys
        self._worker = worker
        self._pending: dict[str, _Pending] = {}
        self._outgoing: deque[str] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sender: Redis = connect(url, connections=2)
        self._receiver: Redis = connect(url, timeout_seconds=BLOCK_MS / 1000 + 1.8, connections=1)

    def __repr__(self) -> str:
        return f"CommandClient({self._worker}, {len(self._pending)} waiting)"

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._send_loop()), asyncio.create_task(self._receive_loop())]

    async def close(self) -> None:
        await end_tasks(self._tasks)
        self._fail_all(BusUnavailableError("this worker is shutting down"))
        await self._sender.aclose()
        await self._receiver.aclose()

    async def call(self, kind: Kind, body: bytes, budget_seconds: float) -> bytes:
        """Ask the supervisor and return the reply's body.

        Raises the NodeError that the supervisor answered, BusUnavailableError when Redis is away, and
        DeadlineExceededError after ``budget_seconds``.
        """
        command_id = new_id()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[command_id] = _Pending(kind, body, budget_seconds, future)
        self._outgoing.append(command_id)
        self._wake.set()
        try:
            # The supervisor answers in time or not at all; the second more is for its answer to get here.
            async with asyncio.timeout(budget_seconds + 1):
                reply = await future
        except TimeoutError:
            raise DeadlineExceededError(f"no answer from the supervisor within {budget_seconds:g} s") from None
        finally:
            self._pending.pop(command_id, None)
        if reply.error is not None:
            raise reply.error
        return reply.body

    async def _send_loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outgoing:
                group = [self._outgoing.popleft() for _ in range(min(len(self._outgoing), GROUP_MAX))]
                try:
                    await self._send(group)
                except BUS_ERRORS as error:
                    log.warning("commands not sent", count=len(group), error=str(error))
                    away = BusUnavailableError("the node's store is not reachable, try again")
                    for command_id in group:
                        self._resolve(command_id, Reply(error=away))

    async def _send(self, group: list[str]) -> None:
        pipe = self._sender.pipeline(transaction=False)
        for command_id in group:
            pending = self._pending.get(command_id)
            if pending is None:
                continue  # its caller has gone
            fields: dict[str, bytes | str | int] = {
                "id": command_id,
                "kind": pending.kind,
                "worker": self._worker,
                "budget_ms": int(pending.budget_seconds * 1000),
            }
            if len(pending.body) > BLOB_BYTES:
                pipe.set(self._keys.blob(command_id), pending.body, ex=BLOB_TTL_SECONDS)
                fields["blob"] = 1
            else:
                fields["body"] = pending.body
            pending.body = b""
            pipe.xadd(self._keys.commands, fields)  # type: ignore[arg-type]
        await pipe.execute()

    async def _receive_loop(self) -> None:
        key = self._keys.replies(self._worker)
        last = "0-0"
        away_since: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            try:
                answer = await self._receiver.xread({key: last}, count=GROUP_MAX, block=BLOCK_MS)
            except BUS_ERRORS as error:
                if away_since is None:
                    away_since = loop.time()
                    log.warning("replies not reachable", error=str(error))
                hangs = isinstance(error, TimeoutError | RedisTimeoutError)
                if hangs or loop.time() - away_since >= AWAY_SECONDS:
                    self._fail_all(BusUnavailableError("the node's store is not reachable, try again"))
                with contextlib.suppress(*BUS_ERRORS):
                    await self._receiver.connection_pool.disconnect()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            away_since = None
            for entry_id, fields in stream_entries(answer):
                last = entry_id
                command_id, reply = Reply.from_fields(fields)
                self._resolve(command_id, reply)

    def _resolve(self, command_id: str, reply: Reply) -> None:
        pending = self._pending.get(command_id)
        if pending is not None and not pending.future.done():
            pending.future.set_result(reply)

    def _fail_all(self, error: BusUnavailableError) -> None:
        for command_id in list(self._pending):
            self._resolve(command_id, Reply(error=error))
