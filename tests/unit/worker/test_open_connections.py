"""Connections by address, and which of too many goes."""

from __future__ import annotations

from pgnode.worker.open_connections import OpenConnections


def test_of_too_many_the_oldest_silent_one_goes() -> None:
    connections = OpenConnections[str](2)
    assert connections.opened("panel", "192.0.2.1") is None
    connections.asked("panel")
    assert connections.opened("silent", "192.0.2.1") is None
    assert connections.opened("next", "192.0.2.1") == "silent"
    connections.closed("silent")
    assert connections.opened("after that", "192.0.2.1") == "next"
    # Others are not concerned.
    assert connections.opened("other", "192.0.2.2") is None
    assert repr(connections) == "OpenConnections(4 of 2 addresses, at most 2 each)"


def test_where_something_was_asked_on_each_the_new_one_goes() -> None:
    connections = OpenConnections[int](2)
    for number in (1, 2):
        assert connections.opened(number, "192.0.2.1") is None
        connections.asked(number)
    assert connections.opened(3, "192.0.2.1") == 3
    connections.closed(3)
    connections.closed(1)
    assert connections.opened(4, "192.0.2.1") is None


def test_the_addresses_of_one_network_of_version_six_are_one() -> None:
    connections = OpenConnections[int](1)
    assert connections.opened(1, "2001:db8::1") is None
    assert connections.opened(2, "2001:db8::2") == 1
    assert connections.opened(3, "2001:db8:0:1::2") is None
    assert connections.opened(4, "::ffff:192.0.2.1") is None
    assert connections.opened(5, "192.0.2.1") == 4


def test_nothing_is_kept_of_what_has_ended() -> None:
    connections = OpenConnections[int](0)
    for number in range(1000):
        assert connections.opened(number, "192.0.2.1") is None
        connections.asked(number)
        connections.asked(number)
    for number in range(1000):
        connections.closed(number)
        connections.closed(number)
    connections.asked(1)
    assert repr(connections) == "OpenConnections(0 of 0 addresses, at most 0 each)"
