"""Addresses of connections are compared as one writes them, and by which door they came."""

from __future__ import annotations

import pytest

from pgnode.os_support.tcp_ends import Connection, Door, plain


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:0:1", "::ffff:0:1"),
    ],
)
def test_an_address_is_written_plainly(written: str, expected: str) -> None:
    assert plain(written) == expected


def test_a_door_takes_what_came_to_its_ports_and_address() -> None:
    connection = Connection("192.0.2.1", 5, "192.0.2.9", 443)
    assert Door("", ((440, 450),)).takes(connection)
    assert Door("192.0.2.9", ((1, 1), (443, 443))).takes(connection)
    assert not Door("192.0.2.8", ((443, 443),)).takes(connection)
    assert not Door("", ((444, 450),)).takes(connection)
