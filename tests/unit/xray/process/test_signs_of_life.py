"""What a process does with connections that nobody uses, for a process that runs, stands still, or only listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.testing.ports import free_port
from pgnode.xray.config.listeners import Listener
from pgnode.xray.process.signs_of_life import takes_connections

#: Takes connections and packets, and does with a connection what its argument says.
_SERVER = """
import select, socket, sys
kind, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tcp = socket.create_server(("127.0.0.1", port))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", port))
unix = socket.socket(socket.AF_UNIX)
unix.bind(path)
unix.listen()
print("ready", flush=True)
held = []
while True:
    for ready in select.select([tcp, udp, unix], [], [])[0]:
        if ready is udp:
            udp.recv(10)
        elif kind == "hold":
            held.append(ready.accept())
        else:
            ready.accept()[0].close()
"""

#: Who is asked and does not answer costs this time.
SECONDS = 0.2
#: Who answers does so at once, unless the machine is busy.
PATIENCE = 20.0


class Server:
    def __init__(self, kind: str, path: Path) -> None:
        self.port = free_port()
        self.path = str(path)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _SERVER, kind, str(self.port), self.path], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ask(self, kind: str, seconds: float = PATIENCE) -> bool | None:
        listener = Listener("unix", self.path) if kind == "unix" else Listener(kind, "0.0.0.0", self.port)
        return takes_connections(self.process.pid, [listener], seconds=seconds)

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def server_of(kind: str, folder: Path) -> Iterator[Server]:
    server = Server(kind, folder / "in.sock")
    yield server
    server.end()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from server_of("close", tmp_path)


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Server]:
    """A server that takes connections and says nothing, as one that waits for a fallback would."""
    yield from server_of("hold", tmp_path)


@pytest.mark.parametrize("kind", ["tcp", "udp", "unix"])
def test_a_process_that_runs_is_alive_and_one_that_stands_still_is_not(server: Server, kind: str) -> None:
    assert server.ask(kind) is True
    server.stop()
    assert server.ask(kind, SECONDS) is False
    os.kill(server.process.pid, signal.SIGCONT)
    assert server.ask(kind) is True


def test_one_that_takes_connections_and_says_nothing_is_alive(holding: Server) -> None:
    assert holding.ask("tcp") is True


def test_one_inbound_that_lives_is_enough(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listeners = [
            Listener("tcp", "127.0.0.1", silent.getsockname()[1]),
            Listener("tcp", "127.0.0.1", server.port),
        ]
        assert takes_connections(server.process.pid, listeners, seconds=PATIENCE) is True
        assert takes_connections(server.process.pid, listeners[:1], seconds=SECONDS) is False


def test_where_nothing_can_be_asked_only_a_process_that_was_stopped_is_silent(server: Server) -> None:
    nobody = [Listener("tcp", "127.0.0.1", free_port()), Listener("unix", "@nobody")]
    assert takes_connections(server.process.pid, nobody) is None
    server.stop()
    assert takes_connections(server.process.pid, nobody) is False
    assert takes_connections(2**22 + 1, []) is None, "it has gone"


def test_a_listener_for_all_addresses_is_reached_without_ipv6(server: Server) -> None:
    assert takes_connections(server.process.pid, [Listener("tcp", "::", server.port)], seconds=PATIENCE) is True
    assert takes_connections(server.process.pid, [Listener("tcp", "::1", server.port)], seconds=SECONDS) is None


def test_a_queue_that_is_full_is_silence(server: Server, tmp_path: Path) -> None:
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(path)
        full.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            assert takes_connections(server.process.pid, [Listener("unix", path)], seconds=SECONDS) is False


def test_without_a_socket_nothing_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_arguments: object) -> socket.socket:
        raise OSError(24, "no descriptor is left")

    monkeypatch.setattr(socket, "socket", none)
    assert server.ask("tcp") is None
