"""Users as an operator's command reads them: who is desired, who was refused and why, and whom the core does not have yet.

The supervisor writes the hashes of the first two (:mod:`pgnode.bus.keys`), and nothing here changes them; it is asked for the
last, which changes too quickly for a copy in the store.
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
from pgnode.bus.state import WITH_CORE
from pgnode.errors import NodeError
from pgnode.store.rows import RejectedUser
from pgnode.wire import service_pb2 as pb

#: Seconds that the supervisor has to say whom the core does not have.
ASK_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class UserDrift:
    """Users whom the core does not have as desired, by their e-mails in lower case."""

    #: Desired, and not applied yet as they are now.
    coming: frozenset[str]
    #: Desired no more, and not removed from the core yet.
    leaving: frozenset[str]
    #: Those of them about whom the core did not answer: it may have them as desired.
    uncertain: frozenset[str]

    def encode(self) -> bytes:
        return json.dumps([sorted(self.coming), sorted(self.leaving), sorted(self.uncertain)]).encode()

    @classmethod
    def decode(cls, body: bytes) -> UserDrift:
        coming, leaving, uncertain = json.loads(body)
        return cls(frozenset(coming), frozenset(leaving), frozenset(uncertain))


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """What the store says; e-mails in lower case are the keys."""

    #: None where no supervisor has written one yet.
    status: NodeStatus | None
    desired: dict[str, pb.User]
    #: How many of them the core has, if there is one.
    applied_count: int
    failed: dict[str, RejectedUser]
    #: The config of the last start as it came, JSON; "" before the first.
    config: str


async def read_users(redis: Redis, keys: Keys) -> StoredUsers:
    """All of it, read in one transaction. Raises BUS_ERRORS."""
    pipe = redis.pipeline(transaction=True)
    pipe.hget(keys.snapshot(STATE), "body")
    pipe.hmget(keys.backend, ["applied", "config"])
    pipe.hgetall(keys.users)
    pipe.hgetall(keys.failed)
    state, (applied, backend), desired, failed = await pipe.execute()
    status = NodeStatus.decode(state) if state is not None else None
    return StoredUsers(
        status=status,
        applied_count=int(applied or 0) if status is not None and status.state in WITH_CORE else 0,
        desired={key.decode(): pb.User.FromString(raw) for key, raw in desired.items()},
        config=pb.Backend.FromString(backend or b"").config,
        failed={key.decode(): RejectedUser.decode(text) for key, text in failed.items()},
    )


async def ask_who_waits(url: str, keys: Keys) -> UserDrift | None:
    """From the supervisor of the node whose bus this is; None where it does not answer."""
    client = CommandClient(url, keys, f"operator-{secrets.token_hex(4)}")
    client.start()
    try:
        return UserDrift.decode(await client.call(Kind.WAITING_USERS, b"", ASK_SECONDS))
    except NodeError:
        return None
    finally:
        await client.close()
