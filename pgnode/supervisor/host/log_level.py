"""Which lines of the node's own processes are printed; it may be changed while the node runs. Pure."""

from __future__ import annotations

from collections.abc import Callable

from pgnode.os_support.log_levels import rank


class LogLevel:
    """Belongs to whoever prints the lines.

    Args:
        usual: The level of the settings.
        now: Says the time, Unix seconds.
    """

    def __init__(self, usual: str, now: Callable[[], float]) -> None:
        self.usual = usual
        self._now = now
        self._level = usual
        self._until: float | None = None

    def __repr__(self) -> str:
        return f"LogLevel({self.level}{'' if self.level == self.usual else f', usually {self.usual}'})"

    @property
    def level(self) -> str:
        """The level that is in force."""
        if self._until is not None and self._now() >= self._until:
            self._level, self._until = self.usual, None
        return self._level

    @property
    def until(self) -> float | None:
        """When the usual level comes back, Unix seconds; None for not before the next start, or where it is in force."""
        return self._until if self.level != self.usual else None

    def change(self, level: str, seconds: float | None = None) -> None:
        """Put another level in force.

        Args:
            level: One of :data:`~pgnode.os_support.log_levels.LEVELS`.
            seconds: For so long; None: until the next start.
        """
        self._level = level
        self._until = self._now() + seconds if seconds is not None else None

    def shows(self, level: str) -> bool:
        """Return whether a line of this level is printed."""
        return rank(level) >= rank(self.level)
