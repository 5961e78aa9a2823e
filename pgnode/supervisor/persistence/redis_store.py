"""The copy of the node's state in Redis: written after every change, read by a new supervisor.

Everything that belongs together is written in one transaction, with the replies that depend on it. The store may come
back empty: then it is filled again from memory. Keys: see pgnode.bus.keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from pgnode.bus.keys import Keys

#: Users or counters in one HSET: Redis is single-threaded, and nobody shall wait long behind one command.
SLICE = 5000


@dataclass(frozen=True, slots=True)
class StoredState:
    """What an earlier supervisor left."""

    #: The ``Backend`` message of the last start, without users; None when there was none.
    backend: bytes | None
    #: Whether that backend shall run: False after a stop.
    active: bool
    generation: int
    core_run: int
    users: dict[str, bytes]
    failed: dict[str, str]
    ledger: dict[str, str]
    #: Id of the last command with a long change of users that was taken in; perhaps it was not answered.
    taken: str = ""
    #: Users who were changed after another such command had come, and before it was taken in -> that command's id.
    overtaken: dict[str, str] = field(default_factory=dict)
    #: Parts of what was handed out and not settled; see pgnode.store.rows.
    loans: dict[str, bytes] = field(default_factory=dict)
    #: Fields of the routing that was changed; empty when none was.
    routing: dict[str, str] = field(default_factory=dict)


class Store:
    """Reads and writes the state; :meth:`pipeline` is where writers put what belongs together."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    def pipeline(self) -> Pipeline:
        """A transaction: all of it happens, or nothing."""
        return self._redis.pipeline(transaction=True)

    async def load(self) -> StoredState:
        """Raises BUS_ERRORS."""
        meta: dict[bytes, bytes] = await self._redis.hgetall(self._keys.backend)  # type: ignore[assignment]
        users: dict[bytes, bytes] = await self._redis.hgetall(self._keys.users)  # type: ignore[assignment]
        failed: dict[bytes, bytes] = await self._redis.hgetall(self._keys.failed)  # type: ignore[assignment]
        ledger: dict[bytes, bytes] = await self._redis.hgetall(self._keys.ledger)  # type: ignore[assignment]
        loans: dict[bytes, bytes] = await self._redis.hgetall(self._keys.loans)  # type: ignore[assignment]
        routing: dict[bytes, bytes] = await self._redis.hgetall(self._keys.routing)  # type: ignore[assignment]
        overtaken: dict[bytes, bytes] = await self._redis.hgetall(self._keys.overtaken)  # type: ignore[assignment]
        return StoredState(
            backend=meta.get(b"config"),
            active=meta.get(b"active") == b"1",
            taken=meta.get(b"taken", b"").decode(),
            generation=int(meta.get(b"generation", b"0")),
            core_run=int(meta.get(b"core_run", b"0")),
            users={key.decode(): raw for key, raw in users.items()},
            failed={key.decode(): text.decode() for key, text in failed.items()},
            ledger={name.decode(): text.decode() for name, text in ledger.items()},
            loans={name.decode(): part for name, part in loans.items()},
            routing={name.decode(): text.decode() for name, text in routing.items()},
            overtaken={key.decode(): command.decode() for key, command in overtaken.items()},
        )

    async def generation(self) -> int | None:
        """The stored generation; None in an empty store. Raises BUS_ERRORS."""
        value: bytes | None = await self._redis.hget(self._keys.backend, "generation")  # type: ignore[assignment]
        return None if value is None else int(value)

    def put_backend(self, pipe: Pipeline, *, backend: bytes | None, active: bool, core_run: int) -> None:
        fields: dict[str, bytes | int] = {"active": int(active), "core_run": core_run}
        if backend is not None:
            fields["config"] = backend
        else:
            pipe.hdel(self._keys.backend, "config")
        pipe.hset(self._keys.backend, mapping=fields)  # type: ignore[arg-type]

    def put_generation(self, pipe: Pipeline, generation: int) -> None:
        pipe.hset(self._keys.backend, "generation", str(generation))

    def raise_generation(self, pipe: Pipeline) -> int:
        """By one; returns which of the transaction's replies says what it is then."""
        at = len(pipe)
        pipe.hincrby(self._keys.backend, "generation", 1)
        return at

    def put_applied_count(self, pipe: Pipeline, count: int) -> None:
        """How many users the core has: for whoever looks from outside."""
        pipe.hset(self._keys.backend, "applied", str(count))

    def put_users(self, pipe: Pipeline, users: Mapping[str, bytes | None]) -> None:
        """``None`` removes."""
        _put(pipe, self._keys.users, users)

    async def write_ahead(self, users: Mapping[str, bytes]) -> None:
        """Put a whole set beside the one that is stored, for :meth:`take_ahead`. Raises BUS_ERRORS."""
        await self._redis.unlink(self._keys.users_next)
        items = iter(users.items())
        while part := dict(islice(items, SLICE)):
            await self._redis.hset(self._keys.users_next, mapping=part)  # type: ignore[arg-type]

    def take_ahead(self, pipe: Pipeline) -> None:
        """The set that was written ahead in place of the stored one; the transaction fails where it is not there any more."""
        # Freed by a thread of the store; what RENAME replaces would be freed while everybody waits.
        pipe.unlink(self._keys.users)
        pipe.rename(self._keys.users_next, self._keys.users)

    def drop_ahead(self, pipe: Pipeline) -> None:
        pipe.unlink(self._keys.users_next)

    def put_taken(self, pipe: Pipeline, entry_id: str) -> None:
        pipe.hset(self._keys.backend, "taken", entry_id)

    def put_overtaken(self, pipe: Pipeline, commands: Mapping[str, str]) -> None:
        _put(pipe, self._keys.overtaken, commands)

    def clear_overtaken(self, pipe: Pipeline) -> None:
        pipe.delete(self._keys.overtaken)

    def clear_users(self, pipe: Pipeline) -> None:
        pipe.delete(self._keys.users)

    def put_failed(self, pipe: Pipeline, failures: Mapping[str, str | None]) -> None:
        """``None`` removes."""
        _put(pipe, self._keys.failed, failures)

    def clear_failed(self, pipe: Pipeline) -> None:
        pipe.delete(self._keys.failed)

    def put_routing(self, pipe: Pipeline, fields: Mapping[str, str]) -> None:
        """In place of what there was; no fields remove it."""
        pipe.delete(self._keys.routing)
        if fields:
            pipe.hset(self._keys.routing, mapping=dict(fields))  # type: ignore[arg-type]

    def put_ledger(self, pipe: Pipeline, lines: Mapping[str, str | None]) -> None:
        """``None`` removes."""
        _put(pipe, self._keys.ledger, lines)

    def put_loans(self, pipe: Pipeline, parts: Mapping[str, bytes | None]) -> None:
        """``None`` removes."""
        _put(pipe, self._keys.loans, parts)

    async def alive(self, workers: Sequence[str]) -> set[str]:
        """Those of ``workers`` that said lately that they are there. Raises BUS_ERRORS."""
        pipe = self._redis.pipeline(transaction=False)
        for worker in workers:
            pipe.exists(self._keys.worker(worker))
        return {worker for worker, there in zip(workers, await pipe.execute(), strict=True) if there}


def _put(pipe: Pipeline, key: str, fields: Mapping[str, bytes | str | None]) -> None:
    gone = [name for name, value in fields.items() if value is None]
    kept = [(name, value) for name, value in fields.items() if value is not None]
    for at in range(0, len(gone), SLICE):
        pipe.hdel(key, *gone[at : at + SLICE])
    for at in range(0, len(kept), SLICE):
        pipe.hset(key, mapping=dict(kept[at : at + SLICE]))
