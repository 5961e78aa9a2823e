"""From records of users to core operations: applied to a model of the core they give the desired state, also after failures."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.changes import Journal
from pgnode.supervisor.users.decoding import accounts_of_users, refusal_of
from pgnode.supervisor.users.planning import InboundPlan, Plan, plan_changes
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import Account, email_key
from tests.unit.supervisor.users.models import INBOUNDS, VLESS, vless_user

EMAILS = st.sampled_from(["alice", "Alice", "bob", "carol"])


@st.composite
def users(draw: st.DrawFn) -> pb.User:
    user = pb.User(
        email=draw(EMAILS), inbounds=draw(st.lists(st.sampled_from(["vless", "trojan", "elsewhere"]), max_size=3))
    )
    user.proxies.vless.id = str(uuid.UUID(int=draw(st.integers(min_value=0, max_value=3))))
    user.proxies.trojan.password = draw(st.sampled_from(["one", "two"]))
    return user


class ModelCore:
    """Inbound -> e-mail in lower case -> account, with the core's rules: no e-mail twice, unknown ones are not found."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Account]] = {tag: {} for tag in INBOUNDS}

    def apply(self, plans: list[InboundPlan], fail: set[str]) -> None:
        """Removals, then additions; calls about the keys in ``fail`` are carried out or not, and reported as failed."""
        for plan in plans:
            for change in plan.changes:
                if change.old_email is not None and change.key not in fail:
                    self.users[plan.tag].pop(change.old_email.lower(), None)
        for plan in plans:
            for change in plan.changes:
                if change.new is not None and change.new_email is not None and change.key not in fail:
                    assert change.new_email.lower() not in self.users[plan.tag], "added without being removed first"
                    self.users[plan.tag][change.new_email.lower()] = change.new


def wanted(table: UserTable) -> dict[str, dict[str, Account]]:
    accounts = accounts_of_users(table.desired, table.keys(), INBOUNDS)
    return {tag: {key: account for key, (_, account) in of_tag.items()} for tag, of_tag in accounts.items()}


@given(st.lists(st.tuples(st.lists(users(), max_size=5), st.sets(st.sampled_from(["alice", "bob"])))), st.booleans())
def test_the_core_ends_as_desired_whatever_failed_in_between(
    rounds: list[tuple[list[pb.User], set[str]]], full: bool
) -> None:
    table, core = UserTable(Journal()), ModelCore()
    for batch, fail in rounds:
        named = set()
        for user in batch:
            assert refusal_of(user, INBOUNDS) is None
            key = email_key(user.email)
            table.put(key, user.SerializeToString(deterministic=True) if user.inbounds else None)
            named.add(key)
        if full:
            for key in table.keys() - named:
                table.put(key, None)
        differing = table.differing(table.all_known())
        core.apply(plan_changes(table, differing, INBOUNDS).inbounds, fail)
        table.core_has(set(differing) - fail)
        table.core_uncertain(set(differing) & fail)
    rest = table.differing(table.all_known())
    core.apply(plan_changes(table, rest, INBOUNDS).inbounds, set())
    table.core_has(rest)
    assert core.users == wanted(table)
    assert table.differing(table.all_known()) == []


@given(st.lists(users(), min_size=1, max_size=5))
def test_unchanged_users_cost_nothing(batch: list[pb.User]) -> None:
    journal = Journal()
    table = UserTable(journal)
    for user in batch:
        table.put(email_key(user.email), user.SerializeToString(deterministic=True))
    table.core_has_all()
    assert journal.take().users == dict(table.items())
    for key in list(table.keys()):
        assert not table.put(key, table.get(key))
    assert table.differing(table.all_known()) == []
    assert not journal


def test_a_change_of_case_in_the_email_is_a_change() -> None:
    table = UserTable(Journal())
    user = pb.User(email="Alice", inbounds=["vless"])
    user.proxies.vless.id = str(uuid.UUID(int=1))
    table.put("alice", user.SerializeToString(deterministic=True))
    table.core_has_all()
    user.email = "alice"
    table.put("alice", user.SerializeToString(deterministic=True))
    [plan] = plan_changes(table, ["alice"], INBOUNDS).inbounds
    [change] = plan.changes
    assert (change.old_email, change.new_email) == ("Alice", "alice")
    assert plan.calls == 2


def changed(**numbers: int) -> tuple[UserTable, Plan]:
    """The core has alice with id 1, bob with id 2, and carol with id 3; then these are changed."""
    table = UserTable(Journal())
    for number, name in enumerate(("alice", "bob", "carol"), 1):
        table.put(name, vless_user(name, number).SerializeToString(deterministic=True))
    table.core_has_all()
    for name, number in numbers.items():
        table.put(name, vless_user(name, number).SerializeToString(deterministic=True))
    return table, plan_changes(table, list(numbers), {"vless": VLESS})


def test_a_credential_that_goes_from_one_user_to_another_is_seen() -> None:
    _, apart = changed(alice=4, bob=5)
    assert not apart.moves
    _, swapped = changed(alice=2, bob=1)
    assert swapped.moves
    _, later = changed(carol=1)
    _, earlier = changed(alice=4)
    assert earlier.hinders(later)
    assert not later.hinders(earlier)


def test_whoever_got_a_credential_is_put_again_when_the_other_one_gives_it_up() -> None:
    table, plan = changed(bob=1)
    table.owners.note(plan.gained)
    table.core_has(plan.keys)
    table.put("alice", vless_user("alice", 4).SerializeToString(deterministic=True))
    again = plan_changes(table, ["alice"], {"vless": VLESS})
    assert again.keys == ["alice", "bob"]
    assert again.moves
    assert [(change.old_email, change.new_email) for change in again.inbounds[0].changes] == [
        ("alice", "alice"),
        ("bob", "bob"),
    ]


def test_nobody_is_put_again_who_does_not_have_the_credential_any_more_or_while_somebody_else_gets_it() -> None:
    table, plan = changed(bob=1)
    table.owners.note(plan.gained)
    table.core_has(plan.keys)
    table.put("bob", vless_user("bob", 5).SerializeToString(deterministic=True))
    table.core_has(["bob"])
    table.put("alice", vless_user("alice", 4).SerializeToString(deterministic=True))
    assert plan_changes(table, ["alice"], {"vless": VLESS}).keys == ["alice"]
    table.put("carol", vless_user("carol", 1).SerializeToString(deterministic=True))
    assert plan_changes(table, ["alice", "carol"], {"vless": VLESS}).keys == ["alice", "carol"]


def test_an_owner_of_whom_little_is_known_is_brought_in_step_with_the_other_one() -> None:
    table, plan = changed(bob=1)
    table.owners.note(plan.gained)
    table.core_uncertain(["bob"])
    table.put("alice", vless_user("alice", 4).SerializeToString(deterministic=True))
    again = plan_changes(table, ["alice"], {"vless": VLESS})
    assert again.keys == ["alice", "bob"]
    assert len(again.inbounds[0].changes) == 2


def test_plans_are_joined() -> None:
    one = Plan([], ["alice"], {("a", "1"): "alice", ("a", "2"): "alice"}, {("a", "3"): "alice"})
    one.join(Plan([], ["alice", "bob"], {("a", "1"): "bob", ("b", "2"): "bob"}, {("a", "2"): "bob"}))
    assert one == Plan(
        [],
        ["alice", "bob"],
        {("a", "1"): "", ("a", "2"): "alice", ("b", "2"): "bob"},
        {("a", "3"): "alice", ("a", "2"): "bob"},
    )
    assert one.moves
