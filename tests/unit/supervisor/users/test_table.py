"""From desired users to core operations: applied to a model of the core they give the desired state, also after failures."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.changes import Journal
from pgnode.supervisor.users.swap_policy import InboundPlan, choose_swap
from pgnode.supervisor.users.table import UserTable, refusal_of
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import Account, email_key
from pgnode.xray.config.inbounds import InboundSpec

INBOUNDS = {
    "vless": InboundSpec(tag="vless", protocol="vless", managed=True),
    "trojan": InboundSpec(tag="trojan", protocol="trojan", managed=True),
}
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
    accounts = table.accounts(table.keys(), INBOUNDS)
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
        core.apply(table.plan(differing, INBOUNDS).inbounds, fail)
        table.core_has(set(differing) - fail)
        table.core_uncertain(set(differing) & fail)
    rest = table.differing(table.all_known())
    core.apply(table.plan(rest, INBOUNDS).inbounds, set())
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
    [plan] = table.plan(["alice"], INBOUNDS).inbounds
    [change] = plan.changes
    assert (change.old_email, change.new_email) == ("Alice", "alice")


def test_a_bad_user_is_named_with_the_cause() -> None:
    user = pb.User(email="x", inbounds=["vless"])
    user.proxies.vless.id = "not a uuid"
    refusal = refusal_of(user, INBOUNDS)
    assert refusal is not None
    assert str(refusal).startswith("x: ")
    assert "not a uuid" in str(refusal)
    assert str(refusal_of(pb.User(), INBOUNDS)) == "(empty e-mail): the e-mail is empty"


def test_few_changes_are_altered_many_are_swapped() -> None:
    raw = INBOUNDS["vless"]
    assert not choose_swap(raw, 10, 10_000)
    assert choose_swap(raw, 10_000, 10_000)
    assert not choose_swap(raw, 1, 1)


def test_connections_that_end_with_their_listener_are_never_swapped() -> None:
    for transport in ("grpc", "xhttp", "mkcp", "hysteria"):
        spec = InboundSpec(tag="t", protocol="vless", transport=transport, managed=True)
        assert not choose_swap(spec, 100_000, 100_000)


def test_shadowsocks_2022_is_swapped_early() -> None:
    spec = InboundSpec(tag="s", protocol="shadowsocks", method="2022-blake3-aes-128-gcm", managed=True)
    assert choose_swap(spec, 50, 10_000)
