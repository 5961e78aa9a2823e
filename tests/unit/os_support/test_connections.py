"""Ending connections of this process by the address of their callers."""

from __future__ import annotations

import os
import socket

import pytest

from pgnode.os_support.connections import Peer, end_connections, plain_host, received_bytes, unread_bytes


def has_ipv6() -> bool:
    """Whether a socket can be bound to IPv6's loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


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
        caller.sendall(b"this is read by nobody any more")
        # Both ends are in this process here; only the accepted one has this peer.
        assert end_connections({Peer("127.0.0.1", caller.getsockname()[1])}) == 1
        caller.settimeout(30)
        with pytest.raises(ConnectionResetError):
            caller.recv(1)
        with pytest.raises(OSError, match=r"reset|not connected"):
            served.recv(1)
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


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_what_callers_have_sent_is_told(family: socket.AddressFamily, host: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    caller, served = accepted(family, host)
    other, served_other = accepted(family, host)
    with caller, served, other, served_other:
        caller.sendall(bytes(50_000))
        read = 0
        while read < 50_000:
            read += len(served.recv(65_536))
        caller.sendall(b"x")
        assert received_bytes(served.getsockname()[1]) == {Peer(host, caller.getsockname()[1]): 50_001}
        assert received_bytes(served_other.getsockname()[1]) == {Peer(host, other.getsockname()[1]): 0}


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
