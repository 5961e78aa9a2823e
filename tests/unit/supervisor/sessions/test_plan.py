"""By lines exactly those connections are found that belong to who is gone: never anybody else's, whatever happened before."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgnode.os_support.tcp_ends import Door
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.sessions.due import Due
from pgnode.supervisor.sessions.plan import LEFT_WORDS, NEEDLES_MAX, PROXIED, SHARED, UDP, Found, Hit, Search, doors_of
from pgnode.xray.config.inbounds import InboundSpec
from tests.unit.supervisor.sessions.lines import line, ring_of, spec

ALICE = Due("alice", "in", "alice", None, 0.0)
HERE = ("192.0.2.1", 1)


def search(ring: LogRing, dues: Sequence[Due], *inbounds: InboundSpec) -> Found:
    """What comes of it."""
    one = Search(dues, {item.tag: item for item in inbounds or (spec("in"), spec("else", port=444))})
    for block in ring.oldest_first():
        one.find_ends(block)
    one.ends_found()
    for block in ring.newest_first():
        one.find_owners(block)
    assert repr(one).startswith("Search(")
    return one.result()


def test_a_users_connections_are_found_and_nobody_elses() -> None:
    found = search(ring_of(line("192.0.2.1:1", "Alice"), line("192.0.2.1:2", "bob")), [ALICE])
    assert found == Found({Hit(HERE, "in", "alice")}, set())


def test_another_inbound_is_left() -> None:
    assert search(ring_of(line("192.0.2.1:1", "alice", tag="else")), [ALICE]) == Found()


@pytest.mark.parametrize("later", [line("192.0.2.1:1", "bob"), line("192.0.2.1:1", "", verdict="rejected")])
def test_who_has_the_port_now_came_later(later: bytes) -> None:
    assert search(ring_of(line("192.0.2.1:1", "alice"), later), [ALICE]) == Found()
    assert search(ring_of(later, line("192.0.2.1:1", "alice")), [ALICE]).hits


def test_the_new_accounts_connections_are_left() -> None:
    back = Due("alice", "in", "alice", 2, 0.0)
    assert search(ring_of(line("192.0.2.1:1", "alice"), line("192.0.2.1:2", "alice")), [back]).hits == {
        Hit(HERE, "in", "alice")
    }
    # The same port, once more.
    assert not search(ring_of(line("192.0.2.1:1", "alice"), line("192.0.2.1:1", "alice")), [back]).hits


def test_what_is_old_and_carries_several_goes_on_to_be_old() -> None:
    back = Due("alice", "in", "alice", 2, 0.0)
    mux = line("tcp:192.0.2.1:1", "alice")
    assert search(ring_of(mux, mux), [back]).hits
    lines = line("192.0.2.1:1", "alice")
    assert search(ring_of(lines, lines), [back], spec("in", transport="grpc")).hits


@pytest.mark.parametrize("order", [("alice", "bob"), ("bob", "alice")])
def test_a_connection_of_several_users_is_left(order: tuple[str, str]) -> None:
    ring = ring_of(*(line("192.0.2.1:1", name) for name in order))
    assert search(ring, [ALICE], spec("in", transport="grpc")) == Found(set(), {("alice", SHARED)})


def test_what_is_no_connection_of_the_users_own_is_left() -> None:
    ring = ring_of(line("192.0.2.1:0", "alice"), line("udp:192.0.2.1:1", "alice"), line("@", "alice"))
    assert search(ring, [ALICE]) == Found(set(), {("alice", PROXIED), ("alice", UDP)})
    assert {SHARED, PROXIED, UDP} <= LEFT_WORDS.keys()


def test_a_line_without_a_tag_counts_everywhere() -> None:
    ring = ring_of(
        line("192.0.2.1:1", "alice", tag=""), line("192.0.2.1:2", "alice"), line("192.0.2.1:2", "bob", tag="")
    )
    assert search(ring, [ALICE]).hits == {Hit(HERE, "in", "alice")}


def test_many_users_are_found_as_few_are() -> None:
    names = [f"user{number}" for number in range(2 * NEEDLES_MAX)]
    ring = ring_of(*(line(f"192.0.2.1:{number}", name) for number, name in enumerate([*names, "bob"], 1)))
    assert len(search(ring, [Due(name, "in", name, None, 0.0) for name in names]).hits) == len(names)


def test_doors_are_those_of_tcp() -> None:
    inbounds = [
        spec("any"),
        InboundSpec("one", "vless", listen="192.0.2.9", ports=((1, 2),)),
        InboundSpec("unix", "vless", listen="/x", ports=()),
        spec("udp", kinds=frozenset({"udp"})),
    ]
    assert doors_of(inbounds) == {"any": Door("", ((443, 443),)), "one": Door("192.0.2.9", ((1, 2),))}


# --- any history ------------------------------------------------------------------------------------------------------------

_OPENED = st.tuples(
    st.sampled_from(["alice", "bob", "carol"]), st.sampled_from(["in", "else"]), st.integers(1, 4), st.booleans()
)


@given(st.lists(_OPENED, max_size=30), st.sets(st.sampled_from(["alice", "bob"])), st.integers(0, 30))
def test_after_any_history_exactly_the_open_ones_are_found(
    history: list[tuple[str, str, int, bool]], gone: set[str], back: int
) -> None:
    """Ports are used again, and who is gone may have come back after some of it; bob's removal is for good."""
    opened: dict[tuple[int, str], tuple[str, int]] = {}
    lines = []
    for number, (user, tag, port, turned_away) in enumerate(history, 1):
        if turned_away:
            opened.pop((port, tag), None)
            lines.append(line(f"192.0.2.1:{port}", "", tag=tag, verdict="rejected"))
        else:
            opened[port, tag] = (user, number)
            lines.append(line(f"192.0.2.1:{port}", user, tag=tag))
    dues = [Due(name, tag, name, None, 0.0) for name in gone for tag in ("in", "else")]
    for due in dues:
        due.until = back + 1 if due.key == "alice" else None
    expected = {
        Hit(("192.0.2.1", port), tag, user)
        for (port, tag), (user, number) in opened.items()
        if user in gone and (user != "alice" or number <= back)
    }
    assert search(ring_of(*lines), dues).hits == expected
