"""A bounded number of calls or streams at once."""

from __future__ import annotations

from pgnode.errors import TooManyCallsError


class ConcurrencyLimit:
    """``with limit:`` takes a slot, or raises TooManyCallsError. For one event loop.

    Args:
        slots: So many may run at once.
        what: What is limited, for the text of the error.
        setting: What the caller's operator may raise.
    """

    def __init__(self, slots: int, what: str, setting: str) -> None:
        self._slots = slots
        self._what = what
        self._setting = setting
        self.taken = 0

    def __repr__(self) -> str:
        return f"{self.taken} of {self._slots} {self._what}"

    def __enter__(self) -> None:
        """Take a slot."""
        if self.taken >= self._slots:
            raise TooManyCallsError(
                f"too many {self._what}: {self._slots} are under way, the most that this worker takes; try again, "
                f"or raise {self._setting}"
            )
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        """Free the slot."""
        self.taken -= 1
