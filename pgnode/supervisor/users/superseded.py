"""Users who were changed while a large set that had come before was still being looked at.

Their changes are answered first but were asked for later, so the set leaves them as they are. That has to hold too when the
supervisor dies before the set's users are the desired ones: then the set comes again. So these users are stored together with
their changes, under the id of the set's command.

One of them may have got a secret that the set takes away from somebody who still has it, for now: the core forgets it when that
one is changed by a further call, so who got what is known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from pgnode.store.changes import Journal
from pgnode.supervisor.users.table import UserTable


class Superseded:
    """By e-mail in lower case, for the one long change that is looked at. Belongs to the supervisor's loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        #: The command that is overtaken; "" for none.
        self._command = ""
        self._keys: set[str] = set()
        #: Hash of a secret -> which of them got it last, and perhaps gave it up again.
        self._got: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"Superseded({len(self._keys)} users, by {self._command or 'nobody'})"

    def restore(self, stored: Mapping[str, str]) -> None:
        """Take over what the store holds: key -> the command that was overtaken."""
        for key, command in stored.items():
            self._command = command
            self._keys.add(key)

    def begin(self, command: str, table: UserTable) -> set[str]:
        """Users of this command are looked at from now on. Returns those who were changed since; the set grows."""
        if command != self._command:
            self._forget()
            self._command, self._keys = command, set()
        self._got = dict(table.desired_secrets(self._keys))
        return self._keys

    def add(self, keys: Set[str], table: UserTable) -> None:
        """These were changed just now."""
        if self._command:
            self._got.update(table.desired_secrets(keys))
            new = keys - self._keys
            self._keys |= new
            self._journal.superseded.update(dict.fromkeys(new, self._command))

    def robbed(self, keys: Set[str], table: UserTable) -> set[str]:
        """Who has lost a secret in the core, or will when ``keys`` are changed to what is desired.

        Users whom the set removes are still there, so that somebody may have got what another one has. The core forgets a secret
        with the first of both who gives it up.
        """
        got = self._got
        if not got:
            return set()
        given = {secret for secret, key in table.secrets(table.differing(keys)) if got.get(secret, key) != key}
        takers = {got[secret] for secret in given}
        found = {key for secret, key in table.desired_secrets(takers) if secret in given and got[secret] == key}
        # Whoever has still, or again, what somebody got and gave up meanwhile.
        return found | {key for secret, key in table.desired_secrets(keys) if got.get(secret, key) != key}

    def end(self) -> None:
        """The command's users are the desired ones, or will never be."""
        self._forget()
        self._command, self._keys, self._got = "", set(), {}

    def _forget(self) -> None:
        self._journal.superseded.update(dict.fromkeys(self._keys))
