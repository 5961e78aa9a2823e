"""How many connections of users who are gone were ended, and which were left and why. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pgnode.supervisor.sessions.plan import ADDRESS, PROXIED, SHARED, UDP, UNKNOWN, UNREACHABLE

#: By what a connection was found.
BY_LINE: Final = "line"
BY_ADDRESS: Final = "address"
FOUND_BY: Final = (BY_LINE, BY_ADDRESS)

#: Reasons for which connections are left.
LEFT: Final = (SHARED, PROXIED, UDP, ADDRESS, UNKNOWN, UNREACHABLE)

#: Users of whom it is remembered that something of theirs was left.
USERS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class LeftUser:
    """A user of whom some connection was left."""

    #: When, Unix seconds.
    at: float
    reasons: tuple[str, ...]


class SessionCounts:
    """Belongs to the supervisor's loop."""

    def __init__(self) -> None:
        #: Connections that were ended, by what they were found by.
        self.cut: Counter[str] = Counter()
        #: Users of whom something was left, by reason; one is counted once for each change.
        self.left: Counter[str] = Counter()
        #: Attempts that failed and were made again.
        self.failures = 0
        self._users: OrderedDict[str, LeftUser] = OrderedDict()

    def __repr__(self) -> str:
        return f"SessionCounts({self.cut.total()} cut, {self.left.total()} left)"

    def leave(self, left: Iterable[tuple[str, str]], at: float) -> None:
        """Note of whom something is left: (user, why)."""
        reasons: dict[str, list[str]] = {}
        for key, why in left:
            self.left[why] += 1
            reasons.setdefault(key, []).append(why)
        for key, found in reasons.items():
            self._users.pop(key, None)
            self._users[key] = LeftUser(at, tuple(sorted(found)))
        while len(self._users) > USERS_MAX:
            self._users.popitem(last=False)

    @property
    def users(self) -> Mapping[str, LeftUser]:
        """Of whom something was left, the last ones, by key."""
        return self._users
