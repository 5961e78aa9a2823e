"""Sockets of inbounds, and whether they are free, with real sockets."""

from __future__ import annotations

import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.errors import StartFailedError
from pgnode.testing.ports import free_port
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.ports import Listener, check_ports, check_ports_in_thread, listeners

TCP, UDP = frozenset({"tcp"}), frozenset({"udp"})


def spec(port: int, kinds: frozenset[str] = TCP, listen: str = "127.0.0.1") -> InboundSpec:
    return InboundSpec(tag="in", protocol="vless", listen=listen, ports=((port, port),), kinds=kinds)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = tempfile.mkdtemp(prefix="pgn")
    yield Path(path)
    shutil.rmtree(path)


def holder(kind: int, address: str = "127.0.0.1", family: int = socket.AF_INET) -> socket.socket:
    """A socket on a free port, opened as the core opens its own."""
    held = socket.socket(family, kind)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Not one of the kernel's own choice: by the time it is free again, some connection may have got it.
    held.bind((address, free_port()))
    if kind == socket.SOCK_STREAM:
        held.listen()
    return held


def test_listeners_of_inbounds() -> None:
    both = InboundSpec("a", "shadowsocks", "", ((1, 2), (9, 9)), kinds=TCP | UDP)
    assert [str(listener) for listener in listeners(both)] == [
        f"port {port} on 0.0.0.0 ({kind})" for port in (1, 2, 9) for kind in ("tcp", "udp")
    ]
    assert list(listeners(spec(5, listen="localhost"))) == [Listener("tcp", "127.0.0.1", 5)]
    assert list(listeners(spec(5, listen="[::1]"))) == [Listener("tcp", "::1", 5)]
    assert list(listeners(spec(5, listen="/run/a.sock,0666"))) == [Listener("unix", "/run/a.sock")]
    assert list(listeners(spec(5, listen="@name"))) == [Listener("unix", "@name")]
    assert list(listeners(spec(5, listen="env:ADDRESS"))) == []


@pytest.mark.parametrize(("kind", "kinds"), [(socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)])
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "", "localhost"])
def test_a_port_in_use_is_named_and_free_once_released(kind: int, kinds: frozenset[str], listen: str) -> None:
    with holder(kind) as held:
        port = held.getsockname()[1]
        address = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(listen, listen)
        with pytest.raises(StartFailedError) as caught:
            check_ports([spec(port, kinds, listen)])
        assert str(caught.value) == f"inbound 'in': port {port} on {address} ({min(kinds)}) is in use"
        # The other kind of socket on the same port is another port.
        check_ports([spec(port, UDP if kinds == TCP else TCP, listen)])
        check_ports([spec(port, kinds, listen)], skip={Listener(min(kinds), address, port)})
    check_ports([spec(port, kinds, listen)])


def test_one_port_of_a_range_in_use() -> None:
    with holder(socket.SOCK_STREAM) as held:
        port = held.getsockname()[1]
        ranged = InboundSpec("in", "vless", "127.0.0.1", ((port - 1, port),))
        with pytest.raises(StartFailedError, match=f"port {port} "):
            check_ports([ranged], skip={Listener("tcp", "127.0.0.1", port - 1)})


def test_an_address_of_another_machine() -> None:
    with pytest.raises(
        StartFailedError, match=r"port 1234 on 192\.0\.2\.1 \(tcp\) cannot be opened: this machine has no"
    ):
        check_ports([spec(1234, listen="192.0.2.1")])


async def test_the_check_runs_beside_an_event_loop() -> None:
    with holder(socket.SOCK_STREAM) as held, pytest.raises(StartFailedError, match="is in use"):
        await check_ports_in_thread([spec(held.getsockname()[1])])


def test_unix_sockets_count_as_used_only_with_a_server(folder: Path) -> None:
    path = str(folder / "in.sock")
    inbound = spec(0, listen=path)
    check_ports([inbound])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(StartFailedError, match=rf"inbound 'in': unix socket {path} is in use"):
            check_ports([inbound])
    # The file is still there, nobody behind it: the core takes it over.
    assert Path(path).exists()
    check_ports([inbound])


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_abstract_sockets(padding: bytes) -> None:
    name = f"pgn-{uuid.uuid4()}"
    address = b"\0" + (name.encode() + padding).ljust(107 if padding else 0, b"\0")
    listen = ("@@" if padding else "@") + name
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()
        with pytest.raises(StartFailedError, match="is in use"):
            check_ports([spec(0, listen=listen)])
    check_ports([spec(0, listen=listen)])
