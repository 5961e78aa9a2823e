"""Which commands are done together, in one group. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pgnode.bus.commands import GATHERED_KINDS, Command, Kind

#: Changes that are applied in steps, where they are not small.
LONG_KINDS = frozenset({Kind.SYNC_USERS, Kind.SYNC_CHUNKED})


def is_gathered(command: Command) -> bool:
    """Return whether any number of such commands are done as one; every other one is done alone."""
    # A body that came by a key of its own holds some hundred users and more.
    return command.kind in GATHERED_KINDS and not command.blob


def batches(group: Sequence[Command]) -> list[list[Command]]:
    """Cut commands into runs of small changes of users; every other command is a barrier, alone.

    Args:
        group: The commands, in the order in which they came.

    Returns:
        All of them, in the same order.
    """
    found: list[list[Command]] = []
    together = False
    for command in group:
        if is_gathered(command) and together:
            found[-1].append(command)
        else:
            found.append([command])
        together = is_gathered(command)
    return found
