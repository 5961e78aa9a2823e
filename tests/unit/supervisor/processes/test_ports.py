"""The API's ports, taken and free."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from structlog.testing import capture_logs

from pgnode.errors import PortInUseError
from pgnode.settings import load
from pgnode.supervisor.processes.inheritance import Inheritance
from pgnode.supervisor.processes.ports import ListeningSockets, reserve_port, what_to_do


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_port_in_use_is_named(tmp_path: Path, taken: int) -> None:
    settings = load(state_dir=str(tmp_path), node_host="127.0.0.1", service_port=free_port(), api_port=taken)
    with (
        contextlib.closing(ListeningSockets(settings)) as sockets,
        pytest.raises(PortInUseError, match=rf"port {taken} on 127\.0\.0\.1 cannot be used: .* set API_PORT"),
    ):
        sockets.open()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EADDRINUSE, "end what listens there, or set API_PORT"),
        (errno.EADDRNOTAVAIL, "set NODE_HOST to an address of this machine"),
        (errno.EAFNOSUPPORT, "set NODE_HOST to an address of this machine"),
        (errno.EACCES, "set API_PORT to 1024 or more, or give the node CAP_NET_BIND_SERVICE"),
    ],
)
def test_it_is_said_what_to_do(number: int, advice: str) -> None:
    assert what_to_do(OSError(number, os.strerror(number)), "API_PORT").startswith(advice)


def test_an_address_of_another_machine_is_no_port_in_use(tmp_path: Path) -> None:
    # Of the documentation's, RFC 5737.
    settings = load(state_dir=str(tmp_path), node_host="192.0.2.1", service_port=free_port(), api_port=free_port())
    with (
        contextlib.closing(ListeningSockets(settings)) as sockets,
        pytest.raises(PortInUseError, match=r"on 192\.0\.2\.1 cannot be used: .*; set NODE_HOST to an address of this"),
    ):
        sockets.open()


def test_a_machine_without_ipv6_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_arguments: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", none)
    with pytest.raises(PortInUseError, match="Address family not supported by protocol; set NODE_HOST"):
        reserve_port("::", "GRPC_PORT", 62052)


def test_callers_wait_where_nobody_accepts_yet(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path), node_host="127.0.0.1", service_port=free_port(), api_port=free_port())
    with contextlib.closing(ListeningSockets(settings)) as sockets:
        sockets.open()
        assert len(sockets.descriptors) == 2
        with socket.create_connection(("127.0.0.1", settings.service_port)):
            pass
    assert sockets.descriptors == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", settings.service_port))


def test_sockets_are_left_to_the_next_supervisor(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path), node_host="127.0.0.1", service_port=free_port(), api_port=free_port())
    first = ListeningSockets(settings)
    first.open()
    left = first.hand_over()
    assert set(left) == set(first.names)
    assert str(settings.service_port) in repr(first.names)
    with contextlib.closing(ListeningSockets(settings, Inheritance(sockets=left))) as second:
        second.open(inherited=True)
        assert sorted(second.descriptors) == sorted(left.values())
        assert "SERVICE_PORT" in repr(second)
        with socket.create_connection(("127.0.0.1", settings.service_port)):
            pass


def test_a_reserved_port_is_for_those_who_share_it() -> None:
    with reserve_port("127.0.0.1", "SERVICE_PORT", 0) as holder:
        port = holder.getsockname()[1]
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
        with pytest.raises(PortInUseError, match="set SERVICE_PORT"):
            reserve_port("127.0.0.1", "SERVICE_PORT", port)


def test_callers_that_are_not_named_do_not_get_there_and_the_next_supervisor_may_let_them_in(tmp_path: Path) -> None:
    values = {"state_dir": str(tmp_path), "service_port": free_port(), "api_port": free_port()}
    settings = load(**values, node_host="127.0.0.1", allowed_callers="192.0.2.1")
    first = ListeningSockets(settings)
    first.open()
    with socket.create_connection(("127.0.0.1", settings.service_port), timeout=30):
        pass
    with mock.patch("pgnode.supervisor.processes.ports.restrict") as restrict:
        second = ListeningSockets(load(**values, node_host="127.0.0.1"), Inheritance(sockets=first.hand_over()))
        with contextlib.closing(second):
            second.open(inherited=True)
    assert [call.args[1] for call in restrict.call_args_list] == [(), ()], "the filter is taken away"


@pytest.mark.parametrize("named", ["", "192.0.2.1"])
def test_a_kernel_without_filters_keeps_nobody_from_listening(tmp_path: Path, named: str) -> None:
    settings = load(
        state_dir=str(tmp_path),
        node_host="127.0.0.1",
        service_port=free_port(),
        api_port=free_port(),
        allowed_callers=named,
    )
    error = OSError(92, "Protocol not available")
    with (
        mock.patch("pgnode.supervisor.processes.ports.restrict", side_effect=error),
        contextlib.closing(ListeningSockets(settings)) as sockets,
        capture_logs() as logged,
    ):
        sockets.open()
        assert len(sockets.descriptors) == 2
    assert [line["event"] for line in logged] == [
        "callers that may not connect are refused after the handshake only"
    ] * (2 if named else 0)
