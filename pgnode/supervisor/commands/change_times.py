"""Counts the calls that change users, and how long they took from the bus to their answer. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.stream_ids import added_at_ms
from pgnode.errors import NodeError, UsersRefusedError
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
        # Those of one entry took the same time.
        found: Counter[tuple[Kind, str, str]] = Counter()
        for command, reply in answers:
            if command.kind in _KINDS:
                found[command.kind, command.entry_id, "ok" if reply.error is None else _result(reply.error)] += 1
        now = self._now_ms()
        for (kind, entry_id, result), count in found.items():
            self.results[kind.value, result] += count
            self.seconds.observe(max(0.0, now - added_at_ms(entry_id)) / 1000, kind.value, count=count)


def _result(error: NodeError) -> str:
    return "refused" if isinstance(error, UsersRefusedError) else "failed"
