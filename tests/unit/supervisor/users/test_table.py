"""Records of users: phases, what goes to the journal, and who owns a credential."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.changes import Journal
from pgnode.supervisor.users.table import GATHER_USERS, CredentialOwners, Phase, UserRecord, UserTable

_MESSAGES = st.sampled_from([None, b"one", b"two", b"three"])
_KEYS = st.sampled_from(["alice", "bob", "carol"])


def table_with(**users: bytes) -> UserTable:
    """A core has these users."""
    table = UserTable(Journal())
    for key, raw in users.items():
        table.put(key, raw)
    table.core_has_all()
    return table


def test_unchanged_users_cost_nothing() -> None:
    journal = Journal()
    table = UserTable(journal)
    table.put("alice", b"one")
    assert journal.take().users == {"alice": b"one"}
    table.core_has_all()
    assert not table.put("alice", b"one")
    assert not table.put("bob", None)
    assert table.differing(table.all_known()) == []
    assert not journal


def test_a_user_changes_and_is_applied() -> None:
    table = table_with(alice=b"one")
    assert table.put("alice", b"two")
    assert table.record("alice") == UserRecord(b"two", b"one", Phase.CHANGED)
    assert (table.applied("alice"), table.before("alice")) == (b"one", b"one")
    table.core_has(["alice"])
    assert table.record("alice") == UserRecord(b"two", b"two", Phase.IN_STEP)
    assert table.applied("alice") is table.before("alice") is table.get("alice")


def test_many_users_are_put_as_one_by_one() -> None:
    users = {"alice": b"two", "bob": b"one", "carol": b"three", "dave": b"one"}
    tables = table_with(alice=b"one", bob=b"one", dave=b"zero"), table_with(alice=b"one", bob=b"one", dave=b"zero")
    for table in tables:
        table.core_uncertain(["dave"])
    for key, raw in users.items():
        tables[0].put(key, raw, ())
    tables[1].put_all(users)
    assert [dict(table.desired) for table in tables] == [users, users]
    assert tables[0].record("dave").perhaps == tables[1].record("dave").perhaps == ()
    for key in users:
        assert tables[0].record(key) == tables[1].record(key)
    assert tables[0].record("bob").phase is Phase.IN_STEP


def test_many_changes_are_stored_as_all_users() -> None:
    journal = Journal()
    table = UserTable(journal)
    users = {f"user{number}": b"one" for number in range(GATHER_USERS)}
    table.put_all(users)
    table.gather()
    assert (journal.user_set, journal.users) == (users, {})
    table.put("user0", b"two")
    table.gather()
    taken = journal.take()
    assert (taken.user_set, taken.users) == (users, {"user0": b"two"}), "what was noted is as it was"
    for number in range(GATHER_USERS - 2):
        table.put(f"user{number}", None)
    table.gather()
    assert journal.take().user_set is None
    table.put("user0", b"three")
    table.gather()
    assert journal.take().user_set == dict(table.desired), "those before count as well"


def test_what_the_store_has_as_changes_counts() -> None:
    journal = Journal()
    table = UserTable(journal)
    table.restore({"alice": b"one"}, GATHER_USERS - 1)
    table.gather()
    assert not journal
    table.put("alice", b"two")
    table.gather()
    assert journal.take().user_set == {"alice": b"two"}


def test_a_change_that_is_taken_back_leaves_nothing_to_do_and_one_object() -> None:
    first = bytes([1, 2, 3])
    table = table_with(alice=first)
    table.put("alice", b"two")
    table.put("alice", bytes(bytearray(first)))
    assert table.differing_all() == []
    assert table.get("alice") is first
    table.put("new", b"one")
    table.put("new", None)
    assert table.all_known() == {"alice"}


def test_a_user_who_is_removed_is_known_until_the_core_has_no_more_of_it() -> None:
    table = table_with(alice=b"one")
    table.put("alice", None)
    assert (len(table), table.all_known(), table.differing_all()) == (0, {"alice"}, ["alice"])
    assert table.applied_items() == [("alice", b"one")]
    table.core_has(["alice"])
    assert table.all_known() == set()


def test_nobody_knows_what_the_core_has_after_a_failed_call() -> None:
    table = table_with(alice=b"one")
    table.put("alice", b"two")
    table.core_uncertain(["alice", "stranger"])
    table.put("alice", b"three")
    table.put("alice", b"four")
    assert table.record("alice") == UserRecord(b"four", b"one", Phase.UNKNOWN, (b"two", b"three"))
    assert table.record("stranger") == UserRecord(None, None, Phase.UNKNOWN)
    assert table.applied("alice") is table.before("alice") is None
    assert set(table.in_phase(Phase.UNKNOWN)) == {"alice", "stranger"}


def test_a_rollout_takes_on_who_is_not_unknown() -> None:
    table = table_with(alice=b"one", bob=b"one", carol=b"one")
    table.put("alice", b"two")
    table.put("new", b"one")
    table.core_uncertain(["bob"])
    table.await_rollout(["alice", "bob", "carol", "new"])
    phases = {key: table.phase(key) for key in sorted(table.all_known())}
    assert phases == {
        "alice": Phase.PENDING,
        "bob": Phase.UNKNOWN,
        "carol": Phase.PENDING,
        "new": Phase.PENDING,
    }
    assert table.before("alice") == b"one"
    assert table.applied("alice") is None
    table.core_has(["alice", "carol"])
    assert table.has_pending
    table.core_uncertain(["new"])
    assert not table.has_pending


def test_after_a_core_was_taken_over_only_some_are_certain() -> None:
    table = UserTable(Journal())
    table.restore({"alice": b"one", "bob": b"one"})
    table.core_has_nothing_certain(but={"alice"})
    assert (table.phase("alice"), table.phase("bob")) == (Phase.IN_STEP, Phase.UNKNOWN)
    assert table.applied_count == 1


def test_a_start_that_failed_leaves_everybody_as_before_and_the_store_hears_of_it() -> None:
    journal = Journal()
    table = UserTable(journal)
    table.restore({"alice": b"one", "bob": b"one"})
    before = dict(table.items())
    table.put("alice", b"two")
    table.put("bob", None)
    table.put("carol", b"one")
    journal.take()
    table.return_to(before)
    assert dict(table.desired) == before
    assert journal.users == {"alice": b"one", "bob": b"one", "carol": None}
    assert table.differing_all() == []


@given(
    st.lists(st.tuples(_KEYS, st.sampled_from(["put", "has", "fails", "rollout", "new core"]), _MESSAGES), max_size=30)
)
def test_counts_and_phases_agree_with_a_plain_model(steps: list[tuple[str, str, bytes | None]]) -> None:
    table = UserTable(Journal())
    desired: dict[str, bytes] = {}
    applied: dict[str, bytes] = {}
    unknown: set[str] = set()
    pending: set[str] = set()
    for key, what, raw in steps:
        if what == "put":
            changed = table.put(key, raw)
            assert changed == (desired.get(key) != raw)
            desired.pop(key, None)
            if raw is not None:
                desired[key] = raw
        elif what == "new core":
            table.core_has_all()
            applied, unknown, pending = dict(desired), set(), set()
        elif what == "has":
            table.core_has([key])
            applied.pop(key, None)
            if key in desired:
                applied[key] = desired[key]
            unknown.discard(key)
            pending.discard(key)
        elif what == "fails":
            table.core_uncertain([key])
            unknown.add(key)
            pending.discard(key)
        else:
            table.await_rollout([key])
            if key not in unknown:
                pending.add(key)
    assert dict(table.items()) == desired
    assert set(table.in_phase(Phase.UNKNOWN)) == unknown
    assert set(table.in_phase(Phase.PENDING)) == pending
    assert table.has_pending == bool(pending)
    differing = {key for key in ("alice", "bob", "carol") if desired.get(key) != applied.get(key)} | unknown | pending
    assert set(table.differing_all()) == differing
    assert table.applied_count == len(applied.keys() - unknown)
    assert dict(table.applied_items()) == applied


def test_the_last_owner_of_a_credential_is_known_and_old_ones_are_forgotten() -> None:
    owners = CredentialOwners()
    assert owners.get(("a", "one")) is None
    owners.note({("a", "one"): "alice", ("a", "two"): "bob"})
    owners.note({("a", "one"): "carol", ("b", "one"): "eve"})
    assert (owners.get(("a", "one")), owners.get(("a", "two")), owners.get(("a", "three"))) == ("carol", "bob", None)
    owners.note({("a", f"number {number}"): "dave" for number in range(3)})
    owners.trim(3)
    assert owners.get(("b", "one")) == "eve", "each inbound by itself"
    assert len(owners) == 6
    owners.trim(2)
    assert len(owners) == 2
    assert owners.get(("a", "one")) is None
    owners.clear()
    assert len(owners) == 0


def test_those_not_in_step_are_told_with_what_the_core_has() -> None:
    table = table_with(alice=b"one", bob=b"one", carol=b"one")
    assert list(table.not_in_step(["alice"])) == []
    table.put("alice", b"two")
    table.core_uncertain(["bob"])
    table.put("bob", None)
    table.put("dave", b"one")
    assert list(table.not_in_step(["alice", "bob", "carol", "dave", "erin"])) == [
        ("alice", b"two", b"one", ()),
        ("bob", None, b"one", ()),
        ("dave", b"one", None, ()),
    ]
