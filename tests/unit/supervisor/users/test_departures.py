"""Whose accounts went is noted when the core has it, once, and stored until it is done with."""

from __future__ import annotations

import sqlite3
from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.changes import Journal, Scope
from pgnode.store.rows import DepartedUser
from pgnode.store.schema import MIGRATIONS, VERSION
from pgnode.store.statements import statements_of
from pgnode.store.user_rows import read_departed
from pgnode.supervisor.users.departures import MESSAGES_MAX, Departure, Departures
from pgnode.supervisor.users.table import UserTable


class World:
    """A table, and what is noted of it."""

    def __init__(self, *, wanted: bool = True) -> None:
        self.journal = Journal()
        self.table = UserTable(self.journal)
        self.here = 10
        self.departures = Departures(self.journal, place=lambda: self.here, now=lambda: 7.0, wanted=wanted)
        self.told = 0
        self.departures.tell(self._told)

    def _told(self) -> None:
        self.told += 1

    def done_with(self) -> int | None:
        """Return the generation up to which all are done with."""
        return self.journal.departed_done

    def change(self, **messages: bytes | None) -> int:
        """Make these desired, and let the core have them."""
        for key, message in messages.items():
            self.table.put(key, message)
        place = self.departures.place(self.table, messages)
        self.departures.settled(self.table, messages, place)
        self.table.core_has(messages)
        return place


def test_new_users_are_nobodys_business() -> None:
    world = World()
    assert world.change(alice=b"1", bob=b"2") == 0
    assert world.departures.take() == []
    assert world.journal.departed == {}
    assert world.told == 0


def test_who_is_removed_or_changed_is_noted_with_what_was_before() -> None:
    world = World()
    world.change(alice=b"1", bob=b"2", carol=b"3")
    assert world.change(alice=None, bob=b"new", carol=b"3") == 10
    assert world.departures.take() == [
        Departure("alice", (b"1",), None, 10, 7.0),
        Departure("bob", (b"2",), b"new", 10, 7.0),
    ]
    assert world.told == 1
    assert world.journal.departed == {"alice": DepartedUser(7.0, (b"1",), 1), "bob": DepartedUser(7.0, (b"2",), 1)}
    world.departures.done("alice")
    assert world.done_with() is None
    world.departures.done("bob")
    assert world.done_with() == 1


def test_coming_back_counts_until_it_is_done_with() -> None:
    world = World()
    world.change(alice=b"1")
    world.change(alice=None)
    world.here = 20
    world.table.put("alice", b"1")
    place = world.departures.place(world.table, ["alice"])
    assert place == 20
    assert world.departures.coming("alice") == 20
    world.departures.settled(world.table, ["alice"], place)
    world.table.core_has(["alice"])
    assert world.departures.coming("alice") is None
    assert [(one.before, one.after, one.place) for one in world.departures.take()] == [
        ((b"1",), None, 10),
        ((), b"1", 20),
    ]
    world.departures.done("alice", 2)
    world.change(bob=b"2")
    assert world.departures.take() == []
    assert repr(world.departures) == "Departures(0 waiting, 0 open)"


def test_who_is_done_with_in_part_stays_open() -> None:
    world = World()
    world.change(alice=b"1")
    world.change(alice=b"2")
    world.change(alice=None)
    assert len(world.departures.take()) == 2
    world.departures.done("alice")
    assert world.journal.departed == {"alice": DepartedUser(7.0, (b"1", b"2"), 1)}
    assert world.done_with() is None
    world.departures.done("alice")
    assert world.done_with() == 1


def test_a_generation_waits_for_those_before_it() -> None:
    world = World()
    for key in ("alice", "bob", "carol"):
        world.change(**{key: b"1"})
        world.change(**{key: None})
        assert [one.key for one in world.departures.take()] == [key]
    world.departures.done("bob")
    assert world.done_with() is None
    world.departures.done("alice")
    assert world.done_with() == 2
    # Whoever departs now is not done with, whatever was before.
    world.change(dave=b"1")
    world.change(dave=None)
    world.departures.done("carol")
    assert world.done_with() == 3
    assert world.journal.departed["dave"].generation == 4


