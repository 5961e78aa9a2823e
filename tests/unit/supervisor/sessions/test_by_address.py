"""Where no line tells, a connection is ended only if nobody else may have it, and if it is certainly old."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.tcp_ends import Connection
from pgnode.supervisor.sessions.by_address import judge, left_online, others_by_address
from pgnode.supervisor.sessions.due import Due
from pgnode.supervisor.sessions.plan import ADDRESS, UDP, UNKNOWN, Found, Hit

GONE = Due("alice", "in", "alice", None, 1000.0)
BACK = Due("alice", "in", "alice", 7, 1000.0)


def connection(port: int = 1, peer: str = "192.0.2.1") -> tuple[str, Connection]:
    return "in", Connection(peer, port, "192.0.2.9", 443)


def test_all_of_an_address_of_the_users_own_end() -> None:
    there = [connection(1), connection(2), connection(3, "192.0.2.2"), ("else", connection(4)[1])]
    found = judge([GONE], {"Alice": {"192.0.2.1": 5}}, there, {("192.0.2.1", 2)}, since={})
    assert found == Found({Hit(("192.0.2.1", 1), "in", "alice")}, set())


def test_an_address_of_others_too_is_left() -> None:
    online = {"alice": {"[2001:db8::1]": 5}, "bob": {"2001:db8::1": 5}}
    found = judge([GONE], online, [connection(1, "2001:db8::1")], set(), since={})
    assert found == Found(set(), {("alice", ADDRESS)})
    assert others_by_address(online) == {"2001:db8::1": {"alice", "bob"}}


def test_who_has_an_account_again_keeps_what_may_be_new() -> None:
    new, old = {"alice": {"192.0.2.1": 999}}, {"alice": {"192.0.2.1": 900}}
    assert judge([BACK], new, [connection()], set(), since={}) == Found(set(), {("alice", UNKNOWN)})
    assert judge([BACK], old, [connection()], set(), since={}).hits == {Hit(("192.0.2.1", 1), "in", "alice")}
    early = {("alice", "in"): {("192.0.2.1", 1)}}
    assert judge([BACK], new, [connection(1), connection(2)], set(), since=early) == Found(
        {Hit(("192.0.2.1", 1), "in", "alice")}, {("alice", UNKNOWN)}
    )


def test_nothing_is_left_where_nothing_is_there() -> None:
    assert judge([GONE], {"alice": {"192.0.2.1": 5}, "bob": {"192.0.2.1": 5}}, [], set(), since={}) == Found()
    assert judge([GONE], {}, [connection()], set(), since={}) == Found()


def test_who_is_online_over_udp_is_told() -> None:
    online = {"Alice": {"192.0.2.1": 5}, "bob": {}}
    kinds = {"in": frozenset({"udp"}), "else": frozenset({"tcp"})}
    dues = [GONE, Due("alice", "else", "alice", None, 0.0), Due("bob", "in", "bob", None, 0.0)]
    assert left_online(dues, online, kinds) == {("alice", UDP)}


@given(
    st.dictionaries(st.sampled_from(["alice", "bob", "carol"]), st.sets(st.sampled_from("12345"))),
    st.lists(st.tuples(st.sampled_from("12345"), st.integers(1, 9)), unique=True),
)
def test_never_from_an_address_of_somebody_else(where: dict[str, set[str]], there: list[tuple[str, int]]) -> None:
    online = {name: dict.fromkeys(addresses, 5) for name, addresses in where.items()}
    found = judge([GONE], online, [connection(port, address) for address, port in there], set(), since={})
    for hit in found.hits:
        assert {name for name, addresses in where.items() if hit.peer[0] in addresses} == {"alice"}
