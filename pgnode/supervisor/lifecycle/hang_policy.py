"""Decides whether a core hangs, from looks for a sign of life. Pure.

Only what this process saw counts. When it did not look for a while (it was stopped, the machine was suspended, the event loop
was busy) it knows nothing of the core, which may have been stopped as well; then the silence begins anew.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Sign(enum.Enum):
    """What one look at a core led to."""

    ALIVE = enum.auto()
    #: It answered nothing that it was asked.
    SILENT = enum.auto()
    #: Nothing but its API could be asked.
    UNKNOWN = enum.auto()


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a core."""

    #: Tells the process from every other.
    run: str
    #: Monotonic seconds.
    began: float
    ended: float
    sign: Sign


class HangPolicy:
    """Knows for how long the core has been silent.

    Args:
        limit_seconds: Seconds of silence after which a core hangs.
        gap_seconds: Seconds without a look after which what was seen before counts no more.
    """

    def __init__(self, limit_seconds: float, gap_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._gap_seconds = gap_seconds
        self._run = ""
        #: When the first of the silent looks began; None without any.
        self._silent_since: float | None = None
        self._last_ended: float | None = None

    def __repr__(self) -> str:
        return f"HangPolicy({self._limit_seconds:g} s, silent since {self._silent_since})"

    def saw(self, look: Look) -> float:
        """Take note of a look.

        Args:
            look: The look that ended now.

        Returns:
            Seconds for which the core has been silent, where it hangs; 0 where it does not.
        """
        last, self._last_ended = self._last_ended, look.ended
        since = look.began if last is None else last
        if look.run != self._run:
            self._run, self._silent_since = look.run, None
        if look.sign is not Sign.SILENT or look.ended - since > self._gap_seconds:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = look.began
        if self._silent_since is None:
            return 0.0
        silent_seconds = look.ended - self._silent_since
        return silent_seconds if silent_seconds >= self._limit_seconds else 0.0
