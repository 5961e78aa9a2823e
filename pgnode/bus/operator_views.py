"""What a running node says to an operator's command beside what it stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.snapshots import NodeStatus, Polled


@dataclass(frozen=True, slots=True)
class UserDrift:
    """Users whom the core does not have as desired, by their e-mails in lower case."""

    #: Desired, and not applied yet as they are now.
    to_add: frozenset[str]
    #: Desired no more, and not removed from the core yet.
    to_remove: frozenset[str]
    #: Those of them about whom the core did not answer: it may have them as desired.
    uncertain: frozenset[str]

    def encode(self) -> dict[str, list[str]]:
        """Return it as JSON knows it."""
        return {name: sorted(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def decode(cls, values: Mapping[str, Iterable[str]]) -> UserDrift:
        """Read what :meth:`encode` made.

        Args:
            values: It, and perhaps more.

        Returns:
            The drift.

        Raises:
            KeyError: It has other fields.
            TypeError: They are no lists of texts.
        """
        return cls(*(frozenset(values[name]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class LiveTraffic:
    """What the bus says of the traffic, beside the figures themselves."""

    status: NodeStatus
    #: None before the first reading of a core.
    polled: Polled | None
    #: Seconds since the core was read last, None where it never was.
    age_seconds: float | None
    #: ``StatsOnlineIpListResponse`` by e-mail.
    online: IndexedBlock
