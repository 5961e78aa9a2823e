"""Users in the store as an operator's command reads them: who is desired, who was refused, and why.

The supervisor writes both hashes (:mod:`pgnode.bus.keys`); nothing here changes them.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from redis.asyncio import Redis

from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import STATE, NodeStatus
from pgnode.wire import service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Failure:
    """A user that was asked for and cannot be had."""

    email: str
    cause: str
    #: When it was refused first as it is, Unix milliseconds.
    at_ms: int
    #: The ``User`` message that was refused.
    user: bytes
    #: The core itself refused it; else the node found that it cannot work.
    by_core: bool = False

    def encode(self) -> str:
        fields = {"email": self.email, "cause": self.cause, "at_ms": self.at_ms, "by_core": self.by_core}
        return json.dumps({**fields, "user": base64.b64encode(self.user).decode()})

    @classmethod
    def decode(cls, text: str | bytes) -> Failure:
        """Raises ValueError, KeyError or TypeError for what :meth:`encode` did not make."""
        fields = json.loads(text)
        user = base64.b64decode(fields["user"])
        return cls(fields["email"], fields["cause"], int(fields["at_ms"]), user, bool(fields["by_core"]))


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """What the store says; e-mails in lower case are the keys."""

    #: None where no supervisor has written one yet.
    status: NodeStatus | None
    desired: dict[str, pb.User]
    #: How many of them the core has, if there is one.
    applied_count: int
    failed: dict[str, Failure]
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
        applied_count=int(applied or 0) if status is not None and status.state in ("running", "lingering") else 0,
        desired={key.decode(): pb.User.FromString(raw) for key, raw in desired.items()},
        config=pb.Backend.FromString(backend or b"").config,
        failed={key.decode(): Failure.decode(text) for key, text in failed.items()},
    )
