"""Connections of a process are found and shut down through duplicates; its own descriptors are never touched."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from pgnode.os_support.pidfd import Pidfd
from pgnode.os_support.process_sockets import STEP, OtherDescriptors, OwnDescriptors, go_through
from pgnode.os_support.tcp_ends import Connection, Door


class Pair:
    """A connection: what connected, and what was accepted."""

    def __init__(self, listening: socket.socket) -> None:
        self.ours = socket.socket(listening.family, socket.SOCK_STREAM)
        self.ours.connect(listening.getsockname())
        self.accepted = listening.accept()[0]
        self.ours.settimeout(10)
        self.peer_port = self.ours.getsockname()[1]

    @property
    def ended(self) -> bool:
        """Whether the other end has been shut down."""
        try:
            return self.ours.recv(1) == b""
        except ConnectionError:
            return True

    @property
    def moves(self) -> bool:
        """Whether bytes go both ways."""
        self.accepted.sendall(b"x")
        self.ours.sendall(b"y")
        return self.ours.recv(1) == b"x" and self.accepted.recv(1) == b"y"

    def close(self) -> None:
        self.ours.close()
        self.accepted.close()


@contextlib.contextmanager
def pairs(count: int, address: str = "127.0.0.1") -> Iterator[tuple[Door, list[Pair]]]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((address, 0))
        listening.listen()
        port = listening.getsockname()[1]
        made = [Pair(listening) for _ in range(count)]
        try:
            yield Door("", ((port, port),)), made
        finally:
            for pair in made:
                pair.close()


def test_only_those_that_are_named_are_shut_down() -> None:
    with pairs(3) as (door, (one, two, three)):
        seen = go_through(OwnDescriptors(), [door], [("127.0.0.1", two.peer_port, 0)], listed=True)
        assert seen.cut == [("127.0.0.1", two.peer_port, 0)]
        assert {connection.peer_port for _, connection in seen.found} == {p.peer_port for p in (one, two, three)}
        assert two.ended
        assert one.moves
        assert three.moves
        # The descriptor is its owner's still.
        assert two.accepted.fileno() >= 0
        two.accepted.getsockname()


def test_no_descriptor_is_left_open() -> None:
    with pairs(2) as (door, _), open(os.devnull, encoding="ascii"):
        before = len(os.listdir("/proc/self/fd"))
        go_through(OwnDescriptors(), [door])
        assert len(os.listdir("/proc/self/fd")) == before


def test_ipv4_within_ipv6_is_ipv4() -> None:
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::", 0))
        listening.listen()
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours, listening.accept()[0]:
            seen = go_through(OwnDescriptors(), [Door("127.0.0.1", ((port, port),))], listed=True)
            assert seen.found == [(0, Connection("127.0.0.1", ours.getsockname()[1], "127.0.0.1", port))]


def test_a_range_of_ports_is_a_door_and_udp_is_none() -> None:
    with pairs(1) as (door, (one,)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        port = door.ports[0][0]
        udp.bind(("127.0.0.1", port))
        udp.connect(("127.0.0.1", 9))
        wide = Door("", ((port - 1, port + 1),))
        seen = go_through(OwnDescriptors(), [Door("127.0.0.9", ((port, port),)), wide], listed=True)
        assert [(place, found.peer_port) for place, found in seen.found] == [(1, one.peer_port)]


def test_another_process_is_looked_into_from_outside() -> None:
    with pairs(2) as (door, (one, two)):
        child = os.fork()
        if child == 0:  # pragma: no cover - the other process
            try:
                os.read(hold_read, 1)
            finally:
                os._exit(0)
        with Pidfd(child) as process:
            try:
                seen = go_through(
                    OtherDescriptors(child, process.fileno()), [door], [("127.0.0.1", one.peer_port, 0)], listed=True
                )
                assert len(seen.found) == 2
                assert one.ended
                assert two.moves
            finally:
                os.kill(child, 9)
                os.waitpid(child, 0)


hold_read, hold_write = os.pipe()


class _Faulty:
    """Some descriptors that cannot be duplicated."""

    def __init__(self, number: int) -> None:
        self._number = number

    def numbers(self) -> list[int]:
        return list(range(STEP + 1))

    def duplicate(self, number: int) -> int:
        raise OSError(self._number, os.strerror(self._number))


def test_what_was_closed_meanwhile_is_passed_over_with_pauses() -> None:
    paused: list[float] = []
    assert go_through(_Faulty(errno.EBADF), [Door("", ((1, 1),))], pause=paused.append).found == []
    assert len(paused) == 1


def test_who_may_not_look_is_told() -> None:
    with pytest.raises(PermissionError):
        go_through(_Faulty(errno.EPERM), [Door("", ((1, 1),))])
    with Pidfd(os.getpid()) as process, pytest.raises(OSError, match="Bad file descriptor"):
        OtherDescriptors(os.getpid(), process.fileno()).duplicate(1_000_000)
