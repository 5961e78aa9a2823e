"""Sockets of inbounds, and whether they are free, with real sockets."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.errors import StartFailedError
from pgnode.os_support.held_sockets import HeldSockets
from pgnode.testing.ports import free_port
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.config.listeners import Listener, claims_of
from pgnode.xray.config.ports import check_claims, check_claims_in_thread, remove_stale_sockets

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


@pytest.mark.parametrize(("kind", "kinds"), [(socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)])
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "", "localhost"])
def test_a_port_in_use_is_named_and_free_once_released(kind: int, kinds: frozenset[str], listen: str) -> None:
    with holder(kind) as held:
        port = held.getsockname()[1]
        address = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(listen, listen)
        with pytest.raises(StartFailedError) as caught:
            check_claims(claims_of([spec(port, kinds, listen)]))
        assert str(caught.value) == f"inbound 'in': port {port} on {address} ({min(kinds)}) is in use"
        # The other kind of socket on the same port is another port.
        check_claims(claims_of([spec(port, UDP if kinds == TCP else TCP, listen)]))
        check_claims(claims_of([spec(port, kinds, listen)]), skip={Listener(min(kinds), address, port)})
    check_claims(claims_of([spec(port, kinds, listen)]))


def test_one_port_of_a_range_in_use() -> None:
    with holder(socket.SOCK_STREAM) as held:
        port = held.getsockname()[1]
        ranged = InboundSpec("in", "vless", "127.0.0.1", ((port - 1, port),))
        with pytest.raises(StartFailedError, match=f"port {port} "):
            check_claims(claims_of([ranged]), skip={Listener("tcp", "127.0.0.1", port - 1)})


def test_an_address_of_another_machine() -> None:
    with pytest.raises(
        StartFailedError, match=r"port 1234 on 192\.0\.2\.1 \(tcp\) cannot be opened: this machine has no"
    ):
        check_claims(claims_of([spec(1234, listen="192.0.2.1")]))


async def test_the_check_runs_beside_an_event_loop() -> None:
    with holder(socket.SOCK_STREAM) as held, pytest.raises(StartFailedError, match="is in use"):
        await check_claims_in_thread(claims_of([spec(held.getsockname()[1])]))


def test_unix_sockets_count_as_used_only_with_a_server(folder: Path) -> None:
    path = str(folder / "in.sock")
    inbound = spec(0, listen=path)
    check_claims(claims_of([inbound]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(StartFailedError, match=rf"inbound 'in': unix socket {path} is in use"):
            check_claims(claims_of([inbound]))
    # The file is still there, nobody behind it: the core takes it over.
    assert Path(path).exists()
    check_claims(claims_of([inbound]))


def test_a_path_where_no_socket_can_be_made_is_refused(folder: Path) -> None:
    # Root may write there, says the system.
    with pytest.raises(StartFailedError, match=r"inbound 'in': unix socket /proc/in\.sock cannot be opened"):
        check_claims(claims_of([spec(0, listen="/proc/in.sock")]))
    path = folder / "in.sock"
    claims = claims_of([spec(0, listen=str(path))])
    check_claims(claims)
    assert not path.exists()
    lock = folder / "in.sock.lock"
    lock.touch()
    check_claims(claims)
    lock.unlink()
    lock.mkdir()
    with pytest.raises(StartFailedError, match=r"in\.sock\.lock', where the core locks it, is no plain file"):
        check_claims(claims)


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_abstract_sockets(padding: bytes) -> None:
    name = f"pgn-{uuid.uuid4()}"
    address = b"\0" + (name.encode() + padding).ljust(107 if padding else 0, b"\0")
    listen = ("@@" if padding else "@") + name
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()
        with pytest.raises(StartFailedError, match="is in use"):
            check_claims(claims_of([spec(0, listen=listen)]))
    check_claims(claims_of([spec(0, listen=listen)]))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0", "::"])
def test_what_the_own_core_holds_is_free(kind: int, listen: str) -> None:
    """Whatever the new address is: the core's own socket is in nobody's way, but that of another process is."""
    kinds = TCP if kind == socket.SOCK_STREAM else UDP
    with holder(kind) as held:
        port = held.getsockname()[1]
        claims = claims_of([spec(port, kinds, listen)])
        check_claims(claims, own=HeldSockets(os.getpid()))
        with pytest.raises(StartFailedError, match="is in use"):
            check_claims(claims, own=HeldSockets(os.getppid()))


def test_a_port_that_somebody_holds_without_listening_beside_the_own_core() -> None:
    """Such a socket is in no list of the kernel."""
    with holder(socket.SOCK_STREAM) as held, socket.socket() as other:
        port = held.getsockname()[1]
        other.bind(("127.0.0.2", port))
        check_claims(claims_of([spec(port)]), own=HeldSockets(os.getpid()))
        with pytest.raises(StartFailedError, match="is in use"):
            check_claims(claims_of([spec(port, listen="0.0.0.0")]), own=HeldSockets(os.getpid()))


def test_a_path_of_the_own_core_is_free(folder: Path) -> None:
    path = str(folder / "in.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        check_claims(claims_of([spec(0, listen=path)]), own=HeldSockets(os.getpid()))


@pytest.mark.parametrize(
    ("listen", "fault"),
    [
        ("{folder}/none/in.sock", "there is no folder"),
        ("{folder}/file/in.sock", "Not a directory"),
        ("{folder}/file", "something else is there, no socket"),
        ("{folder}/link", "something else is there, no socket"),
        ("{folder}", "something else is there, no socket"),
        ("{folder}/" + "x" * 120, "at most 107 bytes"),
        ("{folder}/a\0b", "no NUL"),
    ],
)
def test_paths_where_no_core_can_listen(folder: Path, listen: str, fault: str) -> None:
    (folder / "file").touch()
    (folder / "link").symlink_to(folder / "elsewhere.sock")
    with pytest.raises(StartFailedError, match=fault) as caught:
        check_claims(claims_of([spec(0, listen=listen.format(folder=folder))]))
    assert caught.value.text.startswith("inbound 'in': unix socket ")
    assert (folder / "file").exists()


def test_only_sockets_that_nobody_serves_are_removed(folder: Path) -> None:
    names = ("stale", "served", "file", "link", "none")
    paths = {name: folder / name for name in names}
    claims = claims_of([spec(0, listen=str(path)) for path in paths.values()] + [spec(1), spec(0, listen="@name")])
    with socket.socket(socket.AF_UNIX) as stale, socket.socket(socket.AF_UNIX) as served:
        stale.bind(str(paths["stale"]))
        served.bind(str(paths["served"]))
        served.listen()
        paths["file"].touch()
        paths["link"].symlink_to(paths["stale"])
        assert remove_stale_sockets(claims) == [str(paths["stale"])]
        assert sorted(os.listdir(folder)) == ["file", "link", "served"]


def test_all_addresses_are_those_of_ipv6_too() -> None:
    """Go takes "0.0.0.0" for all of them, and so is in the way of whoever has the port at "::1"."""
    try:
        held = holder(socket.SOCK_STREAM, "::1", socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 loopback: a socket cannot be bound there")
    with held:
        port = held.getsockname()[1]
        with pytest.raises(StartFailedError, match=rf"port {port} on 0\.0\.0\.0 \(tcp\) is in use"):
            check_claims(claims_of([spec(port, listen="0.0.0.0")]))
        check_claims(claims_of([spec(port, listen="0.0.0.0")]), own=HeldSockets(os.getpid()))


def test_a_socket_is_known_by_another_path(folder: Path) -> None:
    (folder / "link").symlink_to(folder)
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(folder / "x.sock"))
        held.listen()
        claims = claims_of([spec(0, listen=str(folder / "link" / "x.sock"))])
        with pytest.raises(StartFailedError, match="is in use"):
            check_claims(claims)
        check_claims(claims, own=HeldSockets(os.getpid()))


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EPERM, "needs CAP_NET_ADMIN"), (errno.ENOENT, "has no /dev/net/tun")]
)
def test_a_network_device_that_cannot_be_had(number: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    device = InboundSpec(tag="in", protocol="tun", kinds=frozenset(), device="none-of-test")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        StartFailedError, match=rf"inbound 'in': network device 'none-of-test' cannot be set up: .*{said}"
    ):
        check_claims(claims_of([device]))


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EBUSY, "is in use"), (errno.EINVAL, "Invalid argument"), (0, None)]
)
def test_a_network_device_is_set_up_for_a_moment(
    number: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    def answer(_descriptor: int, _request: int, name: bytes) -> int:
        asked.append(name)
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    null = os.open
    monkeypatch.setattr(os, "open", lambda _path, flags: null(os.devnull, flags))
    monkeypatch.setattr(fcntl, "ioctl", answer)
    device = InboundSpec(tag="in", protocol="tun", kinds=frozenset(), device="")
    with pytest.raises(StartFailedError, match=said) if said else contextlib.nullcontext():
        check_claims(claims_of([device]))
    assert asked[0].startswith(b"\0")
