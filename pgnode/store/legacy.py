"""The state of pgnode 0.5 and earlier, as it was kept in Redis, read as changes to a new store. Pure.

Each of the hashes :data:`HASHES` is one kind of state. A row of ``ledger`` reads ``<total> <reported> <seen> <run>``, all whole
numbers; versions before 0.4 wrote three, and of the run its identity alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final

from pgnode.store.changes import StoreChanges
from pgnode.store.rows import TAKEN_USERS, LedgerRow, LedgerRun, LoanPart, RejectedUser
from pgnode.wire.texts import shown

#: The hashes, by their names after the prefix.
HASHES: Final = ("backend", "users", "failed", "overtaken", "routing", "ledger", "loans")

#: Where the run is among the rows of ``ledger``; no counter has this name.
_RUN: Final = b"run"

Hash = Mapping[bytes, bytes]


def changes_of(hashes: Mapping[str, Hash]) -> StoreChanges | None:
    """Read the state.

    Args:
        hashes: What Redis holds under each of :data:`HASHES`; may be empty.

    Returns:
        The state as changes to an empty store; None where there is none.

    Raises:
        ValueError: Something in it cannot be read; the text says what.
    """
    if not any(hashes.values()):
        return None
    backend = hashes["backend"]
    changes = StoreChanges(users={_key(key): raw for key, raw in hashes["users"].items()})
    changes.meta = {
        "backend": backend.get(b"config"),
        "active": int(backend.get(b"active", b"0")),
        "core_run": int(backend.get(b"core_run", b"0")),
    }
    if taken := backend.get(b"taken", b"").decode():
        changes.taken[taken] = TAKEN_USERS
    changes.superseded.update((key.decode(), command.decode()) for key, command in hashes["overtaken"].items())
    changes.routing.update((name.decode(), value.decode()) for name, value in hashes["routing"].items())
    changes.rejected.update((_key(key), _rejected(key, data)) for key, data in hashes["failed"].items())
    ledger = dict(hashes["ledger"])
    run = changes.run = _run(ledger.pop(_RUN, b"0 ").decode())
    changes.counters.update((name.decode(), _row(name, data, run.number)) for name, data in ledger.items())
    changes.loans.update((name.decode(), _loan(name, data)) for name, data in hashes["loans"].items())
    return changes


def _run(text: str) -> LedgerRun:
    number, _, identity = text.partition(" ")
    return LedgerRun(int(number), identity) if number.isdigit() else LedgerRun(1, text)


def _key(key: bytes) -> str:
    """Read the key of a user; what is no text is a damaged user, who is set aside later."""
    return key.decode(errors="replace")


def _shown(data: bytes) -> str:
    return shown(data.decode(errors="replace"))


def _row(name: bytes, data: bytes, current_run: int) -> LedgerRow:
    try:
        total, reported, seen, *run = (int(part) for part in data.split())
        return LedgerRow(total, reported, seen, run[0] if run else current_run)
    except ValueError:
        raise ValueError(f"the counter {_shown(name)} reads {_shown(data)}") from None


def _loan(name: bytes, data: bytes) -> LoanPart:
    head, _, body = data.partition(b"\n")
    try:
        loan, kind, worker = json.loads(head)
    except ValueError:
        raise ValueError(f"the loan {_shown(name)} begins with {_shown(head)}") from None
    return LoanPart(loan, kind, worker, body)


def _rejected(key: bytes, data: bytes) -> RejectedUser:
    try:
        fields = json.loads(data)
        user = base64.b64decode(fields["user"])
        return RejectedUser(fields["email"], fields["cause"], int(fields["at_ms"]), user, bool(fields["by_core"]))
    except (ValueError, KeyError, TypeError):
        # Whoever is on the list is not served anyway.
        return RejectedUser(_key(key), "what was stored of this user is damaged", 0, b"")
