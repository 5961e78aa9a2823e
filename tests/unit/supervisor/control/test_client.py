"""Asking a supervisor that is not there, hangs, or is something else."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgnode.supervisor.control.client import DeclinedError, NobodyListensError, NotAnsweredError, SilentError, ask
from pgnode.supervisor.control.messages import SOCKET_NAME


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pgn") as made:
        yield Path(made)


@contextmanager
def answering(folder: Path, answer: bytes | None) -> Iterator[None]:
    """Somebody who takes a connection and says this; None: who takes none."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / SOCKET_NAME))
        server.listen(1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer or b"")

        thread = threading.Thread(target=serve, daemon=True)
        if answer is not None:
            thread.start()
        yield
        if answer is not None:
            thread.join(30)


def test_nobody_is_there(folder: Path) -> None:
    with pytest.raises(NobodyListensError, match="No such file"):
        ask(folder, "status")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / SOCKET_NAME))
    with pytest.raises(NobodyListensError, match="Connection refused"):
        ask(folder, "status")


def test_one_that_hangs_is_left_after_a_while(folder: Path) -> None:
    with answering(folder, None):
        with pytest.raises(SilentError, match=r"did not answer within 0.05 s"):
            ask(folder, "status", seconds=0.05)
        with pytest.raises(SilentError):
            ask(folder, "status", seconds=-1)


def test_what_may_not_be_used_is_told(folder: Path) -> None:
    (folder / SOCKET_NAME).mkdir()
    with pytest.raises(NotAnsweredError, match=r"nobody listens|cannot be used"):
        ask(folder, "status")
    with pytest.raises(NotAnsweredError, match="cannot be used"):
        ask(Path("/" + "x" * 200), "status")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"error": "not for you"}\n', "^not for you$"),
        (b"HTTP/1.1 400 Bad Request\r\n", "answered something else"),
        (b"", "answered something else"),
    ],
)
def test_other_answers_are_told(folder: Path, answer: bytes, error: str) -> None:
    with answering(folder, answer), pytest.raises(NotAnsweredError, match=error):
        ask(folder, "status", seconds=30)


def test_an_answer_is_returned(folder: Path) -> None:
    with answering(folder, b'{"answer": {"a": 1}}\n'):
        assert ask(folder, "status", seconds=30) == {"a": 1}


def test_a_refusal_is_told_apart(folder: Path) -> None:
    with answering(folder, b'{"error": "not for you"}\n'), pytest.raises(DeclinedError, match="not for you"):
        ask(folder, "status", {"more": 1}, seconds=30)


def test_too_long_an_answer_is_not_read_to_its_end(folder: Path) -> None:
    with answering(folder, b'{"answer": {"a": 1}}\n'), pytest.raises(NotAnsweredError, match="too long"):
        ask(folder, "status", seconds=30, answer_max=3)
