"""The supervisor's side of the command stream: takes what waits, and sends replies in one transaction with the effect.

An entry is acknowledged and deleted together with its reply, after the effect; what was not acknowledged is delivered
again, to this supervisor or to the next one. One instance per node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.connection import connect, stream_entries
from pgnode.bus.keys import GROUP, REPLIES_MAX, REPLIES_TTL_SECONDS, Keys

log = structlog.get_logger(__name__)

#: Commands taken at once.
TAKE_MAX = 2000

#: How long one look for commands blocks in Redis.
BLOCK_MS = 2000

#: How long a measured difference between Redis's clock and ours is believed.
CLOCK_SECONDS = 10.0


class CommandServer:
    """Reads the command stream. Belongs to the supervisor's loop; :meth:`take` is called by one task only."""

    def __init__(self, url: str, keys: Keys) -> None:
        self._keys = keys
        self._reader: Redis = connect(url, timeout_seconds=BLOCK_MS / 1000 + 2, connections=1)
        self._held: set[str] = set()
        self._again = True
        self._clock_offset_ms = 0.0
        self._clock_checked_at = float("-inf")

    def __repr__(self) -> str:
        return f"CommandServer({len(self._held)} held)"

    async def close(self) -> None:
        await self._reader.aclose()

    def lost_connection(self) -> None:
        """Look through what was delivered but never answered before new commands are taken."""
        self._again = True

    async def take(self) -> list[Command]:
        """Everything that waits, oldest first; an empty list after BLOCK_MS without any. Raises BUS_ERRORS.

        A malformed entry is logged, acknowledged and left out.
        """
        await self._check_clock()
        if self._again:
            await self._ensure_group()
            commands = await self._read("0")
            self._again = False
            if commands:
                return commands
        return await self._read(">")

    def now_ms(self) -> float:
        """Redis's clock, Unix milliseconds."""
        return time.time() * 1000 + self._clock_offset_ms

    def expired(self, command: Command) -> bool:
        """Nobody waits for this command's answer any more."""
        return self.now_ms() > command.expires_at_ms

    def answer(self, pipe: Pipeline, answers: Sequence[tuple[Command, Reply]]) -> None:
        """Add replies and acknowledgements to ``pipe``; call :meth:`release` when it was executed."""
        workers = set()
        for command, reply in answers:
            key = self._keys.replies(command.worker)
            pipe.xadd(key, reply.fields(command.id), maxlen=REPLIES_MAX, approximate=True)  # type: ignore[arg-type]
            workers.add(key)
        for key in workers:
            pipe.expire(key, REPLIES_TTL_SECONDS)
        entry_ids = [command.entry_id for command, _ in answers]
        if entry_ids:
            pipe.xack(self._keys.commands, GROUP, *entry_ids)
            pipe.xdel(self._keys.commands, *entry_ids)

    def release(self, commands: Iterable[Command]) -> None:
        """These were answered; or they were not, and shall be taken again."""
        self._held.difference_update(command.entry_id for command in commands)

    async def _read(self, start: str) -> list[Command]:
        try:
            answer = await self._reader.xreadgroup(
                GROUP,
                "supervisor",
                {self._keys.commands: start},
                count=TAKE_MAX,
                block=BLOCK_MS if start == ">" else None,
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._again = True  # Redis came back empty: no stream, no group
            return []
        entries = [(entry_id, fields) for entry_id, fields in stream_entries(answer) if entry_id not in self._held]
        blobs = await self._blobs([fields[b"id"].decode() for _, fields in entries if b"blob" in fields])
        commands, bad = [], []
        for entry_id, fields in entries:
            try:
                command_id = fields[b"id"].decode()
                body = blobs[command_id] if b"blob" in fields else fields[b"body"]
                command = Command(
                    entry_id=entry_id,
                    id=command_id,
                    kind=Kind(fields[b"kind"].decode()),
                    worker=fields[b"worker"].decode(),
                    budget_ms=int(fields[b"budget_ms"]),
                    body=body,
                )
            except (KeyError, ValueError) as error:
                log.warning("malformed command dropped", entry_id=entry_id, error=repr(error))
                bad.append(entry_id)
            else:
                commands.append(command)
        if bad:
            await self._reader.xack(self._keys.commands, GROUP, *bad)
            await self._reader.xdel(self._keys.commands, *bad)
        self._held.update(command.entry_id for command in commands)
        return commands

    async def _blobs(self, ids: list[str]) -> dict[str, bytes]:
        if not ids:
            return {}
        bodies: list[Any] = await self._reader.mget([self._keys.blob(command_id) for command_id in ids])
        return {command_id: body for command_id, body in zip(ids, bodies, strict=True) if body is not None}

    async def _ensure_group(self) -> None:
        try:
            await self._reader.xgroup_create(self._keys.commands, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _check_clock(self) -> None:
        if time.monotonic() - self._clock_checked_at < CLOCK_SECONDS:
            return
        seconds, microseconds = await self._reader.time()
        self._clock_offset_ms = seconds * 1000 + microseconds / 1000 - time.time() * 1000
        self._clock_checked_at = time.monotonic()
