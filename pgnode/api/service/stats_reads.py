"""Statistics and who is online: read from this worker's memory, or taken from the supervisor with ``reset``."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pgnode.api.service import deadline
from pgnode.api.service.freshness import Freshness
from pgnode.api.service.ports import Commands, Reads
from pgnode.api.service.state import StateChecks
from pgnode.api.service.stats_queries import StatQueries, StatQuery
from pgnode.api.service.tracked import Answer, TrackedAnswer, TrackedResponse
from pgnode.bus import snapshots
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import Body, IndexedBlock
from pgnode.errors import CoreUnavailableError, InvalidRequestError, NotFoundError
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stat_names import INBOUNDS_NOT_COUNTED
from pgnode.wire.texts import shown

_Body = TypeVar("_Body", bound=Body)

#: Seconds that taking statistics (``reset``) may last at most; callers give up after ten.
TAKE_STATS_SECONDS = 10.0


class StatsReads:
    """The handlers of GetStats, GetUserOnlineStats and GetUserOnlineIpListStats.

    Args:
        reads: The worker's snapshots.
        commands: The way to the supervisor.
        state: Tells whether the core can be read.
        write_timeout_seconds: How long a command may take.
        queries: Parses what is asked.
        freshness: Asks for newer figures.
    """

    def __init__(
        self,
        reads: Reads,
        commands: Commands,
        state: StateChecks,
        *,
        write_timeout_seconds: float,
        queries: StatQueries | None = None,
        freshness: Freshness | None = None,
    ) -> None:
        self._reads = reads
        self._freshness = freshness if freshness is not None else Freshness(reads, commands)
        self._is_fresh = self._freshness.is_fresh
        self._commands = commands
        self._state = state
        self._core_answers = state.core_answers
        self._take_seconds = min(TAKE_STATS_SECONDS, write_timeout_seconds)
        self._queries = queries if queries is not None else StatQueries()
        self._plain_queries = self._queries.plain

    def __repr__(self) -> str:
        return f"StatsReads({self._queries})"

    def stats(self, body: bytes) -> TrackedAnswer:
        """Return StatResponse for a StatRequest; an unknown name has no statistics, which is an empty response.

        With ``reset`` the answer is a TrackedResponse, on loan until the protocol has told what became of it. Raise
        InvalidRequestError, and the UnavailableError of the state.
        """
        answer = self.stats_cached(body)
        if answer is not None:
            return answer
        query = self._queries.of(body)
        if fault := query.fault:
            raise InvalidRequestError(fault)
        if query.reset:
            return self._take(body)
        return self._read(query.snapshot, functools.partial(self._segment, query))

    def stats_cached(self, body: bytes) -> Body | None:
        """Return :meth:`stats` where the same was asked before, the core answers, and the last reading is fresh and succeeded."""
        plain = self._plain_queries.get(body)
        if plain is None or not self._core_answers() or not self._is_fresh():
            return None
        name, hashed = plain
        if name == snapshots.STATS_INBOUNDS and self._reads.inbounds_counted is False:
            return None
        block = self._reads.fresh_block(name)
        # A message that was not read yet may say that some of it was handed out, to a caller who has the answer by now.
        if block is None or self._reads.has_unheard():
            return None
        return block.body if hashed is None else block.find(hashed) or b""

    def is_tracked(self, body: bytes) -> bool:
        """Tell whether the answer of :meth:`stats` to ``body`` is a TrackedResponse, if it is not an error."""
        try:
            return self._queries.of(body).reset
        except InvalidRequestError:
            return False

    def user_online(self, body: bytes) -> Answer:
        """Return OnlineStatResponse: the number of addresses. Raise NotFoundError for a user who is not online."""
        return self._read(snapshots.ONLINE, functools.partial(self._count, self._online_name(body)))

    def user_online_ips(self, body: bytes) -> Answer:
        """Return StatsOnlineIpListResponse. Raise NotFoundError for a user who is not online."""
        return self._read(snapshots.ONLINE, functools.partial(self._addresses, self._online_name(body)))

    def _read(self, name: str, answer: Callable[[], _Body]) -> _Body | Awaitable[_Body]:
        """Return ``answer()``, at once where the snapshot of that name is fresh, else when there is news of it."""
        if not self._core_answers():
            return self._after_refresh(name, answer)
        reads = self._reads
        if self._is_fresh() and not (reads.is_void(name) or reads.is_behind(name) or reads.has_unheard()):
            return answer()
        return self._when_fresh(name, answer)

    async def _after_refresh(self, name: str, answer: Callable[[], _Body]) -> _Body:
        core_answers = await self._state.after_refresh(self._core_answers)
        return await self._when_fresh(name, answer) if core_answers else answer()

    async def _when_fresh(self, name: str, answer: Callable[[], _Body]) -> _Body:
        if not await self._freshness.wait(name):
            raise CoreUnavailableError("failed to get stats: they are being made anew after a reset, try again")
        return answer()

    async def _take(self, body: bytes) -> TrackedResponse:
        timeout_seconds = deadline.remaining(self._take_seconds)
        return TrackedResponse(*await self._commands.lend(Kind.TAKE_STATS, body, timeout_seconds))

    def _segment(self, query: StatQuery) -> Body:
        block = self._block(query.snapshot)
        found = (block.find(query.hashed) or b"") if query.single else block.body
        if query.snapshot == snapshots.STATS_INBOUNDS and self._reads.inbounds_counted is False:
            self._freshness.ask_for_inbounds()
            if query.single and not found:
                raise NotFoundError(INBOUNDS_NOT_COUNTED)
        return found

    def _block(self, name: str) -> IndexedBlock:
        """Return a snapshot, or raise why there is none to be told."""
        self._state.require_core("failed to get stats")
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

    def _addresses(self, name: str) -> bytes:
        """Return the user's StatsOnlineIpListResponse."""
        segment = self._block(snapshots.ONLINE).get(name)
        if segment is None:
            raise NotFoundError(f"online entry of user {shown(name)} not found")
        return segment

    def _count(self, name: str) -> bytes:
        entry = pb.StatsOnlineIpListResponse.FromString(self._addresses(name))
        return pb.OnlineStatResponse(name=entry.name or name, value=len(entry.ips)).SerializeToString()
