"""When to bring back a process that died. Pure: the time and the jitter are arguments.

After the first death in a window the process starts at once, later after growing, jittered pauses. With ``max_deaths`` more
deaths in the window it is given up; an exit code that says "this will never work" does that at once. What was given up may be
tried again after long pauses, once each, that grow as well: what was wrong may be mended by somebody who does not think of this
process. Once it has stayed up for a window, all is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: The core's exit code for a config that it refuses: starting it again changes nothing.
#: Source: Xray's `main/run.go`, which exits with 23 "to prevent systemd from restarting".
EXIT_BAD_CONFIG = 23

#: Doublings of the pause that are computed at most.
_DOUBLINGS_MAX = 16

#: Pauses in seconds before a process is tried again that was given up, the last one again and again.
GIVEN_UP_PAUSES = (60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True, slots=True)
class Retry:
    """Start again after ``delay_seconds``."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It does not stay up; ``reason`` is a sentence for the log."""

    reason: str
    #: After so long it may be tried once more.
    pause_seconds: float
    #: It was given up before, and the try after that changed nothing.
    again: bool = False


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
    #: How often in a row it was given up.
    _given_up: int = 0
    #: Until then a death says that nothing has changed since it was given up.
    _proven_at: float = 0.0

    def died(self, now: float, exit_code: int | None, chance: float) -> Retry | GiveUp:
        """Decide after a death.

        Args:
            now: Seconds on a clock that nobody sets.
            exit_code: The exit code; None where it does not matter.
            chance: A random number in [0, 1), for the jitter.

        Returns:
            When to start again, or why not.
        """
        again = self._given_up > 0 and now < self._proven_at
        if not again:
            self._given_up = 0
        if exit_code in self.never_retry:
            return self._give_up(now, f"exit code {exit_code} means that it refuses its config", again=again)
        if again:
            return self._give_up(now, f"it did not stay up for {self.window_seconds:g} s", again=again)
        self._deaths = [at for at in self._deaths if now - at < self.window_seconds]
        self._deaths.append(now)
        count = len(self._deaths)
        if self.max_deaths is not None and count > self.max_deaths:
            return self._give_up(now, f"it died {count} times in {self.window_seconds:g} s", again=again)
        if count == 1:
            return Retry(0.0)
        pause = min(self.max_pause_seconds, self.first_pause_seconds * 2 ** min(count - 2, _DOUBLINGS_MAX))
        return Retry(pause * (1 - self.jitter + 2 * self.jitter * chance))

    def _give_up(self, now: float, reason: str, *, again: bool) -> GiveUp:
        pause = GIVEN_UP_PAUSES[min(self._given_up, len(GIVEN_UP_PAUSES) - 1)]
        self._given_up += 1
        self._proven_at = now + pause + self.window_seconds
        self._deaths.clear()
        return GiveUp(reason, pause, again)

    def reset(self) -> None:
        """Forget all deaths, for example because an operator or a panel asked for a new start."""
        self._deaths.clear()
        self._given_up = 0
