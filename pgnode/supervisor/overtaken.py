"""Users who were changed while a large set that had come before was still being looked at.

Their changes are answered first but were asked for later, so the set leaves them as they are. That has to hold too when the
supervisor dies before the set's users are the desired ones: then the set comes again. So these users are stored together with
their changes, under the id of the set's command.

One of them may have got a secret that the set takes away from somebody who still has it, for now: the core forgets it when that
one is changed by a further call, so who got what is known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from redis.asyncio.client import Pipeline

from pgnode.supervisor.keeper import Undo
from pgnode.supervisor.store import Store


class Overtaken:
    """By e-mail in lower case, for the one long change that is looked at. Belongs to the supervisor's loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: The command that is overtaken; "" for none.
        self._command = ""
        self._keys: set[str] = set()
        self._unstored: set[str] = set()
        #: Hash of a secret -> which of them got it last, and perhaps gave it up again.
        self.got: dict[int, str] = {}
        #: The store may hold users that mean nothing any more.
        self._stale = False

    def __repr__(self) -> str:
        return f"Overtaken({len(self._keys)} users, by {self._command or 'nobody'})"

    def restore(self, stored: Mapping[str, str]) -> None:
        """Take over what the store holds: key -> the command that was overtaken."""
        self._stale = bool(stored)
        for key, command in stored.items():
            self._command = command
            self._keys.add(key)

    def begin(self, command: str) -> set[str]:
        """Users of this command are looked at from now on. Returns those who were changed since; the set grows."""
        if command != self._command:
            self._stale |= bool(self._keys)
            self._command, self._keys, self._unstored = command, set(), set()
        self.got = {}
        return self._keys

    def add(self, keys: Iterable[str]) -> None:
        """These were changed just now."""
        if self._command:
            new = set(keys) - self._keys
            self._keys |= new
            self._unstored |= new

    def note_got(self, secrets: Iterable[tuple[int, str]]) -> None:
        """These secrets (hash, key) are with some of them now."""
        if self._command:
            self.got.update(secrets)

    def end(self) -> None:
        """The command's users are the desired ones, or will never be."""
        self._stale |= bool(self._keys)
        self._command, self._keys, self._unstored, self.got = "", set(), set(), {}

    # --- the copy in the store ----------------------------------------------------------------------------------

    def stage(self, pipe: Pipeline) -> Undo | None:
        if not self._unstored and not self._stale:
            return None
        if self._stale:
            self._store.clear_overtaken(pipe)
            self._stale, self._unstored = False, set(self._keys)
        unstored, self._unstored = self._unstored, set()
        if unstored:
            self._store.put_overtaken(pipe, dict.fromkeys(unstored, self._command))

        def undo() -> None:
            self._stale = True

        return undo

    def stage_all(self, pipe: Pipeline) -> Undo:
        self._stale = True
        undo = self.stage(pipe)
        assert undo is not None
        return undo
