"""Users that were asked for and cannot be had: kept apart from the desired ones, with the cause, until they can.

One is tried again when it changes, at every start and whenever a core came up anew; in between the same user gets the same
answer without a call to the core. It leaves the list when it was applied, removed, or is missing from a full set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import structlog

from pgnode.store.changes import Journal
from pgnode.store.rows import RejectedUser

log = structlog.get_logger(__name__)


class RejectedUsers:
    """By e-mail in lower case. Belongs to the supervisor's loop."""

    def __init__(self, journal: Journal, now: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._now = now
        self._failed: dict[str, RejectedUser] = {}

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

    def restore(self, stored: Mapping[str, RejectedUser]) -> None:
        """Take over what the store holds."""
        self._failed = dict(stored)

    def copy(self) -> dict[str, RejectedUser]:
        return dict(self._failed)

    def return_to(self, failed: dict[str, RejectedUser]) -> None:
        """As they were before a start that failed."""
        for key in self._failed.keys() | failed.keys():
            if self._failed.get(key) != failed.get(key):
                self._journal.rejected[key] = failed.get(key)
        self._failed = dict(failed)

    def put(self, key: str, email: str, cause: str, user: bytes, *, by_core: bool) -> None:
        """``user`` (its message) was refused. One that was refused before as it is keeps its time."""
        known = self._failed.get(key)
        at_ms = known.at_ms if known is not None and known.user == user else int(self._now() * 1000)
        failure = RejectedUser(email, cause, at_ms, user, by_core)
        if failure != known:
            self._failed[key] = failure
            self._journal.rejected[key] = failure
            log.warning("a user cannot be applied", user=email, cause=cause)

    def drop(self, keys: Iterable[str]) -> None:
        """These are fine, or not asked for any more."""
        for key in keys if self._failed else ():
            if self._failed.pop(key, None) is not None:
                self._journal.rejected[key] = None

    def drop_all_but(self, keys: Collection[str]) -> None:
        """A full set names ``keys`` and nobody else."""
        self.drop([key for key in self._failed if key not in keys])
