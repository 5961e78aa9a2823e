"""The way of the workers' reports over the bus: a hash with a field for each worker."""

from __future__ import annotations

from collections.abc import Iterable

from redis.asyncio import Redis

from pgnode.bus.keys import REPORTS_TTL_SECONDS, Keys
from pgnode.bus.pipelined_redis import PipelinedRedis


class ReportWriter:
    """A worker's side. Belongs to one event loop.

    Args:
        url: Address of Redis.
        keys: The node's keys.
        worker: Name of the worker.
    """

    def __init__(self, url: str, keys: Keys, worker: str) -> None:
        self._redis = PipelinedRedis(url)
        self._key = keys.reports
        self._worker = worker

    def __repr__(self) -> str:
        return f"ReportWriter({self._worker})"

    async def write(self, report: bytes) -> None:
        """Put a report in place of the one before. Raises BUS_ERRORS."""
        await self._redis.pipeline(
            [("HSET", self._key, self._worker, report), ("EXPIRE", self._key, REPORTS_TTL_SECONDS)]
        )

    def close(self) -> None:
        """Disconnect."""
        self._redis.drop()


async def read_reports(redis: Redis, keys: Keys) -> dict[str, bytes]:
    """Return the last report of each worker, by its name. Raises BUS_ERRORS."""
    found = await redis.hgetall(keys.reports)
    return {
        worker.decode(errors="replace"): report
        for worker, report in found.items()
        if isinstance(worker, bytes) and isinstance(report, bytes)
    }


async def forget_reports(redis: Redis, keys: Keys, workers: Iterable[str]) -> None:
    """Remove the reports of workers that are no more. Raises BUS_ERRORS."""
    await redis.hdel(keys.reports, *workers)
