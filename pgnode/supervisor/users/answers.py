"""What became of changes of users, and what their callers are told. Pure."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from pgnode.bus.commands import DONE, Command, Reply
from pgnode.errors import InvalidRequestError, NodeError, UsersRefusedError
from pgnode.supervisor.users.decoding import Refusal

#: Users named in the error of one call; the panel cuts the text anyway.
REFUSALS_SHOWN = 5


@dataclass(slots=True)
class UserChange:
    """One command that changes users, on its way."""

    command: Command
    #: Users whom it names or removes.
    keys: Set[str] = frozenset()
    #: Whom it names and who cannot be had.
    refusals: Sequence[Refusal] = ()


@dataclass(slots=True)
class Applied:
    """What became of an attempt to make the core have some users as desired."""

    refused: dict[str, Refusal] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    #: Why some were not answered.
    error: NodeError | None = None

    def join(self, other: Applied) -> None:
        """Take over what became of others."""
        self.refused |= other.refused
        self.unanswered |= other.unanswered
        self.error = self.error or other.error


def answer_to(change: UserChange, applied: Applied, bad: InvalidRequestError | None = None) -> Reply:
    """Make the reply to one command.

    Args:
        change: The command.
        applied: What became of its users, and perhaps of others.
        bad: Why the command itself is wrong.

    Returns:
        The reply; it names the users that were refused.
    """
    if bad is not None:
        return Reply(error=bad)
    if not change.refusals and not applied.refused and applied.error is None:
        return DONE
    refusals = [*change.refusals] + [applied.refused[key] for key in change.keys & applied.refused.keys()]
    if refusals:
        shown = "; ".join(str(refusal) for refusal in refusals[:REFUSALS_SHOWN])
        more = f"; and {len(refusals) - REFUSALS_SHOWN} more" if len(refusals) > REFUSALS_SHOWN else ""
        return Reply(error=UsersRefusedError(f"failed to update users: {shown}{more}"))
    if applied.error is not None and not change.keys.isdisjoint(applied.unanswered):
        return Reply(error=applied.error)
    return Reply()
