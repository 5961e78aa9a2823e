"""What changed and is not in the store yet. Pure.

Whoever owns durable state writes every change of it to the :class:`Journal` at the moment of the change. A commit takes what
gathered there and writes it in one transaction; what could not be written is put back, under what came since.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from pgnode.store.rows import DepartedUser, LedgerRow, LedgerRun, LoanPart, RejectedUser

#: A value of the table ``meta``.
MetaValue = bytes | str | int


class Scope(enum.Enum):
    """Tables that are committed together. Each scope is whole in itself, so one never waits for the other to be whole.

    A change of the desired state is under way for as long as a core needs to start; statistics are stored meanwhile.
    """

    DESIRED = ("meta", "user_set", "users", "rejected", "superseded", "departed", "departed_done", "taken", "routing")
    TRAFFIC = ("run", "counters", "loans", "settled")


@dataclass(slots=True)
class StoreChanges:
    """Changed rows by table and key; the last put of a key wins, None removes the row."""

    # --- desired state ---
    #: ``backend`` (the ``Backend`` message of the start without its users), ``active`` (whether it shall run), ``core_run``,
    #: ``origin``, ``restoring`` and ``restore_errors`` (how often it was tried in vain to bring the backend back), ``write_off``
    #: (the books are of a backup), ``drain`` (what an operator asked for whose node is being drained), ``inbounds_asked``
    #: (somebody wanted statistics of inbounds).
    meta: dict[str, MetaValue | None] = field(default_factory=dict)
    #: Everybody who is desired, in place of all that was written of users before; ``users`` changed since. None: as stored.
    user_set: Mapping[str, bytes] | None = None
    #: E-mail in lower case -> ``User`` message.
    users: dict[str, bytes | None] = field(default_factory=dict)
    #: E-mail in lower case -> what was asked for and cannot be applied.
    rejected: dict[str, RejectedUser | None] = field(default_factory=dict)
    #: E-mail in lower case -> the bulk command that came before this user's change and was not taken in yet.
    superseded: dict[str, str | None] = field(default_factory=dict)
    #: E-mail in lower case -> whose connections are to be ended still.
    departed: dict[str, DepartedUser] = field(default_factory=dict)
    #: Of the users who departed all up to this generation are done with; None: as stored.
    departed_done: int | None = None
    #: Commands that were done and must not be done a second time, by id -> their kind.
    taken: dict[str, str | None] = field(default_factory=dict)
    #: ``base`` (hash of the config that was changed), ``rules`` and ``overrides`` (JSON).
    routing: dict[str, str | None] = field(default_factory=dict)
    # --- traffic ---
    #: The core run that the counters are of; None: as stored.
    run: LedgerRun | None = None
    #: Name in the core -> row of the ledger; absolute values, so writing a row twice changes nothing.
    counters: dict[str, LedgerRow | None] = field(default_factory=dict)
    #: ``<loan>:<number>`` -> part of an open loan.
    loans: dict[str, LoanPart | None] = field(default_factory=dict)
    #: Loans that ended, by id: whoever hears of one again does nothing.
    settled: dict[str, bool | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        if self.users or any(getattr(self, name) is not None for name in _WHOLE):
            return True
        return any(map(bool, _rows_of(self)))

    @property
    def rows(self) -> int:
        """How many rows there are to write, without ``user_set``."""
        return sum(map(len, _rows_of(self)))

    def add(self, newer: StoreChanges) -> None:
        """Put ``newer`` over this."""
        if newer.run is not None:
            self.run = newer.run
        if newer.departed_done is not None:
            self.departed_done = newer.departed_done
        if newer.user_set is not None:
            self.put_all_users(newer.user_set)
        for mine, theirs in zip(_rows_of(self), _rows_of(newer), strict=True):
            if theirs:
                mine.update(theirs)

    def put_all_users(self, users: Mapping[str, bytes]) -> None:
        """Put everybody who is desired in place of all changes of users so far.

        Args:
            users: Key -> ``User`` message; it must not be changed any more.
        """
        self.user_set = users
        self.users = {}


#: What is written whole, or not at all; everything else is a table of rows by key.
_WHOLE = ("run", "user_set", "departed_done")
_TABLES = tuple(part.name for part in fields(StoreChanges) if part.name not in _WHOLE)
#: The rows of all of these.
_rows_of: Callable[[StoreChanges], tuple[dict[str, Any], ...]] = attrgetter(*_TABLES)


class Journal(StoreChanges):
    """Gathers changes until a commit takes them. One per supervisor, given to whoever owns durable state."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Say how much is waiting."""
        waiting = [f"{len(rows)} {name}" for name in _TABLES if (rows := getattr(self, name))]
        if self.user_set is not None:
            waiting.insert(0, f"all {len(self.user_set)} users")
        return f"Journal({', '.join(waiting) or 'empty'})"

    def take(self, *scopes: Scope) -> StoreChanges:
        """Hand over everything in these scopes since the last take; of all scopes where none is named."""
        taken = StoreChanges()
        for scope in scopes or Scope:
            for name in scope.value:
                setattr(taken, name, getattr(self, name))
                setattr(self, name, None if name in _WHOLE else {})
        return taken
