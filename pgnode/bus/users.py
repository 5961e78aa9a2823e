"""What a running node says of its users beside those it stored: whom the core does not have as desired.

The supervisor is asked for them: they change too quickly for a copy anywhere.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from redis.asyncio import Redis

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Kind
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import STATE, NodeStatus
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits
from pgnode.errors import NodeError

#: Seconds that the supervisor has to say whom the core does not have.
ASK_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class UserDrift:
    """Users whom the core does not have as desired, by their e-mails in lower case."""

    #: Desired, and not applied yet as they are now.
    to_add: frozenset[str]
    #: Desired no more, and not removed from the core yet.
    to_remove: frozenset[str]
    #: Those of them about whom the core did not answer: it may have them as desired.
    uncertain: frozenset[str]

    def encode(self) -> bytes:
        """Return the body of a reply."""
        return json.dumps([sorted(self.to_add), sorted(self.to_remove), sorted(self.uncertain)]).encode()

    @classmethod
    def decode(cls, body: bytes) -> UserDrift:
        """Read what :meth:`encode` made."""
        to_add, to_remove, uncertain = json.loads(body)
        return cls(frozenset(to_add), frozenset(to_remove), frozenset(uncertain))


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
    client = CommandClient(url, keys, f"operator-{secrets.token_hex(4)}", waits=waits)
    client.start()
    try:
        return UserDrift.decode(await client.call(Kind.WAITING_USERS, b"", ask_seconds))
    except NodeError:
        return None
    finally:
        await client.close()
