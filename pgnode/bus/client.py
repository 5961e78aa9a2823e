"""A worker's side of the command stream: sends commands in groups, waits for their replies.

What is asked while one round trip is under way goes with the next one; at low load nothing waits (:data:`TOGETHER_MIN`).
For single changes of users the round trip is that to their answers, and what gathered meanwhile is one entry of the
stream. One instance per process; everything in it belongs to the event loop that called :meth:`CommandClient.start`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pgnode.bus.commands import GATHERED_KINDS, WORKER_FIELD, Kind, Reply, encode_command, loan_part, settlement
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import BLOB_BYTES, BLOB_TTL_SECONDS, WORKER_TTL_MS, Keys
from pgnode.bus.pipelined_redis import Args, PipelinedRedis, entries_of
from pgnode.errors import BusUnavailableError, DeadlineExceededError, NodeError
from pgnode.os_support.aio import end_tasks
from pgnode.store.rows import LoanPart

log = structlog.get_logger(__name__)

#: Commands sent in one round trip at most.
GROUP_MAX = 512

#: Single changes are gathered while others of this worker have no answer, but no more than so many: the supervisor does
#: them in groups, and two large groups cost less than ten small ones, which would be done no sooner.
GROUP_ENOUGH = 64

#: Where so many callers were answered together, most of them ask again at once. Their next changes go together, when three
#: quarters have come, or after this time for each of them, which is what a call costs all processes together; else the
#: quickest goes alone, and the others after it, which doubles the groups. Fewer callers never wait for each other.
TOGETHER_MIN = 4
TOGETHER_SECONDS_EACH = 0.00025
TOGETHER_SECONDS_MAX = 0.01

#: How long one look for replies blocks in Redis. With the client's own limit on top, a Redis that hangs is noticed
#: within three seconds.
BLOCK_MS = 700

#: Callers whose replies cannot come because Redis is away are told after this time.
AWAY_SECONDS = 2.0

#: Pause before a lost connection is tried again.
RECONNECT_SECONDS = 0.1

#: Callers whose time is up are looked for this often: one look for all is cheaper than a timer for each.
SWEEP_SECONDS = 0.5

#: How often a worker says that it is alive.
ALIVE_SECONDS = WORKER_TTL_MS / 4000

#: Seconds for one attempt to tell the supervisor what became of a loan, and between two attempts.
SETTLE_SECONDS = 5.0
SETTLE_PAUSE_SECONDS = 0.3

#: Seconds that a worker which ends gives to what it still has to tell.
LAST_WORDS_SECONDS = 2.0

#: The supervisor answers in time or not at all; this is for its answer to get here.
ANSWER_SECONDS = 1.0

#: Bytes of commands in one entry, about.
ENTRY_BYTES = 1024 * 1024


@dataclass(slots=True, eq=False)
class _Pending:
    kind: Kind
    body: bytes
    budget_seconds: float
    future: asyncio.Future[Reply]
    #: Loop time after which it is given up.
    ends_at: float
    #: A single change that was sent and has no answer.
    under_way: bool = False


class CommandClient:
    """Sends commands to the supervisor and waits for their replies."""

    def __init__(self, url: str, keys: Keys, worker: str) -> None:
        self._url = url
        self._keys = keys
        self._worker = worker
        self._worker_bytes = worker.encode()
        self._pending: dict[bytes, _Pending] = {}
        self._outgoing: deque[bytes] = deque()
        #: Ids are this and a number: unique also where two processes should have the same name.
        self._prefix = secrets.token_hex(6).encode()
        self._number = 0
        #: Single changes that were sent and have no answer.
        self._under_way = 0
        #: Those of them that have their answer by now.
        self._answered = 0
        #: So many single changes are sent together, unless it takes too long for them to come.
        self._awaited = 0
        self._patience: asyncio.TimerHandle | None = None
        #: Something else than single changes waits to be sent.
        self._urgent = False
        self._swept_at = 0.0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._settling: set[asyncio.Task[None]] = set()
        self._closed = False
        self._sender = PipelinedRedis(url)
        self._receiver = PipelinedRedis(url, timeout_seconds=BLOCK_MS / 1000 + 1.8)

    def __repr__(self) -> str:
        return f"CommandClient({self._worker}, {len(self._pending)} waiting)"

    def start(self) -> None:
        self._tasks = [asyncio.create_task(work()) for work in (self._send_loop, self._receive_loop, self._say_alive)]

    async def close(self) -> None:
        if self._settling:
            await asyncio.wait(self._settling, timeout=LAST_WORDS_SECONDS)
        self._closed = True
        await end_tasks([*self._tasks, *self._settling])
        self._fail_all(BusUnavailableError("this worker is shutting down"))
        self._sender.drop()
        self._receiver.drop()

    async def call(self, kind: Kind, body: bytes, budget_seconds: float) -> bytes:
        """Ask the supervisor and return the reply's body.

        Raises the NodeError that the supervisor answered, BusUnavailableError when Redis is away, and
        DeadlineExceededError after ``budget_seconds``.
        """
        return (await self._ask(self._new_id(), kind, body, budget_seconds)).body

    async def lend(self, kind: Kind, body: bytes, budget_seconds: float) -> tuple[bytes, Callable[[bool], None]]:
        """:meth:`call` for what is on loan: the reply's body, and a function that takes whether it reached its caller.

        That function returns at once and does nothing the second time; the supervisor is told for as long as it takes. When
        this method raises, the loan, if there is one, is given back.
        """
        command_id = self._new_id()
        loan = command_id.decode()
        try:
            reply = await self._ask(command_id, kind, body, budget_seconds)
            data = await self._parts(loan, reply.lent) if reply.lent else reply.body
        except BaseException as error:
            if not isinstance(error, NodeError) or isinstance(error, BusUnavailableError | DeadlineExceededError):
                # The supervisor may have done it all the same.
                self._settle(loan, delivered=False)
            raise
        if reply.lent is None:
            return data, lambda _delivered: None
        settled = False

        def settle(delivered: bool) -> None:
            nonlocal settled
            if not settled:
                settled = True
                self._settle(loan, delivered=delivered)

        return data, settle

    def _new_id(self) -> bytes:
        self._number += 1
        return b"%b%x" % (self._prefix, self._number)

    async def _ask(self, command_id: bytes, kind: Kind, body: bytes, budget_seconds: float) -> Reply:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        ends_at = loop.time() + budget_seconds + ANSWER_SECONDS
        self._pending[command_id] = _Pending(kind, body, budget_seconds, future, ends_at)
        self._outgoing.append(command_id)
        if kind is not Kind.SYNC_USER:
            self._urgent = True
        if self._may_send():
            self._wake.set()
        try:
            reply = await future
        finally:
            if self._pending.pop(command_id).under_way:
                self._under_way -= 1
                self._answered += 1
                if not self._under_way:
                    self._all_answered()
        if reply.error is not None:
            raise reply.error
        return reply

    def _may_send(self) -> bool:
        waiting = len(self._outgoing)
        return self._urgent or waiting >= GROUP_ENOUGH or (waiting >= max(1, self._awaited) and not self._under_way)

    def _all_answered(self) -> None:
        """No single change is under way any more."""
        answered, self._answered = self._answered, 0
        if answered >= TOGETHER_MIN and self._patience is None:
            self._awaited = min(GROUP_ENOUGH, len(self._outgoing) + answered * 3 // 4)
            patience_seconds = min(answered * TOGETHER_SECONDS_EACH, TOGETHER_SECONDS_MAX)
            self._patience = asyncio.get_running_loop().call_later(patience_seconds, self._send_anyway)
        if self._may_send():
            self._wake.set()

    def _send_anyway(self) -> None:
        self._awaited, self._patience = 0, None
        if self._may_send():
            self._wake.set()

    async def _parts(self, loan: str, count: int) -> bytes:
        """The body of a loan that is too large for the stream of replies. Raises BusUnavailableError."""
        fields = [loan_part(loan, number) for number in range(count)]
        try:
            parts: list[bytes | None] = await self._sender.execute("HMGET", self._keys.loans, *fields)
        except BUS_ERRORS as error:
            raise BusUnavailableError(f"the node's store is not reachable, try again ({error})") from None
        if None in parts:
            raise BusUnavailableError("the node's store has lost this answer, try again")
        return b"".join(LoanPart.decode(part).body for part in parts if part is not None)

    def _settle(self, loan: str, *, delivered: bool) -> None:
        if self._closed:
            return  # nobody says any more that this worker is alive, which gives the loan back
        task = asyncio.get_running_loop().create_task(self._tell_settlement(settlement(loan, delivered=delivered)))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _tell_settlement(self, body: bytes) -> None:
        """Until the supervisor has stored it: a store that is away, or comes back empty, loses no settlement."""
        said = False
        while True:
            try:
                await self.call(Kind.SETTLE, body, SETTLE_SECONDS)
                return
            except NodeError as error:
                if not said:
                    log.debug("settlement not told yet, trying on", error=error.text)
                    said = True
            await asyncio.sleep(SETTLE_PAUSE_SECONDS)

    async def _say_alive(self) -> None:
        key = self._keys.worker(self._worker)
        while True:
            with contextlib.suppress(*BUS_ERRORS):
                await self._sender.execute("SET", key, 1, "PX", WORKER_TTL_MS)
            await asyncio.sleep(ALIVE_SECONDS)

    async def _send_loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outgoing and self._may_send():
                self._urgent, self._answered = False, 0
                if self._patience is not None:
                    self._patience.cancel()
                    self._awaited, self._patience = 0, None
                group = [self._outgoing.popleft() for _ in range(min(len(self._outgoing), GROUP_MAX))]
                try:
                    await self._send(group)
                except BUS_ERRORS as error:
                    log.warning("commands not sent", count=len(group), error=str(error))
                    away = BusUnavailableError("the node's store is not reachable, try again")
                    for command_id in group:
                        self._resolve(command_id, Reply(error=away))

    async def _send(self, group: list[bytes]) -> None:
        now = asyncio.get_running_loop().time()
        commands: list[Args] = []
        entries: list[list[bytes]] = []
        size, gathering = 0, False
        for command_id in group:
            pending = self._pending.get(command_id)
            if pending is None:
                continue  # its caller has gone
            blob = len(pending.body) > BLOB_BYTES
            if blob:
                key = self._keys.blob(command_id.decode())
                commands.append(("SET", key, pending.body, "EX", BLOB_TTL_SECONDS))
            # Counted from the entry's id on: what was spent on waiting here is gone.
            budget_seconds = max(0.0, pending.ends_at - ANSWER_SECONDS - now)
            data = encode_command(pending.kind, budget_seconds, pending.body, blob=blob)
            pending.body = b""
            if pending.kind is Kind.SYNC_USER:
                pending.under_way = True
                self._under_way += 1
            gathered = pending.kind in GATHERED_KINDS
            if not (gathered and gathering and size < ENTRY_BYTES):
                entries.append([WORKER_FIELD, self._worker_bytes])
                size = 0
            entries[-1] += (command_id, data)
            size += len(data)
            gathering = gathered
        commands += [("XADD", self._keys.commands, "*", *fields) for fields in entries]
        await self._sender.pipeline(commands)

    async def _receive_loop(self) -> None:
        key = self._keys.replies(self._worker)
        last = "0-0"
        away_since: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            try:
                answer = await self._receiver.execute(
                    "XREAD", "COUNT", GROUP_MAX, "BLOCK", BLOCK_MS, "STREAMS", key, last
                )
            except BUS_ERRORS as error:
                if away_since is None:
                    away_since = loop.time()
                    log.warning("replies not reachable", error=str(error))
                hangs = isinstance(error, TimeoutError)
                if hangs or loop.time() - away_since >= AWAY_SECONDS:
                    self._fail_all(BusUnavailableError("the node's store is not reachable, try again"))
                self._receiver.drop()
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            away_since = None
            for entry_id, fields in entries_of(answer):
                last = entry_id
                for command_id, data in fields.items():
                    self._resolve(command_id, Reply.decode(data))
            self._sweep(loop.time())

    def _sweep(self, now: float) -> None:
        """Tell the callers whose time is up."""
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        for command_id, pending in list(self._pending.items()):
            if pending.ends_at <= now:
                text = f"no answer from the supervisor within {pending.budget_seconds:g} s"
                self._resolve(command_id, Reply(error=DeadlineExceededError(text)))

    def _resolve(self, command_id: bytes, reply: Reply) -> None:
        pending = self._pending.get(command_id)
        if pending is not None and not pending.future.done():
            pending.future.set_result(reply)

    def _fail_all(self, error: BusUnavailableError) -> None:
        for command_id in list(self._pending):
            self._resolve(command_id, Reply(error=error))
