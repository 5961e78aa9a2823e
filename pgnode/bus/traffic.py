"""What a running node says of its traffic beside the figures themselves: how old they are, and who is online.

An operator's command reads the figures from the store, after the supervisor stored what it counted so far.
"""

from __future__ import annotations

from redis.asyncio import Redis

from pgnode.bus.asking import ASK_SECONDS, ask
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import EMPTY, IndexedBlock
from pgnode.bus.keys import Keys
from pgnode.bus.operator_views import LiveTraffic
from pgnode.bus.snapshots import ONLINE, POLLED, STATE, NodeStatus, Polled
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits

__all__ = ["ASK_SECONDS", "LiveTraffic", "ask_to_store_traffic", "read_live_traffic"]


async def read_live_traffic(redis: Redis, keys: Keys) -> LiveTraffic | None:
    """All of it; None where no supervisor has published anything. Raises BUS_ERRORS."""
    pipe = redis.pipeline(transaction=True)
    for name in (STATE, POLLED, ONLINE):
        pipe.hget(keys.snapshot(name), "body")
    pipe.time()
    state, polled, online, (seconds, microseconds) = await pipe.execute()
    if state is None:
        return None
    found = Polled.decode(polled) if polled is not None else None
    age_seconds = found.age_seconds(seconds * 1000 + microseconds / 1000) if found is not None else None
    return LiveTraffic(NodeStatus.decode(state), found, age_seconds, IndexedBlock(online or EMPTY))


async def ask_to_store_traffic(
    url: str, keys: Keys, *, ask_seconds: float = ASK_SECONDS, waits: ClientWaits = CLIENT_WAITS
) -> bool:
    """Have the supervisor of a node store what it counted.

    Args:
        url: Address of the node's Redis.
        keys: The node's keys.
        ask_seconds: Seconds that the supervisor has.
        waits: How long to wait for what.

    Returns:
        Whether it answered.
    """
    return await ask(url, keys, Kind.STORE_TRAFFIC, ask_seconds=ask_seconds, waits=waits) is not None
