"""How long a worker's client waits for what. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClientWaits:
    """All in seconds. A Redis that hangs or is away is noticed, and callers are told, within three seconds."""

    #: That the supervisor's answer may take to get here: it answers in time or not at all.
    answer_seconds: float = 1.0
    #: Callers whose commands cannot be sent, or whose answers cannot be read, are told after this time.
    away_seconds: float = 2.0
    #: Before commands that could not be sent are tried again, and a lost connection.
    retry_seconds: float = 0.1
    #: For which one read of answers blocks in Redis.
    block_seconds: float = 0.7
    #: Callers whose time is up are looked for this often: one look for all is cheaper than a timer for each.
    sweep_seconds: float = 0.5
    #: A command that has waited for so long for its answer is looked for in the stream, and this often.
    lost_seconds: float = 1.0

    @property
    def hanging_seconds(self) -> float:
        """Seconds after which a Redis that does not answer a blocking read counts as away."""
        return self.block_seconds + 1.8


#: What a node runs with.
CLIENT_WAITS = ClientWaits()
