"""The thread in the core's process answers its own user over a private socket, and outlives whatever is asked."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

from pgnode.os_support.tcp_ends import Door
from pgnode.xray.process import reach_inside
from pgnode.xray.process.reach_messages import Question, decode_answer


def ask(path: Path, question: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(question)
        if not question.endswith(b"\n"):
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while data := connection.recv(65536):
            found += data
        return found


def test_it_shows_and_ends_connections_whatever_was_asked_before(tmp_path: Path) -> None:
    path = tmp_path / "reach.sock"
    path.touch()
    assert reach_inside.begin(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "error" in json.loads(ask(path, b"nonsense\n"))
    assert ask(path, b"no end") == b""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours, listening.accept()[0]:
            target = ("127.0.0.1", ours.getsockname()[1], 0)
            asked = Question([Door("", ((port, port),))], [target], listed=True)
            seen = decode_answer(ask(path, asked.encode()))
            assert seen.cut == [target]
            assert len(seen.found) == 1
            assert ours.recv(1) == b""


def test_a_core_goes_without_where_no_socket_can_be_made(tmp_path: Path) -> None:
    assert not reach_inside.begin(tmp_path / "missing" / "reach.sock")