def test_who_departs_again_meanwhile_is_kept_with_both_messages() -> None:
    world = World()
    world.change(alice=b"1")
    world.change(alice=b"2")
    world.departures.take()
    world.change(alice=None)
    world.departures.take()
    world.departures.done("alice")
    assert world.done_with() == 1
    assert world.journal.departed["alice"] == DepartedUser(7.0, (b"1", b"2"), 2)


def test_of_many_changes_the_last_messages_are_stored() -> None:
    world = World()
    for number in range(MESSAGES_MAX + 3):
        world.change(alice=b"%d" % number)
    stored = world.journal.departed["alice"]
    assert stored is not None
    assert stored.messages == tuple(b"%d" % number for number in range(2, MESSAGES_MAX + 2))


def test_who_was_put_again_as_before_has_lost_nothing() -> None:
    world = World()
    world.change(alice=b"1")
    world.table.core_uncertain(["alice"])
    world.departures.settled(world.table, ["alice"], world.departures.place(world.table, ["alice"]))
    assert world.departures.take() == []


def test_a_stranger_is_noted_and_not_stored() -> None:
    world = World()
    world.departures.stranger("eve", "in")
    assert world.departures.take() == [Departure("eve", (), None, 0, 7.0, ("in",))]
    world.departures.done("eve")
    assert world.journal.departed == {}


def test_what_an_earlier_supervisor_promised_is_taken_over() -> None:
    world = World()
    stored = {"alice": DepartedUser(3.0, (b"1",), 5)}
    world.departures.restore(stored, lambda _: b"new")
    assert world.departures.take() == [Departure("alice", (b"1",), b"new", 0, 3.0)]
    assert world.told == 1
    # Done with under a number that is larger than all that are stored.
    assert world.journal.departed == {"alice": DepartedUser(3.0, (b"1",), 6)}
    world.departures.done("alice")
    assert world.done_with() == 6
    off = World(wanted=False)
    off.departures.restore(stored, lambda _: None)
    off.departures.promise(off.table, ["alice"])
    assert off.departures.take() == []
    assert (off.journal.departed, off.done_with()) == ({}, 5)


def test_what_is_promised_is_stored_before_it_is_settled_and_only_once() -> None:
    world = World()
    world.change(alice=b"1", bob=b"2", carol=b"3")
    for key, message in {"alice": None, "bob": b"new", "dave": b"4"}.items():
        world.table.put(key, message)
    for _ in range(2):
        world.departures.promise(world.table, ["alice", "bob", "carol", "dave"])
    assert world.journal.departed == {"alice": DepartedUser(7.0, (b"1",), 1), "bob": DepartedUser(7.0, (b"2",), 1)}
    assert world.told == 0
    # Others depart meanwhile, and are done with.
    world.change(carol=None)
    world.departures.take()
    world.departures.done("carol")
    assert world.done_with() is None
    world.journal.take(Scope.DESIRED)
    world.change(alice=None, bob=b"new", dave=b"4")
    assert [one.key for one in world.departures.take()] == ["alice", "bob"]
    assert world.journal.departed == {}
    world.departures.done("alice")
    assert world.done_with() is None
    world.departures.done("bob")
    assert world.done_with() == 2


