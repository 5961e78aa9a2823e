"""Publishes snapshots over Redis: best effort; what could not be written is written with the next ones.

A transaction that failed may have been done or not. What it held is written once more. Otherwise workers would serve the
previous revision until something changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType

import structlog
from redis.asyncio import Redis

from pgnode.bus.commands import Command, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.errors import UnavailableError
from pgnode.os_support.beats import pause_to_beat

log = structlog.get_logger(__name__)

#: Seconds between two checks whether Redis still has all snapshots.
POLL_INTERVAL_SECONDS = 1.0

#: After so many of them it is checked whether its keys are of the types that they should be.
POLLS_PER_TYPE_CHECK = 5


class SnapshotPublisher:
    """Belongs to the supervisor's loop; any of its tasks may publish.

    Args:
        redis: The bus.
        snapshots: Writes them.
        owned: Whether the keys are this node's; while they are not, nothing is written.
        keep_types: Removes keys of the node that hold something of another type, and returns them.
        poll_interval_seconds: Seconds between two checks whether Redis still has all of them.
    """

    def __init__(
        self,
        redis: Redis,
        snapshots: SnapshotWriter,
        owned: Callable[[], bool] = lambda: True,
        *,
        keep_types: Callable[[], Awaitable[list[str]]] | None = None,
        poll_interval_seconds: float = POLL_INTERVAL_SECONDS,
    ) -> None:
        self._redis = redis
        self._owned = owned
        self._keep_types = keep_types
        self._poll_interval_seconds = poll_interval_seconds
        self._snapshots = snapshots
        #: Bodies that could not be written.
        self._unwritten: dict[str, bytes] = {}
        #: How often Redis had lost some of them.
        self.refills = 0

    def __repr__(self) -> str:
        return f"SnapshotPublisher({len(self._unwritten)} unwritten)"

    def revisions(self, names: Iterable[str]) -> dict[str, int]:
        """Return the current revisions of those of these snapshots that there are."""
        return {name: found.rev for name in names if (found := self._snapshots.get(name)) is not None}

    async def publish(
        self, bodies: Mapping[str, bytes], last: Callable[[], Mapping[str, bytes]] = lambda: MappingProxyType({})
    ) -> bool:
        """Write what is new, and what is still unwritten, in one transaction.

        Args:
            bodies: Snapshot name -> body.
            last: Makes what comes after these; called when they have their revisions.

        Returns:
            Whether the bus has it.
        """
        pipe = self._redis.pipeline(transaction=True)
        # Nobody else tries them again meanwhile: they may be large.
        again, self._unwritten = self._unwritten, {}
        put: dict[str, bytes] = {}
        for name, body in {**again, **bodies}.items():
            if not self._is_last(name, body):
                if name not in bodies:
                    continue  # something newer was written meanwhile
            elif name not in again:
                continue
            put[name] = body
            self._snapshots.put(pipe, name, body)
        for name, body in last().items():
            put[name] = body
            self._snapshots.put(pipe, name, body)
        if not self._owned():
            self._unwritten |= put
            return False
        try:
            await pipe.execute()
        except BUS_ERRORS as error:
            log.debug("snapshots not written, will be done again", names=list(put), error=str(error))
            self._unwritten |= {name: body for name, body in put.items() if self._is_last(name, body)}
            return False
        self._snapshots.published()
        return True

    async def bring(self, command: Command) -> Reply:
        """Write a large snapshot where workers on other hosts can fetch it.

        Args:
            command: Its body is the name of the snapshot.

        Returns:
            The revision that is there.

        Raises:
            UnavailableError: Redis does not take it.
        """
        try:
            rev = await self._snapshots.bring(self._redis, command.body.decode(errors="replace"))
        except BUS_ERRORS as error:
            raise UnavailableError(f"the snapshot was not brought: {error}") from None
        return Reply(b"%d" % rev)

    async def keep(self) -> None:
        """Write again whatever Redis loses; until cancelled."""
        polls = 0
        while True:
            await pause_to_beat(self._poll_interval_seconds)
            polls += 1
            try:
                if polls % POLLS_PER_TYPE_CHECK == 0:
                    await self._look_at_types()
                if missing := await self._snapshots.write_missing(self._redis):
                    self.refills += 1
                    log.info("snapshots were lost and are written again", names=missing)
            except BUS_ERRORS as error:
                log.debug("snapshots not looked at", error=str(error))

    async def _look_at_types(self) -> None:
        if self._keep_types is not None and self._owned() and (removed := await self._keep_types()):
            log.warning("keys of the bus held something else, removed; who else writes to them?", keys=removed)

    def _is_last(self, name: str, body: bytes) -> bool:
        """Whether nothing else was put after it."""
        last = self._snapshots.get(name)
        return last is not None and last.has(body)
