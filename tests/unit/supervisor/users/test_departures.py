"""Whose accounts went is noted when the core has it, once, and stored until it is done with."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.store.rows import DepartedUser
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
    assert world.journal.departed == {"alice": DepartedUser(7.0, (b"1",)), "bob": DepartedUser(7.0, (b"2",))}
    world.departures.done("alice")
    world.departures.done("bob")
    assert world.journal.departed == {"alice": None, "bob": None}


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
    world.departures.done("alice")
    assert world.journal.departed["alice"] == DepartedUser(7.0, (b"1", b"2"))
    world.departures.done("alice")
    assert world.journal.departed["alice"] is None


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
    stored = {"alice": DepartedUser(3.0, (b"1",))}
    world.departures.restore(stored, lambda _: b"new")
    assert world.departures.take() == [Departure("alice", (b"1",), b"new", 0, 3.0)]
    assert world.told == 1
    off = World(wanted=False)
    off.departures.restore(stored, lambda _: None)
    assert off.departures.take() == []
    assert off.journal.departed == {"alice": None}


def test_with_the_core_everything_is_forgotten() -> None:
    world = World()
    world.change(alice=b"1")
    world.change(alice=None)
    world.departures.forget_all()
    assert world.departures.take() == []
    assert world.journal.departed == {"alice": None}


def test_where_nobody_wants_to_know_nothing_is_noted() -> None:
    world = World(wanted=False)
    world.change(alice=b"1")
    assert world.change(alice=None) == 0
    world.departures.stranger("eve", "in")
    assert world.departures.take() == []
    assert world.departures.here() == 10
