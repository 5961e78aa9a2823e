"""An operator sees which open connections are a user's, since when, and of which that is not certain."""

from __future__ import annotations

from pgnode.os_support.tcp_ends import Connection
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.sessions.listing import Session, SessionList
from tests.unit.supervisor.sessions.lines import line, ring_of


def open_one(port: int, *, tag: str = "in", address: str = "192.0.2.1") -> tuple[str, Connection]:
    return tag, Connection(address, port, "192.0.2.9", 443)


def listed(ring: LogRing, *connections: tuple[str, Connection], online: tuple[str, ...] = ()) -> list[Session]:
    one = SessionList(connections, {"grpc"})
    for block in ring.oldest_first():
        one.read(block)
    assert repr(one).startswith("SessionList(")
    return one.of("alice", dict.fromkeys(online, 5), {"192.0.2.7"})


def test_open_connections_of_a_user_are_listed() -> None:
    ring = ring_of(line("192.0.2.1:2", "bob"), line("192.0.2.1:1", "Alice"), line("192.0.2.1:3", "alice"))
    assert listed(ring, open_one(1), open_one(2)) == [Session("192.0.2.1", 1, "in", 1.0)]


def test_the_newest_line_says_whose_it_is_and_since_when() -> None:
    ring = ring_of(
        line("192.0.2.1:1", "bob"),
        line("192.0.2.1:1", "alice"),
        line("192.0.2.1:2", "alice"),
        line("192.0.2.1:2", "bob"),
    )
    assert listed(ring, open_one(1), open_one(2)) == [Session("192.0.2.1", 1, "in", 1.0)]
    turned_away = ring_of(line("192.0.2.1:1", "alice"), line("192.0.2.1:1", verdict="rejected"))
    assert listed(turned_away, open_one(1)) == []


def test_connections_within_one_are_one() -> None:
    ring = ring_of(*(line("tcp:192.0.2.1:1", "alice") for _ in range(3)), line("udp:192.0.2.1:1", "bob"))
    assert listed(ring, open_one(1)) == [Session("192.0.2.1", 1, "in", 0.0)]


def test_what_others_use_too_is_told() -> None:
    ring = ring_of(line("192.0.2.1:1", "alice", tag="grpc"), line("192.0.2.1:1", "bob", tag=""))
    assert listed(ring, open_one(1, tag="grpc")) == [Session("192.0.2.1", 1, "grpc", 0.0, shared=True)]


def test_what_no_line_tells_is_told_by_address() -> None:
    ends = open_one(1), open_one(2, address="2001:db8::1"), open_one(3, address="192.0.2.7")
    found = listed(ring_of(line("192.0.2.1:1", "alice")), *ends, online=("[2001:db8::1]", "192.0.2.7"))
    assert found == [
        Session("192.0.2.1", 1, "in", 0.0),
        Session("192.0.2.7", 3, "in", None, shared=True),
        Session("2001:db8::1", 2, "in", None),
    ]
    assert found[0].encode()["inbound"] == "in"
