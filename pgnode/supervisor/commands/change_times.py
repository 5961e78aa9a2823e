"""Counts the calls that change users, and how long they took from the bus to their answer. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.stream_ids import added_at_ms
from pgnode.errors import UsersRefusedError
from pgnode.metrics.instruments import Histogram

#: What is counted.
_KINDS = frozenset({Kind.SYNC_USER, Kind.SYNC_USERS, Kind.SYNC_CHUNKED})


class ChangeTimes:
    """Belongs to the supervisor's loop.

    Args:
        now_ms: Redis's clock, Unix milliseconds.
    """

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        #: How many there were, by kind and result.
        self.results: Counter[tuple[str, str]] = Counter()
        #: How long they took, by kind.
        self.seconds = Histogram()

    def __repr__(self) -> str:
        return f"ChangeTimes({self.results.total()} changes)"

    def answered(self, answers: Iterable[tuple[Command, Reply]]) -> None:
        """Count what was answered just now."""
        now = self._now_ms()
        for command, reply in answers:
            if command.kind in _KINDS:
                kind = command.kind.value
                self.results[kind, _result(reply)] += 1
                self.seconds.observe(max(0.0, now - added_at_ms(command.entry_id)) / 1000, kind)


def _result(reply: Reply) -> str:
    if reply.error is None:
        return "ok"
    return "refused" if isinstance(reply.error, UsersRefusedError) else "failed"
