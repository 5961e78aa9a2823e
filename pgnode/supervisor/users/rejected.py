"""Users that were asked for and cannot be had: kept apart from the desired ones, with the cause, until they can.

One is tried again when it changes, at every start and whenever a core came up anew; in between the same user gets the same
answer without a call to the core. It leaves the list when it was applied, removed, or is missing from a full set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import structlog
from redis.asyncio.client import Pipeline

from pgnode.store.rows import RejectedUser
from pgnode.supervisor.persistence.keeper import Undo
from pgnode.supervisor.persistence.redis_store import Store

log = structlog.get_logger(__name__)


class RejectedUsers:
    """By e-mail in lower case. Belongs to the supervisor's loop."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._failed: dict[str, RejectedUser] = {}
        self._unstored: set[str] = set()

    def __len__(self) -> int:
        return len(self._failed)

    def __contains__(self, key: object) -> bool:
        return key in self._failed

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._failed))

    def __repr__(self) -> str:
        return f"RejectedUsers({len(self._failed)} users)"

    def get(self, key: str) -> RejectedUser | None:
        return self._failed.get(key)

    def restore(self, stored: Mapping[str, str]) -> None:
        """Take over what the store holds."""
        for key, text in stored.items():
            try:
                self._failed[key] = RejectedUser.decode(text)
            except (ValueError, KeyError, TypeError):
                log.warning("a stored failure is not readable, and dropped", user=key)
                self._unstored.add(key)

    def copy(self) -> dict[str, RejectedUser]:
        return dict(self._failed)

    def return_to(self, failed: dict[str, RejectedUser]) -> None:
        """As they were before a start that failed."""
        self._unstored |= {
            key for key in self._failed.keys() | failed.keys() if self._failed.get(key) != failed.get(key)
        }
        self._failed = dict(failed)

    def put(self, key: str, email: str, cause: str, user: bytes, *, by_core: bool) -> None:
        """``user`` (its message) was refused. One that was refused before as it is keeps its time."""
        known = self._failed.get(key)
        at_ms = known.at_ms if known is not None and known.user == user else int(self._now() * 1000)
        failure = RejectedUser(email, cause, at_ms, user, by_core)
        if failure != known:
            self._failed[key] = failure
            self._unstored.add(key)
            log.warning("a user cannot be applied", user=email, cause=cause)

    def drop(self, keys: Iterable[str]) -> None:
        """These are fine, or not asked for any more."""
        for key in keys if self._failed else ():
            if self._failed.pop(key, None) is not None:
                self._unstored.add(key)

    def drop_all_but(self, keys: Collection[str]) -> None:
        """A full set names ``keys`` and nobody else."""
        self.drop([key for key in self._failed if key not in keys])

    # --- the copy in the store ----------------------------------------------------------------------------------

    def stage(self, pipe: Pipeline) -> Undo | None:
        unstored, self._unstored = self._unstored, set()
        if not unstored:
            return None
        texts = {key: failure.encode() if (failure := self._failed.get(key)) else None for key in unstored}
        self._store.put_failed(pipe, texts)
        return lambda: self._unstored.update(unstored)

    def stage_all(self, pipe: Pipeline) -> Undo | None:
        self._unstored = set(self._failed)
        self._store.clear_failed(pipe)
        return self.stage(pipe)
