"""What a node's own store holds, read beside it; and counters written into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database
from pgnode.store.reader import read_state
from pgnode.store.rows import LedgerRow, RejectedUser
from pgnode.store.state import StoredState
from pgnode.testing.node import NodeProcess
from pgnode.wire import service_pb2 as pb


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """E-mails in lower case are the keys."""

    desired: dict[str, pb.User]
    failed: dict[str, RejectedUser]
    #: The config of the last start as it came, JSON; "" before the first.
    config: str


def stored_state(node: NodeProcess) -> StoredState:
    """Everything."""
    state = read_state(node.state_dir / "state.db")
    assert state is not None
    return state


def stored_users(node: NodeProcess) -> StoredUsers:
    state = stored_state(node)
    desired = {key: pb.User.FromString(raw) for key, raw in state.users.items()}
    return StoredUsers(desired, state.rejected, pb.Backend.FromString(state.backend or b"").config)


def write_counters(node: NodeProcess, rows: Mapping[str, LedgerRow]) -> None:
    """For the next supervisor; one that runs has its own."""
    database = Database.open(node.state_dir / "state.db")
    try:
        database.write(StoreChanges(counters=dict(rows)))
    finally:
        database.close()
