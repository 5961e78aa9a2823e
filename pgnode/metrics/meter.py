"""Counts the calls that one worker answers: by method and code, and how long they took. Pure.

It is on the way of every call, so it does as little as can be: a call that ends costs a look-up, a search among the bounds and
some additions, well under a microsecond together. Nothing is locked, since a worker has one event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from pgnode.metrics.instruments import CALL_SECONDS, Buckets, no_buckets

#: The code of a call that was answered as it should be.
OK: Final = "OK"

#: The code of a call whose caller had gone before it was answered.
CANCELLED: Final = "CANCELLED"

#: What is counted of calls that name no method of ours.
OTHER: Final = "other"


class Line:
    """What is counted of one method; made by :meth:`FaceMeter.line`."""

    __slots__ = ("buckets", "codes", "method")

    def __init__(self, method: str, buckets: Buckets | None) -> None:
        self.method = method
        #: The histogram of its group; None for calls that last as long as their callers want.
        self.buckets = buckets
        #: How often it was answered with each code.
        self.codes: dict[str, int] = {}


class FaceMeter:
    """Counts the calls of one face: REST, gRPC, or maintenance.

    Args:
        now: Seconds on a clock that nobody sets.
    """

    __slots__ = ("_groups", "_lines", "key_uses", "limited", "now", "other", "unauthenticated")

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._lines: dict[tuple[str, str], Line] = {}
        self._groups: dict[str, Buckets] = {}
        #: Calls without the right key.
        self.unauthenticated = 0
        #: Those of them that were over WRONG_KEY_LIMIT.
        self.limited = 0
        #: Calls that were begun, by the key that they brought.
        self.key_uses: Counter[str] = Counter()
        #: What is counted of calls that name no method of ours.
        self.other = self.line(OTHER, "")

    def __repr__(self) -> str:
        return f"FaceMeter({self.in_flight} under way)"

    def line(self, method: str, group: str) -> Line:
        """Return what counts the calls of a method.

        Args:
            method: Its name.
            group: The group of methods that its time is counted with; "" where it is not.

        Returns:
            The same object for the same method and group.
        """
        found = self._lines.get((method, group))
        if found is None:
            buckets = self._groups.setdefault(group, no_buckets()) if group else None
            found = self._lines[method, group] = Line(method, buckets)
        return found

    def begin(self, key: str) -> float:
        """Note that a call begins.

        Args:
            key: Which key it brought.

        Returns:
            What :meth:`end` has to know.
        """
        self.key_uses[key] += 1
        return self.now()

    def end(self, line: Line, code: str, begun: float) -> None:
        """Note that a call has ended.

        Args:
            line: Its method.
            code: What it was answered: :data:`OK`, :data:`CANCELLED`, or the code of an error.
            begun: What :meth:`begin` returned.
        """
        codes = line.codes
        try:
            codes[code] += 1
        except KeyError:
            codes[code] = 1
        buckets = line.buckets
        if buckets is not None:
            seconds = self.now() - begun
            buckets[bisect_left(CALL_SECONDS, seconds)] += 1
            buckets[-1] += seconds

    def refused(self, *, limited: bool = False) -> None:
        """Note a call without the right key, which is not begun.

        Args:
            limited: It was over WRONG_KEY_LIMIT.
        """
        self.unauthenticated += 1
        self.limited += limited

    @property
    def begun(self) -> int:
        """Calls that were begun."""
        return sum(self.key_uses.values())

    @property
    def in_flight(self) -> int:
        """Calls under way: those that were begun and have not ended."""
        return self.begun - sum(sum(line.codes.values()) for line in self._lines.values())

    @property
    def calls(self) -> Mapping[str, Mapping[str, int]]:
        """How often each method was answered with each code; those that were never called are left out."""
        found: dict[str, Counter[str]] = {}
        for line in self._lines.values():
            if line.codes:
                found.setdefault(line.method, Counter()).update(line.codes)
        return found

    @property
    def times(self) -> Mapping[str, Buckets]:
        """The histogram of each group of which something was called."""
        return {group: buckets for group, buckets in self._groups.items() if any(buckets)}


class Meter:
    """Counts the calls of one worker, face by face.

    Args:
        now: Seconds on a clock that nobody sets.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.faces: dict[str, FaceMeter] = {}

    def __repr__(self) -> str:
        return f"Meter({', '.join(self.faces)})"

    def face(self, name: str) -> FaceMeter:
        """Return what counts the calls of a face; the same object for the same name."""
        found = self.faces.get(name)
        if found is None:
            found = self.faces[name] = FaceMeter(self._now)
        return found
