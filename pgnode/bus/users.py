"""What a running node says of its users beside those it stored: whom the core does not have as desired.

The supervisor is asked for them: they change too quickly for a copy anywhere.
"""

from __future__ import annotations

from redis.asyncio import Redis

from pgnode.bus.asking import ASK_SECONDS, ask
from pgnode.bus.commands import Kind
from pgnode.bus.keys import Keys
from pgnode.bus.operator_views import UserDrift
from pgnode.bus.snapshots import STATE, NodeStatus
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits

__all__ = ["ASK_SECONDS", "UserDrift", "ask_who_waits", "read_status"]


async def read_status(redis: Redis, keys: Keys) -> NodeStatus | None:
    """Read the node's state; None where no supervisor has published one. Raises BUS_ERRORS."""
    state: bytes | None = await redis.hget(keys.snapshot(STATE), "body")  # type: ignore[assignment]
    return NodeStatus.decode(state) if state is not None else None


async def ask_who_waits(
    url: str, keys: Keys, *, ask_seconds: float = ASK_SECONDS, waits: ClientWaits = CLIENT_WAITS
) -> UserDrift | None:
    """Ask the supervisor of a node whom its core does not have as desired.

    Args:
        url: Address of the node's Redis.
        keys: The node's keys.
        ask_seconds: Seconds that the supervisor has.
        waits: How long to wait for what.

    Returns:
        What it answered; None where it does not answer.
    """
    answer = await ask(url, keys, Kind.WAITING_USERS, ask_seconds=ask_seconds, waits=waits)
    return UserDrift.decode(answer) if answer is not None else None
