"""Whom the core does not have as desired: for the operator. Pure."""

from __future__ import annotations

from pgnode.bus.operator_views import UserDrift
from pgnode.supervisor.users.table import Phase, UserTable


def user_drift(table: UserTable) -> UserDrift:
    """Return whom the core does not have as desired at this moment, calls that are under way included."""
    differing = table.differing_all()
    to_add = {key for key in differing if table.get(key) is not None}
    return UserDrift(
        to_add=frozenset(to_add),
        to_remove=frozenset(differing) - to_add,
        uncertain=frozenset(table.in_phase(Phase.UNKNOWN)),
    )