def test_who_is_as_before_after_all_does_not_depart_as_promised() -> None:
    world = World()
    world.change(alice=b"1")
    world.table.put("alice", b"2")
    world.departures.promise(world.table, ["alice"])
    world.table.core_uncertain(["alice"])
    world.table.put("alice", b"1")
    world.departures.settled(world.table, ["alice"], 0)
    # Perhaps it had the other account meanwhile.
    assert [one.before for one in world.departures.take()] == [(b"1", b"2")]
    world.table.core_has(["alice"])
    world.table.core_uncertain(["alice"])
    world.table.put("alice", None)
    world.departures.promise(world.table, ["alice"])
    world.table.put("alice", b"1")
    world.departures.settled(world.table, ["alice"], 0)
    assert world.departures.take() == []
    assert world.done_with() is None
    world.departures.done("alice")
    world.change(bob=b"1")
    world.change(bob=None)
    world.departures.take()
    world.departures.done("bob")
    assert world.done_with() == 2


def test_what_is_promised_of_some_of_many_counts_once() -> None:
    world = World()
    world.change(alice=b"1", bob=b"1")
    world.change(alice=b"2")
    world.table.put("alice", None)
    world.departures.promise(world.table, ["alice"])
    assert world.journal.departed["alice"].messages == (b"1", b"2")
    world.change(alice=None, bob=None)
    assert world.journal.departed["alice"].messages == (b"1", b"2")
    for one in world.departures.take():
        world.departures.done(one.key)
    assert world.done_with() == 1


def test_with_the_core_goes_what_was_promised() -> None:
    world = World()
    world.change(alice=b"1")
    world.table.put("alice", None)
    world.departures.promise(world.table, ["alice"])
    world.departures.forget_all()
    assert world.done_with() == 1
    world.departures.settled(world.table, ["alice"], 0)
    assert world.journal.departed["alice"].generation == 2


def test_with_the_core_everything_is_forgotten() -> None:
    world = World()
    world.change(alice=b"1")
    world.change(alice=None)
    world.departures.forget_all()
    assert world.departures.take() == []
    assert world.done_with() == 1
    # The cutter, who had taken it, need not know.
    world.departures.done("alice")
    world.change(bob=b"1")
    world.change(bob=None)
    assert world.journal.departed["bob"].generation == 2


def test_where_nobody_wants_to_know_nothing_is_noted() -> None:
    world = World(wanted=False)
    world.change(alice=b"1")
    assert world.change(alice=None) == 0
    world.departures.stranger("eve", "in")
    assert world.departures.take() == []
    assert world.departures.here() == 10


#: What happens, one thing after the other: it is promised that a user departs, a user departs, all are taken, a user is done
#: with; and whether that is stored.
STEPS = st.lists(
    st.tuples(st.sampled_from(["promise", "depart", "take", "done"]), st.sampled_from("ab"), st.booleans()), min_size=4
)


@given(STEPS)
def test_the_store_has_everybody_who_is_not_done_with(steps: list[tuple[str, str, bool]]) -> None:
    store = sqlite3.connect(":memory:", isolation_level=None)
    for statement in chain.from_iterable(MIGRATIONS):
        store.execute(statement)
    store.execute(f"PRAGMA user_version = {VERSION}")
    world, taken, waiting, promised = World(), Counter[str](), Counter[str](), set[str]()
    world.change(a=b"", b=b"")

    def commit() -> set[str]:
        for statement in statements_of(world.journal.take(Scope.DESIRED)):
            store.execute(*statement)
        return set(read_departed(store))

    for number, (step, key, stored) in enumerate(steps):
        if step == "promise":
            world.table.put(key, b"%d" % number)
            world.departures.promise(world.table, [key])
            promised.add(key)
        elif step == "depart":
            promised.discard(key)
            world.change(**{key: b"%d" % number})
            waiting[key] += 1
        elif step == "take":
            taken.update(one.key for one in world.departures.take())
            waiting.clear()
        elif taken[key]:
            taken[key] -= 1
            world.departures.done(key)
        if stored:
            assert {*+taken, *waiting, *promised} <= commit()
    for key in promised:
        world.change(**{key: b"last"})
    taken.update(one.key for one in world.departures.take())
    for key in taken.elements():
        world.departures.done(key)
    assert commit() == set()
    store.close()
