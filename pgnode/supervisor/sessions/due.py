"""Whose connections through which inbound are to be ended: what becomes of departures until that is done. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
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

    def add(self, departure: Departure, inbounds: Inbounds) -> None:
        """Take in what happened to a user, after what is in already.

        Args:
            departure: What happened.
            inbounds: The inbounds of the core, by tag.
        """
        key = departure.key
        self.departures[key] += 1
        email, has = decode(departure.after, inbounds)
        for tag in departure.tags:
            if tag in inbounds and tag not in has:
                self._lose(key, tag, email or key, None, departure.at)
        for message in departure.before:
            old_email, had = decode(message, inbounds)
            for tag, account in had.items():
                if has.get(tag) != account:
                    self._lose(key, tag, old_email, departure.place if tag in has else None, departure.at)
        self.came_back(key, has, departure.place)

    def _lose(self, key: str, tag: str, email: str, until: int | None, at: float) -> None:
        self.entries[key, tag] = Due(key, tag, email, until, at)

    def came_back(self, key: str, tags: Iterable[str], place: int) -> None:
        """Note that a user has accounts: what comes from now on by these is left alone.

        Args:
            key: The user.
            tags: Where.
            place: The place in the log before that.
        """
        for tag in tags:
            entry = self.entries.get((key, tag))
            if entry is not None and entry.until is None:
                entry.until = place
