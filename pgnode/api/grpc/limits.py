"""A bounded number of something under way."""

from __future__ import annotations

from pgnode.errors import TooManyCallsError


class ConcurrencyLimit:
    """``with room:`` takes a place, or raises TooManyCallsError, which names ``setting``. For one event loop."""

    def __init__(self, places: int, what: str, setting: str) -> None:
        self._places = places
        self._what = what
        self._setting = setting
        self.taken = 0

    def __repr__(self) -> str:
        return f"{self.taken} of {self._places} {self._what}"

    def __enter__(self) -> None:
        if self.taken >= self._places:
            raise TooManyCallsError(
                f"too many {self._what}: {self._places} are under way, which is all this worker takes; try again, "
                f"or raise {self._setting}"
            )
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1
