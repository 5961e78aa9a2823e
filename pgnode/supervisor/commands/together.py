"""How long a group of changes waits for further ones, so that callers who take turns come to go together. Pure.

Two workers whose callers all wait for answers send them in turns: while one group is done, the other one gathers. What a group
costs whatever its size is then paid twice as often. On few processors, which have something to do all the time, it is quicker to
let those who were just answered come again first. With more processors the turns overlap instead, and nobody waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

#: Processors up to which groups wait for each other.
PROCESSORS_MAX: Final = 2

#: The last ones are not waited for.
SHARE: Final = 0.75
#: So many wait for nobody: a larger group costs hardly less a change, and while this one is done the others are on their way.
ENOUGH: Final = 40

#: So many turns are waited for: in one, those come who take turns with the ones that wait, and somewhat late where all are busy.
TURNS: Final = 2

#: After so many waits in vain there are none for so many groups.
VAIN_MAX: Final = 3
VAIN_PAUSE: Final = 12


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long others are waited for: twice as long as the last turn took, within these limits."""

    #: At least.
    least_seconds: float = 0.0
    #: For each who is expected, at most.
    each_seconds: float = 0.001
    #: In all, at most.
    most_seconds: float = 0.02
    #: Callers who were answered longer ago are not expected any more.
    recent_seconds: float = 0.05


class Together:
    """Says whether others are worth waiting for. Told of what is answered; keeps no clock.

    Args:
        processors: How many there are for the node.
        patience: How long others are waited for.
    """

    def __init__(self, processors: float, patience: Patience = Patience()) -> None:
        self._possible = processors <= PROCESSORS_MAX
        self._patience = patience
        #: So many were answered last, when that was, and how long after the answer before.
        self._answered = 0
        self._answered_at = float("-inf")
        self._turn_seconds = 0.0
        self._in_vain = 0
        #: Groups that do not wait.
        self._pause = 0

    def __repr__(self) -> str:
        """Say how many were answered last."""
        return f"Together({self._answered} answered last, {self._in_vain} waits in vain)"

    def answered(self, count: int, now: float) -> None:
        """Note that a group was answered.

        Args:
            count: Its commands.
            now: Monotonic seconds.
        """
        self._answered, self._turn_seconds, self._answered_at = count, now - self._answered_at, now

    def expected(self, waiting: int, since: int, now: float) -> int:
        """Return how many further changes are worth waiting for.

        Args:
            waiting: How many wait.
            since: How many of them came after the last group was answered.
            now: Monotonic seconds.

        Returns:
            The number; 0 where the group is to be begun at once.
        """
        if not self._possible or waiting >= ENOUGH:
            return 0
        if now - self._answered_at > self._patience.recent_seconds:
            return 0
        more = ceil(self._answered * SHARE) - since
        if more <= 0:
            return 0
        if self._pause:
            self._pause -= 1
            return 0
        return more

    def patience_seconds(self, more: int) -> float:
        """Return how long so many are waited for."""
        patience = self._patience
        turns = max(TURNS * self._turn_seconds, patience.least_seconds)
        return min(turns, more * patience.each_seconds, patience.most_seconds)

    def waited(self, came: int) -> None:
        """Note how many came while a group waited."""
        self._in_vain = 0 if came else self._in_vain + 1
        if self._in_vain >= VAIN_MAX:
            self._in_vain, self._pause = 0, VAIN_PAUSE
