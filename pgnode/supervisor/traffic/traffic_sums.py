"""What was counted in all, what of it is owed, and what is on loan: sums that the ledger keeps as it goes. Pure.

They are there so that nobody has to add up the counters of a hundred thousand users. What was counted is counted from the start
of the supervisor: a number that began with the stored books could be smaller after a crash than before it, and whoever reads it
would take that for a new beginning, and all of it for new traffic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from pgnode.metrics.catalogue import OTHER_TAG, TAGS_MAX

#: Between the parts of a counter's name.
_SEPARATOR: Final = ">>>"

#: Kinds of counters whose names are tags.
_TAGGED: Final = ("inbound", "outbound")


class TrafficSums:
    """Bytes.

    Args:
        tags_max: Tags of each kind that are told apart; those that come later are counted together.
    """

    def __init__(self, tags_max: int = TAGS_MAX) -> None:
        self._tags_max = tags_max
        self._tags: dict[str, set[str]] = {kind: set() for kind in _TAGGED}
        #: What users moved, by direction.
        self.users: dict[str, int] = {"uplink": 0, "downlink": 0}
        #: What inbounds and outbounds moved, by kind, tag and direction.
        self.tags: Counter[tuple[str, str, str]] = Counter()
        #: Counted and not reported, by kind.
        self.owed: Counter[str] = Counter()
        #: The part of that which is on loan.
        self.lent: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"TrafficSums({self.users}, owed {dict(self.owed)})"

    def users_moved(self, up: int, down: int) -> None:
        """Count what users moved.

        Args:
            up: Bytes.
            down: Bytes.
        """
        self.users["uplink"] += up
        self.users["downlink"] += down
        self.owed["user"] += up + down

    def tag_moved(self, counter: str, moved: int) -> None:
        """Count what an inbound or an outbound moved.

        Args:
            counter: Name of its counter.
            moved: Bytes.
        """
        kind, _, rest = counter.partition(_SEPARATOR)
        self.owed[kind] += moved
        known = self._tags.get(kind)
        tag, _, direction = rest.rpartition(f"{_SEPARATOR}traffic{_SEPARATOR}")
        if known is None or direction not in self.users:
            return
        if tag not in known:
            if tag == OTHER_TAG or len(known) >= self._tags_max:
                tag = OTHER_TAG
            else:
                known.add(tag)
        self.tags[kind, tag, direction] += moved

    def restored(self, counter: str, owed: int) -> None:
        """Take over what is owed of a stored counter."""
        if owed:
            self.owed[_kind(counter)] += owed

    def lend(self, lent: Sequence[tuple[str, int]]) -> None:
        """Note what goes on loan: (counter, bytes), all of one kind."""
        kind, value = _sum(lent)
        self.lent[kind] += value

    def settle(self, lent: Sequence[tuple[str, int]], *, delivered: bool) -> None:
        """Note the end of a loan.

        Args:
            lent: (counter, bytes) of what it held, all of one kind.
            delivered: It is owed no more.
        """
        kind, value = _sum(lent)
        self.lent[kind] -= value
        if delivered:
            self.owed[kind] -= value

    def written_off(self, counter: str, value: int) -> None:
        """Note that so many bytes of a counter are owed no more."""
        self.owed[_kind(counter)] -= value


def _kind(counter: str) -> str:
    return counter.partition(_SEPARATOR)[0]


def _sum(lent: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """Return the kind of some counters, and their bytes."""
    return _kind(lent[0][0]), sum(value for _, value in lent)
