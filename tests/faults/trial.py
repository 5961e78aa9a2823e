"""One try of a fault: what is held against what, and the figures that come of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from pgnode.testing.traffic import HeldTransfer, TransferError
from tests.faults.table import BYTES, CHANGES, COLUMNS, COUNTS, DROPPED, LEFT, Measured

#: Why the bytes of a core that ended may be fewer than those that moved.
LAST_READING = "what the core counted since its last reading ends with it; nothing is counted twice"


class Trial:
    """The figures of one try.

    Args:
        fault: In plain words.
        core_ends: Why the core itself ends, so that its connections do; "": it does not, and none may.
        unmeasured: Column -> why it has no figure in this test.
    """

    def __init__(self, fault: str, *, core_ends: str = "", unmeasured: Mapping[str, str] | None = None) -> None:
        self.measured = Measured(fault)
        self.core_ends = core_ends
        self._struck: float | None = None
        for column, why in (unmeasured or {}).items():
            self.note(column, why)
        if core_ends:
            self.note(DROPPED, core_ends)

    def note(self, column: str, why: str) -> None:
        """Say something about a figure, or why there is none."""
        assert column in COLUMNS
        self.measured.notes[column] = why

    def struck(self) -> None:
        """The fault happens now; where it has happened and all is not well yet, nothing changes."""
        if self._struck is None:
            self._struck = time.monotonic()

    def tried(self, times: int) -> None:
        """The fault happened so often."""
        self.measured.times = times

    def well(self) -> None:
        """All is well now: of several faults in one try the one counts that took longest."""
        if self._struck is not None:
            took = time.monotonic() - self._struck
            self.measured.seconds = max(took, self.measured.seconds or 0.0)
            self._struck = None

    def count(self, column: str, wrong: int, of: int) -> None:
        """How many are wrong of how many; the last word on it."""
        assert column in COUNTS
        self.measured.counts[column] = (wrong, of)

    def connections(self, transfers: Iterable[HeldTransfer]) -> None:
        """Count those that broke. TransferError when one did and the core has not ended."""
        held = list(transfers)
        broken = [f"{one.link_name}: {one.broken}" for one in held if one.broken is not None]
        self.count(DROPPED, len(broken), len(held))
        if broken and not self.core_ends:
            raise TransferError("; ".join(broken))

    def changes(self, lost: int, of: int) -> None:
        """Answered changes that do not hold, of all that were answered."""
        self.count(CHANGES, lost, of)

    def bytes(self, off: int, of: int) -> None:
        """Bytes that were counted too often or not at all, of all that moved."""
        self.count(BYTES, off, of)
        if off and self.core_ends:
            self.note(BYTES, LAST_READING)

    def left(self, behind: int, of: int) -> None:
        """Things that nobody needs any more, of all that were looked at; those of several looks add up."""
        before = self.measured.counts.get(LEFT, (0, 0))
        self.count(LEFT, before[0] + behind, before[1] + of)

    def check_complete(self) -> None:
        """AssertionError when a column has no figure and nobody said why."""
        missing = self.measured.missing()
        assert not missing, f"the row of {self.measured.fault!r} has no figure and no reason: {missing}"
