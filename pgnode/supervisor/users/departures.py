"""Whose accounts went from the core, and when: for whoever ends the connections that these users have still. Pure.

Noted at the moment at which it is known what the core has, and stored with the change itself, so that a supervisor that comes
after this one ends what was promised. Where a change is stored before that moment, or that moment does not come, it is promised
ahead. Nothing is decoded here: a change of users costs no more for it than a list's entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from pgnode.store.changes import Journal
from pgnode.store.rows import DepartedUser
from pgnode.supervisor.users.table import UserTable

#: Messages of one user that are stored at most.
MESSAGES_MAX: Final = 4


#: A call of the class itself takes twice as long.
_new: Final = tuple.__new__


class Departure(NamedTuple):
    """One user whose messages changed, or who came back."""

    key: str
    #: The messages by which the core may have had accounts of this user.
    before: tuple[bytes, ...]
    #: The message by which it has them now; None for none.
    after: bytes | None
    #: Lines of the log from this number on may be about the accounts that it has now.
    place: int
    #: When, Unix seconds.
    at: float
    #: Inbounds in which somebody was found who should not be there.
    tags: tuple[str, ...] = ()


class Departures:
    """Gathers them. Belongs to the supervisor's loop.

    Args:
        journal: Where they are noted that are to be stored.
        place: Returns the number of the next line of the log; what the core has printed so far has a smaller one.
        now: Unix seconds.
        wanted: Whether anybody wants to know.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        place: Callable[[], int] = lambda: 0,
        now: Callable[[], float] = lambda: 0.0,
        wanted: bool = False,
    ) -> None:
        self._journal = journal
        self._place = place
        self._now = now
        self.wanted = wanted
        self._waiting: list[Departure] = []
        #: Users who are not done with, and for them it counts when they come back: the generation of each time that they
        #: departed, and the messages.
        self._open: dict[str, tuple[tuple[int, ...], tuple[bytes, ...]]] = {}
        #: Users of whom it is stored that they depart, and who have not yet: what is stored.
        self._promised: dict[str, DepartedUser] = {}
        #: The number of those who are noted now. Whoever is taken is of an earlier one.
        self._generation = 1
        #: Generation -> departures in it that are promised or not done with; the oldest first.
        self._left: dict[int, int] = {}
        #: Users who are not done with and are being changed -> the place in the log before that.
        self._coming: dict[str, int] = {}
        self._tell: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"Departures({len(self._waiting)} waiting, {len(self._open)} open)"

    def tell(self, told: Callable[[], None]) -> None:
        """Call a function whenever there is something to take."""
        self._tell = told

    def place(self, table: UserTable, keys: Iterable[str]) -> int:
        """Return the place in the log before a change of some users; 0 where it matters for nobody."""
        if not self.wanted:
            return 0
        keys = list(keys)
        back = self._open.keys() & keys if self._open else ()
        if not back and not any(map(table.may_have_had, keys)):
            return 0
        place = self._place()
        for key in back:
            self._coming.setdefault(key, place)
        return place

    def coming(self, key: str) -> int | None:
        """Return the place in the log before a change of a user who is not done with, where one is under way; else None."""
        return self._coming.get(key)

    def here(self) -> int:
        """Return the place in the log now."""
        return self._place()

    def promise(self, table: UserTable, keys: Iterable[str]) -> None:
        """Have it stored that users depart of whom the core may lose an account, for when it is not known here that it did.

        Args:
            table: All users.
            keys: Those users; to be settled later.
        """
        if not self.wanted:
            return
        at, generation, promised = self._now(), self._generation, self._promised
        opened, stored = self._open, self._journal.departed
        before_all = len(promised)
        for key, desired, applied, perhaps in table.not_in_step(keys):
            before = perhaps if applied is None else (applied, *perhaps)
            if not before or key in promised or (before[0] == desired and _is_as_before(before, desired)):
                continue
            messages = before if key not in opened else (*opened[key][1], *before)
            if len(messages) > MESSAGES_MAX:
                messages = messages[-MESSAGES_MAX:]
            promised[key] = stored[key] = _new(DepartedUser, (at, messages, generation))
        if more := len(promised) - before_all:
            self._left[generation] = self._left.get(generation, 0) + more

    def settled(self, table: UserTable, keys: Iterable[str], place: int) -> None:
        """Note what becomes of users whom the core has as desired from now on; to be called before the table notes it.

        Args:
            table: All users.
            keys: Those users.
            place: What :meth:`place` returned before the core was called.
        """
        if not self.wanted:
            return
        opened, waiting, before_all = self._open, self._waiting, len(self._waiting)
        promised, kept = self._promised, 0
        at = self._now()
        if self._coming:
            keys = list(keys)
            for key in self._coming.keys() & keys:
                del self._coming[key]
        for key, desired, applied, perhaps in table.not_in_step(keys):
            row = promised.pop(key, None) if promised else None
            before = perhaps if applied is None else (applied, *perhaps)
            if not before:
                if key not in opened:
                    continue
            elif before[0] == desired and _is_as_before(before, desired):
                if row is not None:
                    self._count_down(row.generation)
                continue
            waiting.append(_new(Departure, (key, before, desired, place, at, ())))
            self._open_up(key, before, at, row)
            kept += row is not None
        if more := len(waiting) - before_all:
            if more > kept:
                self._left[self._generation] = self._left.get(self._generation, 0) + more - kept
            self._tell()

    def stranger(self, key: str, tag: str) -> None:
        """Note that somebody was taken out of an inbound who was in it against what is desired."""
        if self.wanted:
            self._note(Departure(key, (), None, 0, self._now(), (tag,)))
            self._tell()

    def restore(self, stored: dict[str, DepartedUser], desired: Callable[[str], bytes | None]) -> None:
        """Take over what an earlier supervisor had promised."""
        self._generation = 1 + max((user.generation for user in stored.values()), default=0)
        if not self.wanted:
            if stored:
                self._journal.departed_done = self._generation - 1
            return
        for key, user in stored.items():
            self._note(Departure(key, user.messages, desired(key), 0, user.at))
        if self._waiting:
            self._tell()

    def _note(self, departure: Departure) -> None:
        self._waiting.append(departure)
        self._left[self._generation] = self._left.get(self._generation, 0) + 1
        self._open_up(departure.key, departure.before, departure.at)

    def _open_up(self, key: str, before: tuple[bytes, ...], at: float, row: DepartedUser | None = None) -> None:
        """Note that a user is not done with, and what of it is to be stored; ``row`` was promised."""
        generation = self._generation if row is None else row.generation
        found = self._open.get(key)
        if found is None:
            messages = before if len(before) <= MESSAGES_MAX else before[-MESSAGES_MAX:]
            self._open[key] = (generation,), messages
        else:
            messages = (*found[1], *before)[-MESSAGES_MAX:]
            self._open[key] = (*found[0], generation), messages
        if messages and (row is None or row.messages != messages):
            self._journal.departed[key] = _new(DepartedUser, (at, messages, generation))

    def take(self) -> list[Departure]:
        """Hand over what gathered; :meth:`done` is to be called for each of them."""
        taken, self._waiting = self._waiting, []
        if taken:
            self._generation += 1
        return taken

    def done(self, key: str, count: int = 1) -> None:
        """Note that so many departures of a user are done with."""
        if key not in self._open:
            # Forgotten with its core.
            return
        generations, messages = self._open.pop(key)
        self._coming.pop(key, None)
        if len(generations) > count:
            self._open[key] = generations[count:], messages
        for generation in generations[:count]:
            self._count_down(generation)

    def _count_down(self, generation: int) -> None:
        """Note that one departure of a generation needs nothing stored any more."""
        self._left[generation] -= 1
        if not self._left[generation]:
            is_oldest = generation == next(iter(self._left))
            del self._left[generation]
            if is_oldest:
                self._journal.departed_done = next(iter(self._left), self._generation) - 1

    def forget_all(self) -> None:
        """Forget everything: there is no core any more that has a connection of theirs."""
        self._waiting.clear()
        if self._open or self._promised:
            self._journal.departed_done = self._generation
            self._generation += 1
        self._open.clear()
        self._promised.clear()
        self._left.clear()
        self._coming.clear()


def _is_as_before(before: Iterable[bytes], desired: bytes | None) -> bool:
    """Whether a user is put again as it was. Pure."""
    return all(message == desired for message in before)
