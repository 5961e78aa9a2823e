"""What was counted of the traffic, and what of it was reported. Pure: no clock, no socket, no store.

The core's counters are read and never reset. For each counter the ledger keeps how many bytes were counted in all (``total``)
and how many of them reached a caller that asked for a reset (``reported``); the rest is owed. What was handed out to a caller
is on loan until it is known whether it arrived: then it counts as reported, or is owed as before.

A new core starts its counters from zero: differences are taken per core run, and a counter that went down within a run is taken
for a new one, never as a negative number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pgnode.store.rows import LedgerRow, LedgerRun
from pgnode.supervisor.traffic.attribution import ByteDelta
from pgnode.supervisor.traffic.traffic_sums import TrafficSums
from pgnode.supervisor.traffic.traffic_watch import TrafficWatch

#: A call of the class itself takes twice as long.
_new: Final = tuple.__new__


@dataclass(slots=True)
class Entry:
    """One counter; bytes."""

    total: int = 0
    reported: int = 0
    #: Handed out, and not known yet whether it arrived.
    lent: int = 0
    #: What the core's counter said at the last reading in the run ``run``.
    seen: int = 0
    run: int = 0

    @property
    def owed(self) -> int:
        """Counted and not reported, on loan or not."""
        return self.total - self.reported

    @property
    def free(self) -> int:
        """Owed and not on loan: what a caller may be given."""
        return self.total - self.reported - self.lent


class Ledger:
    """All counters of the node by their name in the core, such as ``user>>>alice>>>traffic>>>uplink``.

    Args:
        watch: Is told what moves, while somebody looks.
    """

    def __init__(self, watch: TrafficWatch | None = None) -> None:
        self._watch = watch
        self._entries: dict[str, Entry] = {}
        #: Loan -> (counter, bytes) of each that was handed out with it.
        self._loans: dict[str, list[tuple[str, int]]] = {}
        self._run_identity = ""
        #: Rises with every core run; an entry of another run has seen nothing of this one.
        self.run = 0
        #: Names whose row changed, or was removed, since :meth:`take_unstored`.
        self._unstored: set[str] = set()
        #: What all counters are together.
        self.sums = TrafficSums()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Ledger({len(self._entries)} counters, {len(self._loans)} loans, run {self.run})"

    def get(self, name: str) -> Entry | None:
        """Return a counter, None where there is none of this name."""
        return self._entries.get(name)

    def names(self) -> Iterable[str]:
        """Return the names of all counters."""
        return self._entries.keys()

    def loans(self) -> Iterable[str]:
        """Return the names of all (parts of) open loans."""
        return self._loans.keys()

    # --- counting -----------------------------------------------------------------------------------------------

    def read(self, run: str, counters: Iterable[tuple[str, int]]) -> list[str]:
        """Count (a part of) a reading. Readings have to be counted in the order in which they were made.

        Args:
            run: Tells one core process from the next.
            counters: (name, bytes) as the core has them.

        Returns:
            The names that are new or moved.
        """
        if run != self._run_identity:
            self._run_identity = run
            self.run += 1
        changed = []
        entries, number = self._entries, self.run
        up = down = 0
        watched = self._watch.counts if self._watch is not None else None
        for name, value in counters:
            entry = entries.get(name)
            if entry is None:
                entry = entries[name] = Entry(run=number)
            elif entry.run != number:
                entry.run, entry.seen = number, 0
                if not value:
                    continue
            elif value == entry.seen:
                continue
            seen = entry.seen
            moved = value - seen if value >= seen else value
            total = entry.total + moved
            # As long as one core runs both are one number, and one object.
            entry.total = value if total == value else total
            entry.seen = value
            changed.append(name)
            if watched is not None:
                watched[name] = watched.get(name, 0) + moved
            if not name.startswith("user>>>"):
                self.sums.tag_moved(name, moved)
            elif name.endswith("uplink"):
                up += moved
            else:
                down += moved
        self.sums.users_moved(up, down)
        self._unstored.update(changed)
        return changed

    def ahead(self, run: str, counters: Iterable[tuple[str, int]]) -> ByteDelta:
        """Return what :meth:`read` would count of this reading."""
        moved = ByteDelta()
        number = self.run if run == self._run_identity else None
        for name, value in counters:
            entry = self._entries.get(name)
            seen = entry.seen if entry is not None and entry.run == number else 0
            more = value - seen if value >= seen else value
            if name.endswith("uplink"):
                moved.up += more
            else:
                moved.down += more
        return moved

    # --- handing out --------------------------------------------------------------------------------------------

    def lend(self, loan: str, names: Iterable[str]) -> list[tuple[str, int]]:
        """Lend what is owed and not on loan. A loan of this name that exists is returned as it is.

        Args:
            loan: Its name.
            names: The counters that are asked for.

        Returns:
            (name, bytes) for each counter of which something was lent.
        """
        lent = self._loans.get(loan)
        if lent is not None:
            return lent
        lent = []
        entries = self._entries
        for name in names:
            entry = entries.get(name)
            if entry is not None and (free := entry.total - entry.reported - entry.lent):
                entry.lent += free
                lent.append((name, free))
        if lent:
            self._loans[loan] = lent
            self.sums.lend(lent)
        return lent

    def settle(self, loan: str, *, delivered: bool) -> list[tuple[str, int]]:
        """End a loan.

        Args:
            loan: Its name.
            delivered: Its bytes are reported from now on; otherwise they are owed again.

        Returns:
            (name, bytes) of what it held; nothing if there is no such loan.
        """
        lent = self._loans.pop(loan, None)
        if lent is None:
            return []
        self.sums.settle(lent, delivered=delivered)
        entries = self._entries
        for name, value in lent:
            entry = entries[name]
            entry.lent -= value
            if delivered:
                entry.reported += value
        # Until now the loan may have stood for these rows in the store.
        self._unstored.update(name for name, _ in lent)
        return lent

    def write_off(self) -> list[str]:
        """Count everything as reported that is owed and not on loan; return the names of what was owed."""
        owed = [name for name, entry in self._entries.items() if entry.free]
        for name in owed:
            entry = self._entries[name]
            self.sums.written_off(name, entry.free)
            entry.reported = entry.total - entry.lent
        self._unstored.update(owed)
        return owed

    # --- forgetting ---------------------------------------------------------------------------------------------

    def forget(self, names: Iterable[str], wanted: Callable[[str], bool]) -> list[str]:
        """Drop counters of which everything was reported.

        A counter that the running core still has stays: without its row it would be counted once more.

        Args:
            names: The counters in question.
            wanted: Whether one has to stay.

        Returns:
            The names that were dropped.
        """
        dropped = []
        for name in names:
            entry = self._entries.get(name)
            if entry is None or entry.owed or (entry.run == self.run and entry.seen) or wanted(name):
                continue
            del self._entries[name]
            dropped.append(name)
        self._unstored.update(dropped)
        return dropped

    # --- the store ----------------------------------------------------------------------------------------------

    @property
    def last_run(self) -> LedgerRun:
        """The core run that was read last."""
        return LedgerRun(self.run, self._run_identity)

    def take_unstored(
        self, among: Iterable[str] | None = None, *, most: int | None = None
    ) -> dict[str, LedgerRow | None]:
        """Return name -> row of what changed and was not returned yet, None for what went; for the store.

        Args:
            among: Names that are wanted; None: all.
            most: So many of all are returned, and the others the next time; None: however many there are.

        Returns:
            The rows.
        """
        if among is None:
            if most is None or len(self._unstored) <= most:
                names, self._unstored = self._unstored, set()
            else:
                names = set(islice(self._unstored, most))
                self._unstored -= names
        else:
            names = self._unstored.intersection(among)
            self._unstored -= names
        entries = self._entries
        return {
            name: _new(LedgerRow, (e.total, e.reported, e.seen, e.run))
            if (e := entries.get(name)) is not None
            else None
            for name in names
        }

    def restore(
        self, run: LedgerRun | None, rows: Mapping[str, LedgerRow], loans: Mapping[str, Iterable[tuple[str, int]]]
    ) -> None:
        """Take over (a part of) what an earlier supervisor stored.

        When this supervisor finds that core still running, readings go on from what was counted of it.

        Args:
            run: The core run that was read last; None where none was.
            rows: Counters.
            loans: Open loans: whoever asked for them may have received them.
        """
        if run is not None:
            self.run, self._run_identity = run
        for name, (total, reported, seen, number) in rows.items():
            self._entries[name] = Entry(total, reported, 0, seen, number)
            self.sums.restored(name, total - reported)
        for loan, lent in loans.items():
            kept = [(name, value) for name, value in lent if name in self._entries]
            for name, value in kept:
                self._entries[name].lent += value
            if kept:
                self._loans[loan] = kept
                self.sums.lend(kept)
