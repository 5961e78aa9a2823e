"""Users that were asked for and cannot be had: kept apart from the desired ones, with the cause, until they can.

One is tried again when it changes, at every start and whenever a core came up anew; in between the same user gets the same
answer without a call to the core. It leaves the list when it was applied, removed, or is missing from a full set. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from pgnode.store.changes import Journal
from pgnode.store.rows import RejectedUser


class RejectedUsers:
    """By e-mail in lower case. Belongs to the supervisor's loop.

    Args:
        journal: Where changes are noted that are to be stored.
        now: Says the time, Unix seconds.
        tell: Called with the e-mail and the cause of each user who was put on the list, and how many are on it.
    """

    def __init__(
        self,
        journal: Journal,
        now: Callable[[], float],
        tell: Callable[[str, str, int], None] = lambda _email, _cause, _listed: None,
    ) -> None:
        self._journal = journal
        self._now = now
        self._tell = tell
        self._rejected: dict[str, RejectedUser] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rejected)

    def __contains__(self, key: object) -> bool:
        """Return whether a user is on the list."""
        return key in self._rejected

    def __iter__(self) -> Iterator[str]:
        """Go through the keys as they are now; the list may change meanwhile."""
        return iter(list(self._rejected))

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"RejectedUsers({len(self._rejected)} users)"

    def get(self, key: str) -> RejectedUser | None:
        """Return why and since when a user cannot be had, None where it is not on the list."""
        return self._rejected.get(key)

    def all(self) -> list[RejectedUser]:
        """Return everybody on the list."""
        return list(self._rejected.values())

    def restore(self, stored: Mapping[str, RejectedUser]) -> None:
        """Take over what the store holds."""
        self._rejected = dict(stored)

    def copy(self) -> dict[str, RejectedUser]:
        """Return the list as it is now, for :meth:`return_to`."""
        return dict(self._rejected)

    def return_to(self, rejected: Mapping[str, RejectedUser]) -> None:
        """Make the list what it was before a start that failed."""
        for key in self._rejected.keys() | rejected.keys():
            if self._rejected.get(key) != rejected.get(key):
                self._journal.rejected[key] = rejected.get(key)
        self._rejected = dict(rejected)

    def put(self, key: str, email: str, cause: str, user: bytes, *, by_core: bool) -> None:
        """Note that a user was refused; one that was refused before as it is keeps its time.

        Args:
            key: Its key.
            email: Its e-mail as the caller spelled it.
            cause: Why, for the caller and the operator.
            user: The ``User`` message that was refused.
            by_core: Whether the core refused it; else the node found that it cannot work.
        """
        known = self._rejected.get(key)
        at_ms = known.at_ms if known is not None and known.user == user else int(self._now() * 1000)
        rejected = RejectedUser(email, cause, at_ms, user, by_core)
        if rejected != known:
            self._rejected[key] = rejected
            self._journal.rejected[key] = rejected
            self._tell(email, cause, len(self._rejected))

    def drop(self, keys: Iterable[str]) -> None:
        """Take users off the list: they are fine, or not asked for any more."""
        for key in keys if self._rejected else ():
            if self._rejected.pop(key, None) is not None:
                self._journal.rejected[key] = None

    def drop_all_but(self, keys: Collection[str]) -> None:
        """Take everybody off the list whom a full set does not name."""
        self.drop([key for key in self._rejected if key not in keys])
