"""When to bring back a process that died. Pure: the time and the jitter are arguments.

After the first death in a window the process starts at once, later after growing, jittered pauses. With ``max_deaths`` more
deaths in the window end the attempts; an exit code that says "this will never work" ends them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: The core's exit code for a config that it refuses: starting it again changes nothing.
#: Source: Xray's `main/run.go`, which exits with 23 "to prevent systemd from restarting".
EXIT_BAD_CONFIG = 23

#: Doublings of the pause that are computed at most.
_DOUBLINGS_MAX = 16


@dataclass(frozen=True, slots=True)
class Retry:
    """Start again after ``delay_seconds``."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start again; ``reason`` is a sentence for the log."""

    reason: str


@dataclass(slots=True)
class RestartPolicy:
    """Remembers the deaths in a window and decides about the next start."""

    window_seconds: float = 60.0
    #: Deaths in the window after which the process is given up; None: never.
    max_deaths: int | None = 8
    first_pause_seconds: float = 0.5
    max_pause_seconds: float = 15.0
    #: A pause is multiplied by 1 - jitter … 1 + jitter.
    jitter: float = 0.25
    never_retry: frozenset[int] = frozenset({EXIT_BAD_CONFIG})
    _deaths: list[float] = field(default_factory=list)

    def died(self, now: float, exit_code: int | None, chance: float) -> Retry | GiveUp:
        """Decide after a death.

        Args:
            now: Seconds on a clock that nobody sets.
            exit_code: The exit code; None where it does not matter.
            chance: A random number in [0, 1), for the jitter.

        Returns:
            When to start again, or why not.
        """
        if exit_code in self.never_retry:
            return GiveUp(f"exit code {exit_code} means that it refuses its config")
        self._deaths = [at for at in self._deaths if now - at < self.window_seconds]
        self._deaths.append(now)
        count = len(self._deaths)
        if self.max_deaths is not None and count > self.max_deaths:
            return GiveUp(f"it died {count} times in {self.window_seconds:g} s")
        if count == 1:
            return Retry(0.0)
        pause = min(self.max_pause_seconds, self.first_pause_seconds * 2 ** min(count - 2, _DOUBLINGS_MAX))
        return Retry(pause * (1 - self.jitter + 2 * self.jitter * chance))

    def reset(self) -> None:
        """Forget all deaths, for example because an operator or a panel asked for a new start."""
        self._deaths.clear()
