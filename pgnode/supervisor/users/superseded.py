"""Users who were changed while a bulk change that had come before was still being read. Pure.

Their changes are answered first but were asked for later, so the bulk change leaves them as they are. That has to hold too when
the supervisor dies before its users are the desired ones: then its command comes again. So these users are stored together with
their changes, under the id of that command.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from pgnode.store.changes import Journal


class Superseded:
    """By e-mail in lower case, for the one bulk change that is being read. Belongs to the supervisor's loop.

    Args:
        journal: Where changes are noted that are to be stored.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        #: The command of the bulk change; "" for none.
        self._command = ""
        self._keys: set[str] = set()
        self._reading = False

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"Superseded({len(self._keys)} users, of {self._command or 'nothing'})"

    @property
    def reading(self) -> bool:
        """Whether a bulk change is being read now."""
        return self._reading

    @property
    def keys(self) -> Set[str]:
        """Users who were changed since; grows."""
        return self._keys

    def restore(self, stored: Mapping[str, str]) -> None:
        """Take over what the store holds: key -> the command that was superseded."""
        for key, command in stored.items():
            self._command = command
            self._keys.add(key)

    def begin(self, command: str) -> None:
        """Note that users of this command are read from now on. If it came before, those who were changed since are known."""
        if command != self._command:
            self.end()
            self._command = command
        self._reading = True

    def add(self, keys: Set[str]) -> None:
        """Note that these users were changed just now."""
        if self._command:
            new = keys - self._keys
            self._keys |= new
            self._journal.superseded.update(dict.fromkeys(new, self._command))

    def end(self) -> None:
        """Forget them: the command's users are the desired ones, or will never be."""
        self._journal.superseded.update(dict.fromkeys(self._keys))
        self._command, self._keys, self._reading = "", set(), False
