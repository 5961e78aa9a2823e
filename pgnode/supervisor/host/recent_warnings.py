"""The node's last warnings, for whoever asks how it is. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pgnode.os_support.log_text import printable

#: Warnings that are kept; the same text counts once.
KEPT = 20

#: Characters of a warning that are kept.
TEXT_MAX = 400


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning, or an error."""

    #: When it came last, Unix seconds.
    at: float
    level: str
    text: str
    #: How often it came while it was kept.
    times: int = 1


class RecentWarnings:
    """Belongs to whoever logs.

    Args:
        now: Says the time, Unix seconds.
        kept: Warnings that are kept.
    """

    def __init__(self, now: Callable[[], float], *, kept: int = KEPT) -> None:
        self._now = now
        self._kept = kept
        self._found: OrderedDict[tuple[str, str], Warned] = OrderedDict()

    def __repr__(self) -> str:
        return f"RecentWarnings({len(self._found)})"

    def note(self, level: str, text: str) -> None:
        """Take note of a warning."""
        short = printable(" ".join(text.split()), TEXT_MAX)
        before = self._found.pop((level, short), None)
        self._found[level, short] = Warned(self._now(), level, short, before.times + 1 if before is not None else 1)
        while len(self._found) > self._kept:
            self._found.popitem(last=False)

    def last(self, count: int = KEPT) -> list[Warned]:
        """Return the last ones, the newest last."""
        return list(self._found.values())[-count:] if count else []
