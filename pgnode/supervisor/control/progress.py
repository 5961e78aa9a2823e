"""How far a supervisor is between its start and its end. Pure."""

from __future__ import annotations

import enum


class Phase(enum.StrEnum):
    """What a supervisor is at."""

    STARTING = "starting"
    #: It does the node's work.
    READY = "ready"
    #: It is about to become the next one.
    RESTARTING = "restarting"
    ENDING = "ending"


class Progress:
    """Belongs to the supervisor."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        #: What a start waits for, in a few words.
        self.step = ""

    def __repr__(self) -> str:
        return f"Progress({self.phase}{f': {self.step}' if self.step else ''})"

    def line(self, state: str, users: int, *, drained: bool = False) -> str:
        """Say in half a line how the node is.

        Args:
            state: The state of the node.
            users: How many are desired.
            drained: It is being drained.

        Returns:
            The text.
        """
        if self.phase is Phase.READY:
            return f"{state}{', being drained' if drained else ''}, {users:,} user{'' if users == 1 else 's'}"
        return f"{self.phase}: {self.step}" if self.step else str(self.phase)

    def enter(self, phase: Phase, step: str = "") -> None:
        """Begin something.

        Args:
            phase: What.
            step: What is waited for.
        """
        self.phase, self.step = phase, step
