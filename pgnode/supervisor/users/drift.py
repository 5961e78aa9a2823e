"""Whom the core does not have as desired: for the operator. Pure."""

from __future__ import annotations

from pgnode.bus.users import UserDrift
from pgnode.supervisor.users.table import UserTable


def waiting(table: UserTable) -> UserDrift:
    """As it is at this moment, calls that are under way included."""
    differing = table.differing_all()
    coming = {key for key in differing if table.get(key) is not None}
    return UserDrift(
        coming=frozenset(coming),
        leaving=frozenset(differing) - coming,
        uncertain=frozenset(filter(table.is_uncertain, differing)),
    )
