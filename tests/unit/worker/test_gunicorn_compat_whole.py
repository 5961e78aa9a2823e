"""Requests that are answered as a whole by a real worker, without the application: alike, in order, and as long as it may."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable
from typing import Any

import pytest

from pgnode.worker.gunicorn_compat import Whole
from pgnode.worker.http_parsers import FAST_PARSER_INSTALLED
from tests.support.gunicorn_worker import App, Recording, RecordingWorker, answer_of, connected, request, serving
from tests.support.polling import eventually, next_turn

#: The parsers that are there.
PARSERS = ["python", *(["fast"] if FAST_PARSER_INSTALLED else [])]


class Answering(Recording):
    """Answers by itself what is sent to /now, and to /soon when it is told to; everything else is the application's."""

    def answer_whole(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Whole | Awaitable[Whole] | None:
        super().answer_whole(method, path, headers, body)
        self.calls.append(f"{method} {path} {len(headers)} {body.decode()}")
        if path == "/now":
            return answer_to(body)
        return self._soon(body) if path in ("/soon", "/fault") else None

    async def _soon(self, body: bytes) -> Whole:
        await self.worker.go_on.wait()
        if body == b"fault":
            raise ValueError("a fault")
        return answer_to(body)


class AnsweringWorker(RecordingWorker):
    connection_class = Answering

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.go_on = asyncio.Event()


def answer_to(body: bytes) -> Whole:
    """What :class:`App` answers, too."""
    answer = bytes(50_000_000) if body == b"large" else body or b"nothing"
    return 200, [(b"content-length", b"%d" % len(answer))], answer


def to(path: str, body: bytes, *, version: str = "1.1", more: bytes = b"") -> bytes:
    head = b"PUT %b HTTP/%b\r\nHost: n\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path.encode(), version.encode(), more, len(body)) + body


async def whole_answer(reader: asyncio.StreamReader) -> bytes:
    """All bytes of an answer, but for the time in it."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return re.sub(rb"(?i)date: [^\r]*\r\n", b"", head) + await reader.readexactly(size)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("body", [b"", b"one"])
@pytest.mark.parametrize(
    ("version", "more", "ends"),
    [
        ("1.1", b"", False),
        ("1.1", b"Connection: close\r\n", True),
        ("1.0", b"", True),
        ("1.0", b"Connection: keep-alive\r\n", False),
        ("1.1", b"Expect: 100-continue\r\n", False),
    ],
)
async def test_it_is_the_applications_to_the_byte(
    parser: str, body: bytes, version: str, more: bytes, *, ends: bool
) -> None:
    app, found = App(), []
    async with serving(AnsweringWorker, app, http_parser=parser) as (_, port):
        for path in ("/now", "/app"):
            async with connected(port) as (reader, writer):
                writer.write(to(path, body, version=version, more=more))
                found.append(await whole_answer(reader))
                if ends:
                    async with asyncio.timeout(10):
                        assert await reader.read() == b""
                else:
                    writer.write(to("/now", b"again"))
                    assert await answer_of(reader) == (200, b"again")
    assert found[0] == found[1]
    assert [scope["path"] for scope in app.scopes] == ["/app"]


@pytest.mark.parametrize("parser", PARSERS)
async def test_answers_come_in_the_order_of_the_requests(parser: str) -> None:
    """All in one packet: those of the application between those that are answered at once, and those that take a while."""
    app = App()
    async with (
        serving(AnsweringWorker, app, http_parser=parser) as (worker, port),
        connected(port) as (reader, writer),
    ):
        paths = ["/now", "/soon", "/now", "/app", "/now", "/app", "/soon"]
        writer.write(b"".join(to(path, b"%d" % number) for number, path in enumerate(paths)))
        assert await answer_of(reader) == (200, b"0")
        await next_turn()
        assert not app.scopes
        worker.go_on.set()
        for number in range(1, len(paths)):
            assert await answer_of(reader) == (200, b"%d" % number)
        assert len(app.scopes) == paths.count("/app")
        assert worker.nr == len(paths)


@pytest.mark.parametrize("parser", PARSERS)
async def test_others_have_their_turns_between_requests_that_came_in_one_go(parser: str) -> None:
    async with (
        serving(AnsweringWorker, App(), http_parser=parser) as (worker, port),
        connected(port) as (reader, writer),
    ):
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await next_turn()

        count = 200
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(others())
            writer.write(to("/now", b"") * count)
            for _ in range(count):
                assert await answer_of(reader) == (200, b"nothing")
            other.cancel()
        assert sum(call.startswith("PUT /now") for call in worker.seen[0].calls) == count
        assert turns >= count


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_body_that_is_not_there_yet_is_the_applications(parser: str) -> None:
    app = App()
    async with (
        serving(AnsweringWorker, app, http_parser=parser) as (worker, port),
        connected(port) as (reader, writer),
    ):
        whole = to("/now", b"in two")
        writer.write(whole[:-3])
        await eventually(lambda: app.scopes, "the application is called")
        writer.write(whole[-3:])
        assert await answer_of(reader) == (200, b"in two")
        assert not any("/now" in call and call.startswith("PUT") for call in worker.seen[0].calls)


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_body_of_several_parts_is_put_together(parser: str) -> None:
    app = App()
    async with (
        serving(AnsweringWorker, app, http_parser=parser) as (worker, port),
        connected(port) as (reader, _),
    ):
        await eventually(lambda: worker.seen, "the connection is there")
        whole = to("/now", b"in three parts")
        # All of them before Gunicorn's task for the connection has its turn.
        for piece in (whole[:-9], whole[-9:-4], whole[-4:]):
            worker.seen[0].data_received(piece)
        assert await answer_of(reader) == (200, b"in three parts")
        assert not app.scopes
        assert worker.seen[0]._response_buffer is None


async def test_hooks_and_idleness_are_as_ever() -> None:
    async with serving(AnsweringWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(to("/soon", b"one"))
        await eventually(lambda: worker.seen and worker.seen[0].calls[-1:] == ["PUT /soon 2 one"], "it is under way")
        [connection] = worker.seen
        assert not connection.is_idle
        worker.go_on.set()
        assert await answer_of(reader) == (200, b"one")
        await eventually(lambda: connection.is_idle, "nothing goes on")
        assert connection.calls == ["opened", "headers_read", "PUT /soon 2 one"]


async def test_a_caller_that_goes_meanwhile_ends_the_call() -> None:
    async with serving(AnsweringWorker, App()) as (worker, port):
        async with connected(port) as (_, writer):
            writer.write(to("/soon", b"one"))
            await eventually(
                lambda: worker.seen and worker.seen[0].calls[-1:] == ["PUT /soon 2 one"], "it is under way"
            )
        # As for an application: it has a moment to come to its end.
        await eventually(worker.seen[0]._task.done, "Gunicorn's task for it has ended")
        assert not worker.connections


async def test_an_answer_to_somebody_who_has_gone_is_dropped() -> None:
    async with serving(AnsweringWorker, App()) as (worker, port):
        async with connected(port) as (_, writer):
            writer.write(to("/soon", b"one"))
            await eventually(
                lambda: worker.seen and worker.seen[0].calls[-1:] == ["PUT /soon 2 one"], "it is under way"
            )
        [connection] = worker.seen
        await eventually(lambda: "closed" in connection.calls, "the caller has gone")
        written: list[bytes] = []
        connection._safe_write = written.append
        worker.go_on.set()
        await eventually(connection._task.done, "Gunicorn's task for it has ended")
        assert written == []


async def test_a_fault_ends_the_connection_and_no_other() -> None:
    async with (
        serving(AnsweringWorker, App(), loglevel="critical") as (worker, port),
        connected(port) as (reader, writer),
        connected(port) as (other, to_other),
    ):
        worker.go_on.set()
        writer.write(to("/fault", b"fault"))
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        to_other.write(to("/now", b"one"))
        assert await answer_of(other) == (200, b"one")


async def test_who_does_not_read_is_waited_for() -> None:
    async with serving(AnsweringWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(to("/now", b"large") + to("/now", b"two"))
        await eventually(lambda: worker.seen and "stalled" in worker.seen[0].calls, "there is no room")
        assert sum(call.startswith("PUT") for call in worker.seen[0].calls) == 1
        assert len((await whole_answer(reader)).partition(b"\r\n\r\n")[2]) == 50_000_000
        assert await answer_of(reader) == (200, b"two")


@pytest.mark.parametrize("setting", ["access_log", "pre_request", "post_request"])
async def test_where_gunicorn_tells_of_each_request_the_application_answers(setting: str) -> None:
    told: list[str] = []
    settings: dict[str, dict[str, Any]] = {
        "access_log": {"accesslog": "-", "loglevel": "critical"},
        "pre_request": {"pre_request": lambda _worker, _request: told.append("pre")},
        "post_request": {"post_request": lambda _worker, _request, _environ, _response: told.append("post")},
    }
    app = App()
    async with serving(AnsweringWorker, app, **settings[setting]) as (_, port), connected(port) as (reader, writer):
        writer.write(request(b"one").replace(b"/x", b"/now"))
        assert await answer_of(reader) == (200, b"one")
        await eventually(lambda: told or setting == "access_log", "the hook is called")
    assert len(app.scopes) == 1


async def test_a_worker_that_ends_says_so_in_its_last_answer() -> None:
    async with serving(AnsweringWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(to("/soon", b"one"))
        await eventually(lambda: worker.seen and worker.seen[0].calls[-1:] == ["PUT /soon 2 one"], "it is under way")
        worker.alive = False
        worker.go_on.set()
        assert b"\r\nConnection: close\r\n" in await whole_answer(reader)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        worker.alive = True
