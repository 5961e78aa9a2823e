"""Which workers are alive: each says so by a key that expires after a moment."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio import Redis

from pgnode.bus.keys import Keys


async def workers_alive(redis: Redis, keys: Keys, workers: Sequence[str]) -> set[str]:
    """Return those of ``workers`` that said lately that they are alive. Raises BUS_ERRORS."""
    pipe = redis.pipeline(transaction=False)
    for worker in workers:
        pipe.exists(keys.worker(worker))
    return {worker for worker, there in zip(workers, await pipe.execute(), strict=True) if there}
