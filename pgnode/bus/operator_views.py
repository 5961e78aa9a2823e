"""What a running node says to an operator's command beside what it stored. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


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
