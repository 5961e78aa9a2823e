"""The supervisor's side of the command stream: takes what waits, and sends replies.

An entry is acknowledged and deleted together with its reply, after the effect was stored; what was not acknowledged is delivered
again, to this supervisor or to the next one. One instance per node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from pgnode.bus.commands import DONE, DONE_BYTES, Command, Reply, decode_entry
from pgnode.bus.duplicates import Duplicates
from pgnode.bus.keys import BLOB_TTL_SECONDS, GROUP, REPLIES_MAX, REPLIES_TTL_SECONDS, Keys
from pgnode.bus.pipelined_redis import PipelinedRedis, entries_of
from pgnode.bus.protocol import PROTOCOL, protocol_of
from pgnode.bus.redis_compat import Args
from pgnode.bus.stream_ids import added_at_ms
from pgnode.errors import UnavailableError

log = structlog.get_logger(__name__)

#: Entries taken at once; each may hold many commands.
TAKE_MAX = 500

#: How often the lifetime of a replies stream is set anew while it is used.
EXPIRE_AGAIN_SECONDS = 20.0

#: Seconds for which one read of commands blocks in Redis.
BLOCK_SECONDS = 2.0

#: Redis may deliver commands to a connection that has just died, since it does not know that yet: they are taken by nobody.
#: For so many seconds after one was lost that is looked for whenever commands are taken; at other times now and then.
STRAY_SECONDS = 15.0
STRAY_CHECK_SECONDS = 1.0

#: How long one look for commands blocks in Redis within STRAY_SECONDS.
STRAY_BLOCK_MS = 100

#: How long a measured difference between Redis's clock and ours is believed.
CLOCK_SECONDS = 10.0

#: Workers of another protocol of which it is remembered that they were told of.
OTHERS_MAX = 1000


class CommandServer:
    """Reads the command stream. Belongs to the supervisor's loop; :meth:`take` is called by one task only.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        owned: Whether they are this node's; while they are not, nothing is taken.
        block_seconds: Seconds for which one read of commands blocks in Redis.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        owned: Callable[[], bool] = lambda: True,
        *,
        block_seconds: float = BLOCK_SECONDS,
    ) -> None:
        self._keys = keys
        self._owned = owned
        self._block_ms = round(block_seconds * 1000)
        self._reader = PipelinedRedis(url, timeout_seconds=block_seconds + 2)
        #: When commands were looked for last, in seconds on the monotonic clock.
        self.looked_at = time.monotonic()
        self._held: set[str] = set()
        self._duplicates = Duplicates()
        #: Where to go on reading what was delivered and not answered; None when all of it was read.
        self._cursor: str | None = "0"
        self._lost = False
        self._strays_until = self._strays_checked_at = float("-inf")
        self._clock_offset_ms = 0.0
        self._clock_checked_at = float("-inf")
        #: Workers of another protocol that were told of.
        self._others: set[str] = set()
        #: Replies stream -> monotonic time at which its lifetime was set.
        self._lifetimes: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"CommandServer({len(self._held)} held)"

    async def close(self) -> None:
        """Disconnect."""
        self._reader.drop()

    def lost_connection(self) -> None:
        """Read again what was delivered but never answered, before new commands are taken."""
        self._cursor = "0"
        self._lost = True
        self._strays_until = time.monotonic() + STRAY_SECONDS
        self._lifetimes = dict.fromkeys(self._lifetimes, float("-inf"))

    @property
    def looks_again(self) -> bool:
        """What was taken last may be newer than what the next :meth:`take` brings again."""
        return self._lost

    async def take(self) -> list[Command]:
        """Take everything that waits, oldest first; an empty list after ``block_seconds`` at most without any. Raises BUS_ERRORS.

        A malformed entry is logged, acknowledged and left out.
        """
        self._lost = False
        self.looked_at = time.monotonic()
        if not self._owned():
            await asyncio.sleep(self._block_ms / 1000)
            return []
        await self._check_clock()
        await self._find_strays()
        while self._cursor is not None:
            if self._cursor == "0":
                await self._ensure_group()
            commands = await self._read(self._cursor)
            if commands:
                return commands
        return await self._read(">")

    def now_ms(self) -> float:
        """Return Redis's clock, Unix milliseconds, as long as nobody sets it; this host's may be set at any time."""
        return time.monotonic() * 1000 + self._clock_offset_ms

    def expired(self, command: Command) -> bool:
        """Return whether nobody waits for this command's answer any more."""
        return self.now_ms() > command.expires_at_ms

    def expired_among(self, commands: Sequence[Command]) -> list[Command]:
        """Return those of some commands for whose answers nobody waits any more."""
        now_ms, entry_id, added_ms = self.now_ms(), "", 0
        found: list[Command] = []
        for command in commands:
            # As Command.expires_at_ms; many are in one entry.
            if command.entry_id != entry_id:
                entry_id = command.entry_id
                added_ms = added_at_ms(entry_id)
            if now_ms > added_ms + command.budget_ms:
                found.append(command)
        return found

    def answer(self, pipe: Pipeline, answers: Sequence[tuple[Command, Reply]]) -> None:
        """Add replies and acknowledgements to a pipeline; call :meth:`release` when it was executed.

        Args:
            pipe: Takes the commands.
            answers: What was done, and stored where it has to be, with its reply.
        """
        by_worker: dict[str, dict[bytes, bytes | str]] = {}
        done: list[tuple[str, bytes]] = []
        for command, reply in answers:
            data = DONE_BYTES if reply is DONE else reply.encode()
            of_worker = by_worker.get(command.worker)
            if of_worker is None:
                of_worker = by_worker[command.worker] = {}
            of_worker[command.id.encode()] = data
            # What could not be done now may succeed when it is delivered again.
            if reply.error is None or not isinstance(reply.error, UnavailableError):
                done.append((command.id, data))
            for number, part in enumerate(reply.parts):
                pipe.set(self._keys.loan_part(command.id, number), part, ex=BLOB_TTL_SECONDS)
        self._duplicates.remember(done)
        now = time.monotonic()
        for worker, replies in by_worker.items():
            key = self._keys.replies(worker)
            pipe.xadd(key, replies, maxlen=REPLIES_MAX, approximate=True)  # type: ignore[arg-type]
            if now - self._lifetimes.get(key, float("-inf")) > EXPIRE_AGAIN_SECONDS:
                self._lifetimes[key] = now
                pipe.expire(key, REPLIES_TTL_SECONDS)
        found = dict.fromkeys([command.entry_id for command, _ in answers])
        found.update(dict.fromkeys(self._duplicates.further([command for command, _ in answers])))
        entry_ids = list(found)
        if entry_ids:
            pipe.xack(self._keys.commands, GROUP, *entry_ids)
            pipe.xdel(self._keys.commands, *entry_ids)
        blobs = [self._keys.blob(command.id) for command, _ in answers if command.blob]
        if blobs:
            pipe.unlink(*blobs)

    def release(self, commands: Iterable[Command]) -> None:
        """Forget commands that were answered, or that will be taken again."""
        gone = list(commands)
        self._held.difference_update([command.entry_id for command in gone], self._duplicates.release(gone))

    async def _read(self, start: str) -> list[Command]:
        try:
            block_ms = self._block_ms
            if time.monotonic() < self._strays_until:
                block_ms = min(block_ms, STRAY_BLOCK_MS)
            block = ("BLOCK", block_ms) if start == ">" else ()
            answer = await self._reader.execute(
                *("XREADGROUP", "GROUP", GROUP, "supervisor", "COUNT", TAKE_MAX, *block),
                *("STREAMS", self._keys.commands, start),
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            # Redis came back empty: no stream, no group.
            await self._ensure_group()
            return []
        entries = entries_of(answer)
        if start != ">" and self._cursor == start:
            self._cursor = entries[-1][0] if entries else None
        commands: list[Command] = []
        bad: list[str] = []
        for entry_id, fields in entries:
            if entry_id in self._held:
                continue
            try:
                commands += decode_entry(entry_id, fields)
            except (KeyError, ValueError) as error:
                if (theirs := _other_protocol(fields)) is not None:
                    self._tell_other(*theirs)
                    bad.append(entry_id)
                    continue
                log.warning("malformed entry of commands dropped", entry_id=entry_id, error=repr(error))
                bad.append(entry_id)
        blobs = [command for command in commands if command.blob]
        if blobs:
            lost = await self._fetch(blobs)
            commands = [command for command in commands if command not in lost]
            bad += [command.entry_id for command in lost]
        if bad:
            await self._reader.execute("XACK", self._keys.commands, GROUP, *bad)
            await self._reader.execute("XDEL", self._keys.commands, *bad)
        # What is being done, or was done, was asked again by a worker that could not know that.
        commands = await self._not_done(commands)
        self._held.update(command.entry_id for command in commands)
        return self._duplicates.hold(commands)

    def _tell_other(self, worker: str, protocol: int) -> None:
        """Say once that commands of a worker are not taken."""
        if worker not in self._others:
            if len(self._others) >= OTHERS_MAX:
                self._others.clear()
            self._others.add(worker)
            log.error(
                "a worker speaks another protocol of the bus: its commands are not taken",
                worker=worker,
                worker_protocol=protocol,
                protocol=PROTOCOL,
                do="have both of one version",
            )

    async def _find_strays(self) -> None:
        """Go back to what was delivered where that is more than what was taken."""
        now = time.monotonic()
        soon = now - self._strays_checked_at < STRAY_CHECK_SECONDS and now >= self._strays_until
        if self._cursor is not None or soon:
            return
        self._strays_checked_at = now
        # Counted before Redis counts: what is answered meanwhile was not delivered to nobody.
        taken = len(self._held)
        try:
            delivered = int((await self._reader.execute("XPENDING", self._keys.commands, GROUP))[0])
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            return
        if delivered > taken:
            log.warning("commands went to a connection that had died, taken again", count=delivered - taken)
            self._cursor = "0"

    async def _not_done(self, commands: list[Command]) -> list[Command]:
        """Answer those that were done as before, and return the others."""
        done = self._duplicates.answered(commands)
        if not done:
            return commands
        rest = [command for command in commands if command.id not in done]
        again = [command for command in commands if command.id in done]
        sent: list[Args] = [
            ("XADD", self._keys.replies(command.worker), "*", command.id, done[command.id]) for command in again
        ]
        # In a Redis that came back empty the stream begins with these, and whoever they are for may never ask again.
        workers = dict.fromkeys(command.worker for command in again)
        sent += [("EXPIRE", self._keys.replies(worker), REPLIES_TTL_SECONDS) for worker in workers]
        sent += [("UNLINK", self._keys.blob(command.id)) for command in again if command.blob]
        # An entry that holds something else, too, goes with the answer to that.
        entry_ids = {command.entry_id for command in again} - {command.entry_id for command in rest}
        if entry_ids:
            sent += [("XACK", self._keys.commands, GROUP, *entry_ids), ("XDEL", self._keys.commands, *entry_ids)]
        await self._reader.pipeline([("MULTI",), *sent, ("EXEC",)])
        return rest

    async def _fetch(self, blobs: list[Command]) -> list[Command]:
        """Give these commands their bodies; those whose body is gone are returned."""
        keys = [self._keys.blob(command.id) for command in blobs]
        lost = []
        for command, body in zip(blobs, await self._reader.execute("MGET", *keys), strict=True):
            if not isinstance(body, bytes):
                log.warning("a command without its body dropped", command=repr(command))
                lost.append(command)
            else:
                command.body = body
        return lost

    async def _ensure_group(self) -> None:
        try:
            await self._reader.execute("XGROUP", "CREATE", self._keys.commands, GROUP, "0", "MKSTREAM")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
            return
        # Redis came back empty: streams of replies that were begun anew meanwhile have no end yet.
        begun, self._lifetimes = self._lifetimes, {}
        for key in begun:
            await self._reader.execute("EXPIRE", key, REPLIES_TTL_SECONDS)

    async def _check_clock(self) -> None:
        if time.monotonic() - self._clock_checked_at < CLOCK_SECONDS:
            return
        seconds, microseconds = await self._reader.execute("TIME")
        # Where Redis's clock is set back, entry ids stay ahead of it: then commands are begun late rather than never.
        self._clock_offset_ms = int(seconds) * 1000 + int(microseconds) / 1000 - time.monotonic() * 1000
        self._clock_checked_at = time.monotonic()


def _other_protocol(fields: Mapping[bytes, bytes]) -> tuple[str, int] | None:
    """Return the worker and the protocol of an entry that is of another one; None where it is of this one, or of none."""
    for name, value in fields.items():
        found = protocol_of(name)
        if found is not None and found != PROTOCOL:
            return value.decode(errors="replace"), found
    return None
