"""Changes on their way to the store: nothing gets lost, and the newest put wins."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.changes import Journal, Scope, StoreChanges
from pgnode.store.rows import LedgerRow, LedgerRun

KEYS = st.sampled_from(["a", "b", "c"])
CHANGES = st.builds(
    StoreChanges,
    meta=st.dictionaries(KEYS, st.integers() | st.none()),
    user_set=st.none() | st.dictionaries(KEYS, st.binary(max_size=2)),
    users=st.dictionaries(KEYS, st.binary(max_size=2) | st.none()),
    taken=st.dictionaries(KEYS, st.text(max_size=2) | st.none()),
    run=st.none() | st.builds(LedgerRun, st.integers(0, 3), st.just("")),
    departed_done=st.none() | st.integers(1, 9),
    counters=st.dictionaries(KEYS, st.none() | st.builds(LedgerRow, *[st.integers(0, 9)] * 4)),
)


def written(*changes: StoreChanges) -> dict[tuple[str, str], object]:
    """What a store holds that is given ``changes`` in this order, with a mark for what was removed."""
    found: dict[tuple[str, str], object] = {}
    for one in changes:
        for part in fields(StoreChanges):
            rows = getattr(one, part.name)
            if part.name == "user_set":
                if rows is not None:
                    found = {place: row for place, row in found.items() if place[0] != "users"}
                    found["user_set", ""] = dict(rows)
            elif part.name not in ("run", "departed_done"):
                found |= {(part.name, key): row for key, row in rows.items()}
            elif rows is not None:
                found[part.name, ""] = rows
    return found


def copy(changes: StoreChanges) -> StoreChanges:
    made = StoreChanges()
    made.add(changes)
    return made


def test_every_table_is_in_one_scope() -> None:
    assert sorted(name for scope in Scope for name in scope.value) == sorted(part.name for part in fields(StoreChanges))


@given(CHANGES, CHANGES)
def test_the_newer_change_wins(older: StoreChanges, newer: StoreChanges) -> None:
    both = written(older, newer)
    older.add(newer)
    assert written(older) == both


@given(CHANGES, CHANGES, CHANGES)
def test_what_was_not_stored_lies_under_what_came_since(
    failed: StoreChanges, since: StoreChanges, later: StoreChanges
) -> None:
    journal = Journal()
    journal.add(copy(failed))
    kept = journal.take()
    assert not journal
    journal.add(copy(since))
    kept.add(journal.take())
    journal.add(copy(later))
    kept.add(journal.take())
    assert written(kept) == written(failed, since, later)


@given(CHANGES)
def test_a_scope_is_taken_alone(changes: StoreChanges) -> None:
    journal = Journal()
    journal.add(changes)
    traffic = journal.take(Scope.TRAFFIC)
    assert written(traffic) | written(journal) == written(changes)
    assert not any(getattr(journal, name) for name in Scope.TRAFFIC.value)
    assert not any(getattr(traffic, name) for name in Scope.DESIRED.value)


@given(CHANGES)
def test_changes_are_true_where_there_is_something_to_write(changes: StoreChanges) -> None:
    assert bool(changes) == bool(written(changes))


def test_what_is_taken_is_not_touched_by_later_changes() -> None:
    journal = Journal()
    journal.users["a"] = b"1"
    taken = journal.take()
    journal.users["a"] = b"2"
    assert taken.users == {"a": b"1"}
    assert repr(taken) != repr(journal) == "Journal(1 users)"
    assert repr(Journal()) == "Journal(empty)"


def test_all_users_take_the_place_of_changes_so_far() -> None:
    journal = Journal()
    journal.users["a"] = b"1"
    journal.put_all_users({"b": b"2"})
    journal.users["c"] = b"3"
    assert repr(journal) == "Journal(all 1 users, 1 users)"
    taken = journal.take()
    assert (taken.user_set, taken.users) == ({"b": b"2"}, {"c": b"3"})
    assert not journal


def test_that_there_are_no_users_is_something_to_write() -> None:
    assert StoreChanges(user_set={})
