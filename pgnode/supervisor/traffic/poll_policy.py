"""Decides how many of the core's counters a reading reads. Pure: the clock's time is an argument.

A whole reading walks all counters in the core: with 100,000 users a quarter of a second of its time. The counters of inbounds
and outbounds, asked by name, tell at almost no cost whether anything moved at all (the *watermarks*); and one call gives the
traffic of the users who are online. That call misses users who came and went between two readings: a whole reading finds
them. So whole readings are made whenever they are cheap; otherwise where bytes moved that nobody who was read explains
(:mod:`pgnode.supervisor.traffic.attribution`), as often as their cost allows; and every minute in any case.
"""

from __future__ import annotations

from enum import Enum

#: The counters of inbounds and outbounds; None when they are not known, which counts as moved.
Watermarks = tuple[int, ...] | None

#: Up to so many counters a whole reading costs the core no more than the call for online users does.
FEW_COUNTERS = 20_000

#: Share of the time that whole readings may take while traffic moves.
WHOLE_SHARE = 0.03

#: Seconds until a whole reading is made although the watermarks stand still, or all that moved is explained.
QUIET_WHOLE_SECONDS = 60.0


class Reading(Enum):
    """What has to be read."""

    SKIP = "skip"
    #: Users who are online, those who were at the last reading, and the watermarks.
    ONLINE = "online"
    #: Every counter.
    WHOLE = "whole"


class PollPolicy:
    """Chooses what to read; one per node.

    Args:
        few_counters: Up to so many counters every reading is whole.
        whole_share: Share of the time that whole readings may take while traffic moves.
    """

    def __init__(self, *, few_counters: int = FEW_COUNTERS, whole_share: float = WHOLE_SHARE) -> None:
        self._few_counters = few_counters
        self._whole_share = whole_share
        self._run = ""
        self._watermarks: Watermarks = None
        #: Everything that moved was read.
        self._quiet = False
        self._whole_at = float("-inf")
        self._whole_seconds = 0.0

    def __repr__(self) -> str:
        return f"PollPolicy(run {self._run}, {'quiet' if self._quiet else 'moving'})"

    def choose(
        self,
        now: float,
        run: str,
        marks: Watermarks,
        counters: int,
        *,
        scheduled: bool,
        lacking: bool,
        exact: bool = False,
        all_marked: bool = True,
    ) -> Reading:
        """Choose what has to be read.

        Args:
            now: Seconds on a clock that nobody sets.
            run: Tells one core process from the next.
            marks: The watermarks now.
            counters: How many counters the last whole reading found.
            scheduled: The reading comes in the node's own interval; for others somebody waits.
            lacking: More moved than is explained, or may have.
            exact: Somebody is to be given everything that was counted until now.
            all_marked: Whatever users move, a watermark moves with it. Without counters of inbounds none does for what is
                blocked.

        Returns:
            How much to read.
        """
        if run != self._run:
            return Reading.WHOLE
        few = counters <= self._few_counters
        if marks is None or marks != self._watermarks:
            return Reading.WHOLE if few or self.whole_due(now, lacking=lacking) else Reading.ONLINE
        if not self._quiet:
            # A watermark moves some moments before the user's own counter does, so the end of a movement is read once more.
            if few or (scheduled and self.whole_due(now, lacking=lacking)):
                return Reading.WHOLE
            return Reading.ONLINE if scheduled or exact else Reading.SKIP
        if now - self._whole_at >= QUIET_WHOLE_SECONDS:
            return Reading.WHOLE
        return Reading.ONLINE if exact and not all_marked else Reading.SKIP

    def whole_due(self, now: float, *, lacking: bool) -> bool:
        """Return whether a whole reading of many counters is due."""
        since = now - self._whole_at
        return since >= QUIET_WHOLE_SECONDS or (lacking and since >= self._whole_seconds / self._whole_share)

    def done(
        self, now: float, run: str, marks: Watermarks, reading: Reading, took_seconds: float, *, lacking: bool
    ) -> None:
        """Take note of a reading that was made and counted.

        Args:
            now: Seconds on a clock that nobody sets.
            run: The core process that was read.
            marks: The watermarks by which it was chosen.
            reading: What was read.
            took_seconds: How long it took.
            lacking: As in :meth:`choose`, after the reading.
        """
        moved = run != self._run or marks is None or marks != self._watermarks
        self._run, self._watermarks = run, marks
        if reading is Reading.WHOLE:
            self._whole_at, self._whole_seconds = now, took_seconds
        if reading is Reading.WHOLE or (reading is Reading.ONLINE and not lacking):
            self._quiet = not moved
        elif moved:
            self._quiet = False
