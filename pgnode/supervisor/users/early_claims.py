"""Credentials of users who are read and are not yet the desired ones, entered in the index a little at a time. Pure.

To enter those of 50,000 users takes 0.3 s: too long for the moment in which they become the desired ones. What turns out
meanwhile to be shared is settled in that moment.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence, Set

from pgnode.supervisor.users.table import UserTable


class EarlyClaims:
    """The credentials of one command's users: :meth:`add` while it is read, then :meth:`claim` or :meth:`drop`, once.

    Args:
        table: All users. Its index names these users from now on, too.
    """

    def __init__(self, table: UserTable) -> None:
        self._table = table
        self._index = table.credentials
        self._index.begin_early()
        self._over = False
        self._keys: list[str] = []
        self._numbers = array("q")

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"EarlyClaims({len(self._numbers)} credentials)"

    def add(self, key: str, numbers: Sequence[int]) -> None:
        """Note that a user will have these credentials.

        Args:
            key: The user's key.
            numbers: Their numbers.
        """
        self._numbers.extend(numbers)
        self._keys += [key] * len(numbers)
        self._index.enter_early(key, numbers)

    def asked_for(self, numbers: Set[int]) -> set[str]:
        """Return the keys of those who will have one of these credentials."""
        return {key for key, number in zip(self._keys, self._numbers, strict=True) if number in numbers}

    def claim(self) -> None:
        """Note that these users are the desired ones. What others may have, too, is contested."""
        index, pairs = self._table.credentials, zip(self._keys, self._numbers, strict=True)
        if index is not self._index:
            # Another one has taken its place, which was made without them.
            for key, number in pairs:
                index.claim(key, (number,))
        elif shared := index.shared:
            for key, number in pairs:
                if number in shared:
                    index.contest(key, number)
        self.drop()

    def drop(self) -> None:
        """Let go what is kept of them."""
        if not self._over:
            self._over = True
            self._index.end_early()
            self._keys.clear()
            self._numbers = array("q")
