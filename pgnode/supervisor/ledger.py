"""The books of the traffic. Pure: no clock, no socket, no Redis.

The core's counters are read and never reset. For each counter the ledger keeps how many bytes were counted in all
(``total``) and how many of them were reported to a caller that asked for a reset (``reported``); what a caller sees is
the difference, what is owed. A new core starts its counters from zero: differences are taken per core run, and a
counter that went down within a run is taken for a new one, never as a negative number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Where :meth:`Ledger.take_unstored` puts the identity of the core run; no counter has this name.
RUN_KEY = "run"


@dataclass(slots=True)
class Entry:
    """One counter; bytes."""

    total: int = 0
    reported: int = 0
    #: What the core's counter said at the last reading of this run.
    seen: int = 0

    @property
    def owed(self) -> int:
        return self.total - self.reported


class Ledger:
    """All counters of the node by their name in the core, such as ``user>>>alice>>>traffic>>>uplink``."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        #: Identity of the core run that was read last.
        self._run = ""
        #: Names whose entry changed since :meth:`take_unstored`.
        self._unstored: set[str] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Ledger({len(self._entries)} counters, run {self._run})"

    def get(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def read(self, run: str, counters: Iterable[tuple[str, int]]) -> set[str]:
        """Book a reading of the core's counters; ``run`` tells one core from the next. Returns the names that moved."""
        if run != self._run:
            self._run = run
            for name, earlier in self._entries.items():
                if earlier.seen:
                    earlier.seen = 0
                    # The store has to know, too: what it holds is read as belonging to the run that it names.
                    self._unstored.add(name)
        changed = set()
        entries = self._entries
        for name, value in counters:
            if name not in entries:
                entries[name] = Entry()
                changed.add(name)
            entry = entries[name]
            if value != entry.seen:
                entry.total += value - entry.seen if value > entry.seen else value
                entry.seen = value
                changed.add(name)
        self._unstored |= changed
        return changed

    def names(self) -> Iterable[str]:
        return self._entries.keys()

    def take(self, names: Iterable[str]) -> list[tuple[str, int]]:
        """(name, owed bytes) for each of ``names`` that is owed any; all of it counts as reported from now on."""
        taken = []
        for name in names:
            entry = self._entries.get(name)
            if entry is not None and entry.owed:
                taken.append((name, entry.owed))
                entry.reported = entry.total
                self._unstored.add(name)
        return taken

    def give_back(self, taken: Iterable[tuple[str, int]]) -> None:
        """What :meth:`take` handed out was not delivered: it is owed again."""
        for name, value in taken:
            self._entries[name].reported -= value
            self._unstored.add(name)

    def take_unstored(self) -> dict[str, str]:
        """Name -> ``<total> <reported> <seen>`` of what changed since the last call, for the store."""
        names, self._unstored = self._unstored, set()
        entries = self._entries
        stored = {name: f"{(e := entries[name]).total} {e.reported} {e.seen}" for name in names}
        if stored:
            stored[RUN_KEY] = self._run
        return stored

    def put_back_unstored(self, names: Iterable[str]) -> None:
        """Storing these failed: they come with the next :meth:`take_unstored`."""
        self._unstored.update(name for name in names if name != RUN_KEY)

    def mark_all_unstored(self) -> None:
        """The store came back empty: everything has to go there again."""
        self._unstored.update(self._entries)

    def restore(self, stored: Mapping[str, str]) -> None:
        """Take over what :meth:`take_unstored` gave an earlier supervisor.

        When this supervisor finds that core still running, readings go on from what was booked of it.
        """
        self._run = stored.get(RUN_KEY, "")
        for name, text in stored.items():
            if name != RUN_KEY:
                total, reported, seen = text.split()
                self._entries[name] = Entry(total=int(total), reported=int(reported), seen=int(seen))
