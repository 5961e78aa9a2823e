"""What a process offers, as the kernel tells it."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from pgnode.os_support.held_sockets import HeldSockets, address_of, overlap


def own() -> HeldSockets:
    return HeldSockets(os.getpid())


def others() -> HeldSockets:
    return HeldSockets(os.getppid())


@pytest.mark.parametrize(
    ("one", "other", "met"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::", "0.0.0.0", True),
        ("::", "::1", True),
        ("0.0.0.0", "::1", False),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
    ],
)
def test_addresses_that_meet(one: str, other: str, met: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is met


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest.mark.parametrize(("kind", "name"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
def test_a_socket_is_known_with_whose_it_is(family: int, address: str, kind: int, name: str) -> None:
    with socket.socket(family, kind) as held:
        held.bind((address, 0))
        port = held.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            assert not own().alone_at(name, address, port), "nobody is offered anything yet"
            held.listen()
        assert own().alone_at(name, address, port)
        assert own().alone_at(name, "::", port)
        assert not others().alone_at(name, address, port)
    assert not own().alone_at(name, address, port)


def test_addresses_as_the_kernel_writes_them() -> None:
    assert address_of("0100007F") == "127.0.0.1"
    assert address_of("0" * 32) == "::"


def test_paths_and_names(tmp_path: Path) -> None:
    path, name = str(tmp_path / "s.sock"), f"pgn-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX) as at_path, socket.socket(socket.AF_UNIX) as named:
        at_path.bind(path)
        named.bind(f"\0{name}")
        assert own().serves_path(path)
        assert own().serves_path(f"@{name}")
        assert not others().serves_path(path)
    assert not own().serves_path(path)


def test_a_process_that_has_gone_holds_nothing() -> None:
    gone = HeldSockets(2**22 + 1)
    assert not gone.alone_at("tcp", "127.0.0.1", 1)
    assert not gone.serves_path("/x")
