"""The supervisor's way into a core: its own thread where it has one, else from outside; and what is said where neither goes."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from pgnode.os_support import process_sockets
from pgnode.os_support.tcp_ends import Door
from pgnode.xray.process import reach_inside
from pgnode.xray.process.reach import UnreachableError, look_into
from pgnode.xray.process.reach_messages import REACH_NAME, Question
from pgnode.xray.process.running import RunningCore


class _Running:
    """A process as a core; this one, where none is named."""

    def __init__(self, run_dir: Path, pid: int) -> None:
        self.run_dir, self.pid = run_dir, pid


def running(folder: Path, pid: int | None = None) -> RunningCore:
    return cast("RunningCore", _Running(folder, os.getpid() if pid is None else pid))


async def shut_one(folder: Path) -> None:
    """One connection of this process is ended."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as ours, listening.accept()[0]:
            asked = Question([Door("", ((port, port),))], [("127.0.0.1", ours.getsockname()[1], 0)])
            seen = await look_into(running(folder), asked)
            assert len(seen.cut) == 1
            assert ours.recv(1) == b""


async def test_a_core_answers_itself(tmp_path: Path) -> None:
    assert reach_inside.begin(tmp_path / REACH_NAME)
    await shut_one(tmp_path)


async def test_one_without_a_thread_is_looked_into_from_outside(tmp_path: Path) -> None:
    await shut_one(tmp_path)


async def test_who_answers_in_its_place_is_not_asked(tmp_path: Path) -> None:
    assert reach_inside.begin(tmp_path / REACH_NAME)
    child = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)), listening.accept()[0]:
                # Not this process's connections, but those of the other one.
                asked = Question([Door("", ((port, port),))], listed=True)
                assert (await look_into(running(tmp_path, child.pid), asked)).found == []
    finally:
        child.kill()
        await child.wait()


def served(path: Path, answer: bytes) -> None:
    """Answer one caller on a socket."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()


@pytest.mark.parametrize(
    ("answer", "text"), [(b'{"error": "no room"}\n', "no room"), (b"[]\n", "else"), (b'{"found"', "in the middle")]
)
async def test_a_core_that_cannot_answer_says_so(tmp_path: Path, answer: bytes, text: str) -> None:
    served(tmp_path / REACH_NAME, answer)
    with pytest.raises(OSError, match=text):
        await look_into(running(tmp_path), Question([]))


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [(1, UnreachableError, "ptrace_scope"), (38, UnreachableError, "5.6"), (24, OSError, "Too many")],
)
async def test_where_the_system_refuses_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], text: str
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(process_sockets.OtherDescriptors, "duplicate", refuse)
    with pytest.raises(kind, match=text):
        await look_into(running(tmp_path), Question([]))
