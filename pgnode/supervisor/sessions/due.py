"""Whose connections through which inbound are to be ended: what becomes of departures until that is done. Pure.

Of many users who departed at once only few are connected, mostly. These alone are read, once they are seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from pgnode.supervisor.sessions.access_lines import name_in_log
from pgnode.supervisor.users.decoding import Inbounds, decode
from pgnode.supervisor.users.departures import Departure


@dataclass(slots=True)
class Due:
    """One user in one inbound."""

    key: str
    tag: str
    #: The user as the core spelt it.
    email: str
    #: Lines of the log from this number on may be about an account that the user has now; None: there is none.
    until: int | None
    #: Since when, Unix seconds.
    at: float

    @property
    def name(self) -> str:
        """By what the user is found in lines."""
        return name_in_log(self.email)


@dataclass(slots=True)
class Batch:
    """Users whose connections are ended together."""

    #: By key and tag.
    entries: dict[tuple[str, str], Due] = field(default_factory=dict)
    #: How many departures of each user it holds, by key.
    departures: Counter[str] = field(default_factory=Counter)
    #: By key: what happened to users who were not read yet, the oldest first.
    unread: dict[str, list[Departure]] = field(default_factory=dict)
    #: Their names in the log, of those whose key is none -> keys.
    _odd: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anybody's connections may have to be ended."""
        return bool(self.entries or self.unread)

    def add(self, departure: Departure, inbounds: Inbounds) -> None:
        """Take in what happened to a user, after what is in already.

        Args:
            departure: What happened.
            inbounds: The inbounds of the core, by tag.
        """
        self.departures[departure.key] += 1
        self._read(departure, inbounds)

    def keep(self, departure: Departure) -> None:
        """Take in what happened to a user, and read it later (:meth:`read`); nothing of this user was added before."""
        key = departure.key
        self.departures[key] += 1
        if (before := self.unread.get(key)) is not None:
            before.append(departure)
            return
        self.unread[key] = [departure]
        if not (key.isascii() and key.isprintable()):
            self._odd.setdefault(name_in_log(key), []).append(key)

    def unread_among(self, names: Set[str], keys: Set[str]) -> list[str]:
        """Return the keys of those not read yet whose name in the log is among ``names``, or whose key is among ``keys``."""
        odd = {key for name in self._odd.keys() & names for key in self._odd[name]}
        return list(self.unread.keys() & (names | keys | odd))

    def read(self, key: str, inbounds: Inbounds) -> None:
        """Read what happened to a user that was kept."""
        for departure in self.unread.pop(key):
            self._read(departure, inbounds)

    def _read(self, departure: Departure, inbounds: Inbounds) -> None:
        key = departure.key
        email, has = decode(departure.after, inbounds)
        for tag in departure.tags:
            if tag in inbounds and tag not in has:
                self._lose(key, tag, email or key, None, departure.at)
        for message in departure.before:
            old_email, had = decode(message, inbounds)
            for tag, account in had.items():
                if has.get(tag) != account:
                    self._lose(key, tag, old_email, departure.place if tag in has else None, departure.at)
        self._came_back(key, has, departure.place)

    def _lose(self, key: str, tag: str, email: str, until: int | None, at: float) -> None:
        self.entries[key, tag] = Due(key, tag, email, until, at)

    def came_back(self, departure: Departure, inbounds: Inbounds) -> None:
        """Note what a user has from now on: what comes by these accounts is left alone.

        Args:
            departure: What happened, in a later batch.
            inbounds: The inbounds of the core, by tag.
        """
        back = departure._replace(before=(), tags=())
        if (before := self.unread.get(departure.key)) is not None:
            before.append(back)
        else:
            self._read(back, inbounds)

    def _came_back(self, key: str, tags: Iterable[str], place: int) -> None:
        for tag in tags:
            entry = self.entries.get((key, tag))
            if entry is not None and entry.until is None:
                entry.until = place
