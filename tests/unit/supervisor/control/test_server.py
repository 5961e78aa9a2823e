"""Questions over a socket: answered, refused, and asked in ways that nobody should."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.control.client import DeclinedError, NobodyListensError, NotAnsweredError, ask
from pgnode.supervisor.control.messages import (
    QUESTION_MAX,
    SOCKET_NAME,
    Question,
    RefusedError,
    encode_question,
)
from pgnode.supervisor.control.server import CONNECTIONS_MAX, ControlServer
from tests.support.polling import eventually, next_turn

Said = Mapping[str, Any]


async def _status(_values: Said) -> Said:
    return {"state": "running"}


async def _echo(values: Said) -> Said:
    if "secret" in values:
        raise RefusedError("that is nobody's business")
    return values


async def _never(_values: Said) -> Said:
    await asyncio.Event().wait()
    return {}


async def _fails(_values: Said) -> Said:
    raise RuntimeError("unexpected")


async def _lacks(_values: Said) -> Said:
    raise FileNotFoundError(2, "No such file or directory", "/proc/stat")


ANSWERS = {"echo": _echo, "status": _status, "never": _never, "fails": _fails, "lacks": _lacks}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pgn") as made:
        yield Path(made)


Serve = Callable[..., asyncio.Task[None]]


@pytest_asyncio.fixture
async def serve(folder: Path) -> AsyncIterator[Serve]:
    tasks: list[asyncio.Task[None]] = []

    def begin(**arguments: Any) -> asyncio.Task[None]:
        server = ControlServer(folder / SOCKET_NAME, ANSWERS, **arguments)
        tasks.append(asyncio.create_task(server.run()))
        return tasks[-1]

    yield begin
    await end_tasks(tasks)


async def asked(folder: Path, question: str = "status", *, seconds: float = 30.0) -> dict[str, Any]:
    return await asyncio.to_thread(ask, folder, question, seconds=seconds)


async def up(folder: Path) -> None:
    await eventually((folder / SOCKET_NAME).exists, "the socket is there")


async def test_who_may_ask_is_answered(folder: Path, serve: Serve) -> None:
    running = serve()
    await up(folder)
    assert await asked(folder) == {"state": "running"}
    assert stat.S_IMODE((folder / SOCKET_NAME).stat().st_mode) == 0o600
    await end_tasks([running])
    assert os.listdir(folder) == [], "nothing is left"
    with pytest.raises(NobodyListensError, match="nobody listens"):
        await asked(folder)


async def test_what_is_said_with_a_question_is_passed_on(folder: Path, serve: Serve) -> None:
    serve()
    await up(folder)
    assert await asyncio.to_thread(ask, folder, "echo", {"after": 3}, seconds=30.0) == {"after": 3}
    with pytest.raises(DeclinedError, match="nobody's business"):
        await asyncio.to_thread(ask, folder, "echo", {"secret": 3}, seconds=30.0)


async def test_for_who_has_gone_nothing_is_done(folder: Path) -> None:
    done: list[str] = []

    async def do(values: Said) -> Said:
        done.append(values["what"])
        return {}

    path = folder / SOCKET_NAME
    server = ControlServer(path, {"do": do})
    with socket.socket(socket.AF_UNIX) as listening:
        # It stood still, and who asked meanwhile has given up.
        listening.bind(str(path))
        listening.listen(2)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            caller.sendall(encode_question(Question("do", {"what": "too late"})))
        connection, _ = listening.accept()
    path.unlink()
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    server._take(reader, writer)
    await eventually(lambda: not server._tasks, "it was looked at")
    running = asyncio.create_task(server.run())
    try:
        await up(folder)
        assert await asyncio.to_thread(ask, folder, "do", {"what": "in time"}, seconds=30.0) == {}
    finally:
        await end_tasks([running])
    assert done == ["in time"]


async def test_others_are_refused(folder: Path, serve: Serve) -> None:
    serve(allowed=frozenset({os.geteuid() + 1}))
    await up(folder)
    with pytest.raises(NotAnsweredError, match="this node is another user's: be that user, or root"):
        await asked(folder)


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("nonsense", r"does not know the question 'nonsense'; it knows echo, fails, lacks, never, status"),
        ("never", r"did not have the answer within 0.05 s"),
        ("x" * QUESTION_MAX, "answered something else|limit|longer|cannot be used"),
    ],
)
async def test_what_cannot_be_answered_is_told(folder: Path, serve: Serve, question: str, error: str) -> None:
    serve(answer_seconds=0.05)
    await up(folder)
    with pytest.raises(NotAnsweredError, match=error):
        await asked(folder, question)


async def test_what_takes_longer_may(folder: Path) -> None:
    async def slow(_values: Said) -> Said:
        for _ in range(100):
            await next_turn()
        return {"done": True}

    server = ControlServer(folder / SOCKET_NAME, {"slow": slow, "never": _never}, slow=("slow",), answer_seconds=0.0)
    running = asyncio.create_task(server.run())
    await up(folder)
    try:
        assert await asked(folder, "slow") == {"done": True}
        with pytest.raises(NotAnsweredError, match="within 0 s"):
            await asked(folder, "never")
    finally:
        await end_tasks([running])


@pytest.mark.parametrize(("ask", "says"), [("fails", "unexpected"), ("lacks", "No such file")])
async def test_an_answer_that_fails_ends_nothing_and_is_told(folder: Path, serve: Serve, ask: str, says: str) -> None:
    serve()
    await up(folder)
    with structlog.testing.capture_logs() as lines, pytest.raises(NotAnsweredError, match=f"cannot tell .*{says}"):
        await asked(folder, ask)
    assert [(line["event"], line["ask"]) for line in lines] == [("a question was not answered", ask)]
    assert await asked(folder) == {"state": "running"}


async def test_who_does_not_ask_is_let_go(folder: Path, serve: Serve) -> None:
    serve(caller_seconds=0.05)
    await up(folder)
    reader, writer = await asyncio.open_unix_connection(str(folder / SOCKET_NAME))
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    assert await asked(folder) == {"state": "running"}


async def test_connections_are_bounded(folder: Path, serve: Serve) -> None:
    serve(caller_seconds=30.0)
    await up(folder)
    held = []
    for _ in range(CONNECTIONS_MAX):
        held.append(await asyncio.open_unix_connection(str(folder / SOCKET_NAME)))
    with pytest.raises(NotAnsweredError):
        await asked(folder)
    for _, writer in held:
        writer.close()

    async def answered() -> bool:
        return await asked(folder) == {"state": "running"}

    await eventually(answered, "there is room again", errors=(NotAnsweredError,))


async def test_a_socket_that_is_removed_is_made_again(folder: Path, serve: Serve) -> None:
    serve(check_seconds=0.01)
    await up(folder)
    first = (folder / SOCKET_NAME).stat().st_ino
    (folder / SOCKET_NAME).unlink()
    await up(folder)
    assert await asked(folder) == {"state": "running"}
    assert first


async def test_what_is_in_its_place_is_told_once_and_waited_for(
    folder: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / SOCKET_NAME).mkdir()
    (folder / f"{SOCKET_NAME}.new").touch()
    serve(check_seconds=0.01)
    out = ""

    async def told() -> bool:
        nonlocal out
        out += capsys.readouterr().out
        return "commands cannot ask this node" in out

    await eventually(told, "it is told")
    (folder / SOCKET_NAME).rmdir()

    async def answered() -> bool:
        return await asked(folder) == {"state": "running"}

    await eventually(answered, "it answers", errors=(NotAnsweredError,))
    assert (out + capsys.readouterr().out).count("commands cannot ask this node") == 1


async def test_a_socket_of_the_supervisor_before_is_replaced(folder: Path, serve: Serve) -> None:
    with socket.socket(socket.AF_UNIX) as before:
        before.bind(str(folder / SOCKET_NAME))
    serve()

    async def answered() -> bool:
        return await asked(folder) == {"state": "running"}

    await eventually(answered, "it answers", errors=(NotAnsweredError,))
