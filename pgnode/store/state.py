"""What the store holds, read back. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from pgnode.store.rows import DepartedUser, LedgerRow, LedgerRun, LoanPart, RejectedUser


@dataclass(slots=True)
class StoredState:
    """Everything that an earlier supervisor left; keys as in :class:`pgnode.store.changes.StoreChanges`."""

    #: Which version's state this began with, "new" where with none; "" in a file that was just made.
    origin: str = ""
    #: The ``Backend`` message of the last start, without users; None when there was none, or the node was stopped since.
    backend: bytes | None = None
    #: The store was told of a start or a stop.
    known: bool = False
    #: Whether that backend shall run.
    active: bool = False
    #: How often in a row a supervisor began to bring that backend back, and was gone before the end of it.
    restoring: int = 0
    #: How often in a row one ended by itself over it.
    restore_errors: int = 0
    #: The books are of a backup: what a core that is found has counted may have been reported since.
    foreign_books: bool = False
    #: Number of the last core run.
    core_run: int = 0
    #: What an operator asked for whose node is being drained; "" where it is not.
    drain: str = ""
    #: Somebody asked for statistics of inbounds.
    inbounds_asked: bool = False
    users: dict[str, bytes] = field(default_factory=dict)
    #: How many of them, and of those who are gone, changed since all were written the last time.
    changed_users: int = field(default=0, compare=False)
    rejected: dict[str, RejectedUser] = field(default_factory=dict)
    superseded: dict[str, str] = field(default_factory=dict)
    departed: dict[str, DepartedUser] = field(default_factory=dict)
    #: Oldest first.
    taken: dict[str, str] = field(default_factory=dict)
    routing: dict[str, str] = field(default_factory=dict)
    run: LedgerRun | None = None
    counters: dict[str, LedgerRow] = field(default_factory=dict)
    loans: dict[str, LoanPart] = field(default_factory=dict)
    #: Oldest first.
    settled: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What the store holds in numbers, as of one moment."""

    #: Desired users, and rejected ones.
    users: int
    rejected: int
    #: Whether a config shall run.
    active: bool
    #: How often a supervisor began to bring it back, and did not come to the end of it.
    restoring: int
    core_run: int
