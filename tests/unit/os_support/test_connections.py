"""Ending connections of this process by the address of their callers."""

from __future__ import annotations

import os
import socket

import pytest

from pgnode.os_support.connections import Peer, end_connections, plain_host, unread_bytes


def accepted(family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket]:
    """A caller's end and the accepted one."""
    with socket.create_server((host, 0), family=family) as listener:
        caller = socket.create_connection((host, listener.getsockname()[1]))
        return caller, listener.accept()[0]


def test_the_connections_of_a_caller_are_ended_and_no_others() -> None:
    caller, served = accepted(socket.AF_INET, "127.0.0.1")
    other, served_other = accepted(socket.AF_INET, "127.0.0.1")
    near, far = socket.socketpair()
    with caller, served, other, served_other, near, far:
        # Both ends are in this process here; only the accepted one has this peer.
        assert end_connections({Peer("127.0.0.1", caller.getsockname()[1])}) == 1
        caller.settimeout(10)
        assert caller.recv(1) == b""
        assert served.recv(1) == b"", "its holder reads the end"
        os.fstat(served.fileno())
        for one, answer in ((other, served_other), (near, far)):
            one.sendall(b"x")
            assert answer.recv(1) == b"x"


def test_what_has_come_and_was_not_read_is_counted() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert unread_bytes(near.fileno()) == 0
        far.sendall(b"abc")
        assert unread_bytes(near.fileno()) == 3
        near.recv(3)
        assert unread_bytes(near.fileno()) == 0
        number = near.fileno()
    assert (unread_bytes(number), unread_bytes(near.fileno())) == (0, 0), "it is closed"


def test_nobody_is_ended_for_a_caller_who_has_gone() -> None:
    assert end_connections({Peer("192.0.2.1", 1)}) == 0


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unix", "unix"),
    ],
)
def test_one_form_of_an_address(host: str, plain: str) -> None:
    assert plain_host(host) == plain
