"""Whom the core does not have as desired, as the operator is told."""

from __future__ import annotations

from pgnode.bus.operator_views import UserDrift
from pgnode.store.changes import Journal
from pgnode.supervisor.users.drift import user_drift
from pgnode.supervisor.users.table import UserTable


def test_who_is_to_be_added_and_removed_and_of_whom_little_is_known() -> None:
    table = UserTable(Journal())
    for name in ("fine", "changed", "removed", "silent"):
        table.put(name, b"one")
    table.core_has_all()
    assert user_drift(table) == UserDrift(frozenset(), frozenset(), frozenset())
    table.put("changed", b"two")
    table.put("new", b"one")
    table.await_rollout(["new"])
    table.put("removed", None)
    table.core_uncertain(["silent"])
    drift = user_drift(table)
    assert drift == UserDrift(frozenset({"changed", "new", "silent"}), frozenset({"removed"}), frozenset({"silent"}))
    assert UserDrift.decode(drift.encode()) == drift
