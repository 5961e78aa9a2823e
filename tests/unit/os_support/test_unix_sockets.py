"""Whether somebody takes connections on a unix socket."""

from __future__ import annotations

import socket
from pathlib import Path

from pgnode.os_support.unix_sockets import is_served


def test_who_listens_is_there_also_where_nobody_is_let_in(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not is_served(path), "no file"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not is_served(path), "bound alone"
        server.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(path))
            assert is_served(str(path)), "the queue is full: it stands still"
    assert not is_served(path), "a file that nobody serves"


def test_a_path_that_no_socket_can_have_is_not_served(tmp_path: Path) -> None:
    assert not is_served(tmp_path / ("x" * 200))
