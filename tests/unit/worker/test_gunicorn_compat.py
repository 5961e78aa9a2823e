"""What is used of Gunicorn and its parser beyond what they promise: it exists, and Gunicorn calls it as relied on.

The first part is a list of every such member, with its signature. The rest runs a real worker, a real connection and the
real parser, and shows that each hook is called when this project needs it.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from gunicorn.asgi import protocol
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from pgnode.errors import DependencyError
from pgnode.worker import gunicorn_compat
from pgnode.worker.gunicorn_compat import FAST_PARSER_INSTALLED, HttpConnection, HttpWorker, choose_parser
from tests.support.gunicorn_worker import lifespan, serving
from tests.support.polling import eventually

#: Members of the connection's class, private or without documentation, and what they take.
CONNECTION = {
    "_build_http_scope": "(self, request, sockname, peername)",
    "_check_h1c_protocol_available": "()",
    "_close_transport": "(self)",
    "_feed_callback_parser": "(self, data)",
    "_get_reason_phrase": "(self, status)",
    "_http1_buffered": "(self)",
    "_is_websocket_upgrade": "(self, request)",
    "_on_headers_complete": "(self)",
    "_safe_write": "(self, data)",
    "_send_error_response": "(self, status, message, extra_headers=())",
    "_will_close": "(self, request, response_requires_close)",
    "connection_lost": "(self, exc)",
    "connection_made": "(self, transport)",
    "pause_writing": "(self)",
    "resume_writing": "(self)",
}

#: Attributes of a connection.
CONNECTION_ATTRIBUTES = {"_awaiting_request", "_callback_parser", "_finishing_calls", "_request_ready"}

#: Where the connection's class keeps the parser's.
CLASS_ATTRIBUTES = {"_h1c_protocol_class"}

#: Of the module of the connection's class.
MODULE_ATTRIBUTES = {"_CACHED_SERVER_HEADER"}

WORKER = {
    "_serve": "(self)",
    "_shutdown": "(self)",
    "handle_exit_signal": "(self)",
    "init_process": "(self)",
}

#: Attributes of a worker.
WORKER_ATTRIBUTES = {"alive", "loop", "servers"}

#: The parsers that are there.
PARSERS = ["python", *(["fast"] if FAST_PARSER_INSTALLED else [])]

#: What this project's classes add.
OURS: dict[type, set[str]] = {
    HttpConnection: {"_tail", "closed", "close", "error_content", "flows", "headers_read", "is_idle", "last_answer"}
    | {"opened", "request_begun", "scope_built", "stalled", "was_asked"},
    HttpWorker: {"_main", "about_to_end", "arriving", "connection_class", "connections"},
}


@pytest.fixture(autouse=True)
def untouched() -> Any:
    """Gunicorn's module is left as it was found."""
    names = [name for name in vars(ASGIProtocol) if name.startswith("_h1c")]
    before = {name: vars(ASGIProtocol)[name] for name in names}
    server_header = protocol._CACHED_SERVER_HEADER
    yield
    protocol._CACHED_SERVER_HEADER = server_header
    gasgi.ASGIProtocol = ASGIProtocol
    for name, value in before.items():
        setattr(ASGIProtocol, name, value)


# --- every member -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONNECTION)
def test_a_member_of_the_connection(name: str) -> None:
    assert str(inspect.signature(getattr(ASGIProtocol, name))) == CONNECTION[name]
    assert not inspect.iscoroutinefunction(getattr(ASGIProtocol, name))


@pytest.mark.parametrize("name", WORKER)
def test_a_member_of_the_worker(name: str) -> None:
    assert str(inspect.signature(getattr(gasgi.ASGIWorker, name))) == WORKER[name]
    assert inspect.iscoroutinefunction(getattr(gasgi.ASGIWorker, name)) == name.startswith("_")


def test_attributes_are_there() -> None:
    worker = mock.Mock()
    assert vars(ASGIProtocol(worker)).keys() >= CONNECTION_ATTRIBUTES
    assert vars(ASGIProtocol).keys() >= CLASS_ATTRIBUTES
    assert vars(protocol).keys() >= MODULE_ATTRIBUTES
    made = gasgi.ASGIWorker(
        1, 1, [], None, 15, mock.MagicMock(max_requests=0, worker_tmp_dir=None, umask=0), mock.Mock()
    )
    made.tmp.close()
    assert vars(made).keys() >= WORKER_ATTRIBUTES


def test_every_private_member_that_is_used_is_listed_here() -> None:
    tree = ast.parse(Path(gunicorn_compat.__file__).read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    listed = {*CONNECTION, *CONNECTION_ATTRIBUTES, *CLASS_ATTRIBUTES, *MODULE_ATTRIBUTES, *WORKER}
    assert private - {"_tail", "_main"} == {name for name in listed if name.startswith("_")}


@pytest.mark.parametrize("ours", OURS)
def test_what_is_added_hides_nothing_of_gunicorns(ours: type) -> None:
    theirs = ours.__mro__[1]
    assert {name for name in OURS[ours] if hasattr(theirs, name)} == set()
    added = {name for name in vars(ours) if not name.startswith("__") and not hasattr(theirs, name)}
    assert added - OURS[ours] == set()


@pytest.mark.parametrize(
    ("wanted", "installed", "chosen"),
    [("auto", True, "fast"), ("auto", False, "python"), ("fast", True, "fast"), ("python", True, "python")],
)
def test_the_fast_parser_is_chosen_where_it_is_there(wanted: str, installed: bool, chosen: str) -> None:
    assert choose_parser(wanted, fast_installed=installed) == chosen


def test_a_fast_parser_that_is_asked_for_and_missing_is_an_error() -> None:
    with pytest.raises(DependencyError, match=r"HTTP_PARSER=fast needs gunicorn_h1c.*C compiler"):
        choose_parser("fast", fast_installed=False)


def test_versions_are_checked() -> None:
    with mock.patch("pgnode.dependencies.check") as asked:
        gunicorn_compat.check()
    asked.assert_called_once_with("gunicorn", "gunicorn_h1c")


def request(body: bytes) -> bytes:
    return b"PUT /x HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


# --- a worker, and its connections --------------------------------------------------------------------------------


class Recording(HttpConnection):
    """Writes down which hooks were called."""

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self.calls: list[str] = []
        worker.seen.append(self)

    def opened(self) -> None:
        self.calls.append("opened")
        super().opened()

    def request_begun(self) -> None:
        self.calls.append("request_begun")
        super().request_begun()

    def headers_read(self) -> None:
        self.calls.append("headers_read")
        super().headers_read()

    def scope_built(self, scope: dict[str, Any]) -> None:
        self.calls.append(f"scope_built {scope['path']}")
        scope["added"] = self
        super().scope_built(scope)

    def stalled(self) -> None:
        self.calls.append("stalled")
        super().stalled()

    def flows(self) -> None:
        self.calls.append("flows")
        super().flows()

    def closed(self) -> None:
        self.calls.append("closed")
        super().closed()

    def error_content(self, status: int, message: str) -> tuple[str, bytes]:
        self.calls.append(f"error_content {status}")
        return "text/x-test", b"%d!" % status


class RecordingWorker(HttpWorker):
    connection_class = Recording

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[Recording] = []
        self.ended: list[tuple[bool, int]] = []

    async def about_to_end(self) -> None:
        self.ended.append((any(server.is_serving() for server in self.servers), len(self.connections)))
        for connection in list(self.connections):
            if connection.is_idle:
                connection.close()
        await super().about_to_end()


class App:
    """Answers with what it got; /large with a lot, /wait when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.scopes: list[Any] = []
        self.gone = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                self.gone += 1
                return
            body, more = body + event["body"], event["more_body"]
        if scope["path"] == "/wait":
            await self.go_on.wait()
        answer = bytes(50_000_000) if scope["path"] == "/large" else body or b"nothing"
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at in range(0, len(answer), 1_000_000):
            more = at + 1_000_000 < len(answer)
            await send({"type": "http.response.body", "body": answer[at : at + 1_000_000], "more_body": more})


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        return int(head.split()[1]), await reader.readexactly(length)


async def test_the_hooks_come_in_order_and_the_scope_may_be_added_to() -> None:
    app = App()
    async with serving(RecordingWorker, app) as (worker, port):
        async with connected(port) as (reader, writer):
            for number in range(2):
                writer.write(request(b"%d" % number))
                assert await answer_of(reader) == (200, b"%d" % number)
            [connection] = worker.seen
            assert worker.connections == {connection}
            assert connection.was_asked
            await eventually(lambda: connection.is_idle, "nothing goes on")
            assert connection.calls == ["opened", *["headers_read", "scope_built /x"] * 2]
        await eventually(lambda: not worker.connections, "the connection has gone")
        assert connection.calls[5:] == ["closed", "flows"]
        assert all(scope["added"] is connection for scope in app.scopes)
        assert worker.nr_conns == 0


async def test_the_beginning_of_a_request_is_told_until_its_headers_are_complete() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        # Half of a second request comes in the packet of the first.
        writer.write(request(b"one") + b"PUT /x HT")
        assert await answer_of(reader) == (200, b"one")
        [connection] = worker.seen
        await eventually(lambda: "request_begun" in connection.calls, "the beginning was told")
        assert not connection._request_ready.is_set()
        writer.write(b"TP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\ntwo")
        assert await answer_of(reader) == (200, b"two")
        assert connection.calls[-2:] == ["headers_read", "scope_built /x"]


async def test_nothing_is_said_of_the_server_and_no_upgrade_is_made() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: n\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    app = App()
    async with serving(RecordingWorker, app) as (_, port), connected(port) as (reader, writer):
        writer.write(upgrade + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200 ")
        assert b"server:" not in head
        assert b"unicorn" not in head
        assert app.scopes[-1]["type"] == "http"


async def test_the_last_answer_of_a_connection_ends_it() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(request(b"one"))
        assert await answer_of(reader) == (200, b"one")
        worker.seen[0].last_answer = True
        # What follows it in the same packet is not answered.
        writer.write(request(b"two") * 3)
        assert await answer_of(reader) == (200, b"two")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_request_line_without_a_version_is_answered_at_once(parser: str) -> None:
    async with serving(RecordingWorker, App(), http_parser=parser) as (_, port), connected(port) as (reader, writer):
        writer.write(b"GET /info\r\n")
        assert (await answer_of(reader))[0] == 400


async def test_a_first_request_in_pieces() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(b"PUT /x HTTP/1.1\r\n")
        await eventually(lambda: worker.seen and "request_begun" in worker.seen[0].calls, "the beginning was told")
        assert not worker.seen[0].was_asked
        assert not worker.seen[0].is_idle
        writer.write(b"Host: n\r\nContent-Length: 4\r\n\r\nbo")
        await eventually(lambda: worker.seen[0].was_asked, "the headers are there")
        calls = list(worker.seen[0].calls)
        writer.write(b"dy")
        assert await answer_of(reader) == (200, b"body")
        assert worker.seen[0].calls[: len(calls)] == calls
        assert worker.seen[0].calls.count("request_begun") == 1, "not for what belongs to the body"


async def test_closing_an_idle_connection_ends_its_task() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        await eventually(lambda: worker.seen, "the connection is there")
        worker.seen[0].close()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        await eventually(worker.seen[0]._task.done, "Gunicorn's task for it has ended")
        assert worker.seen[0].calls == ["opened", "closed", "flows"]
        writer.close()


async def test_a_request_under_way_is_not_idle() -> None:
    app = App()
    async with serving(RecordingWorker, app) as (worker, port), connected(port) as (reader, writer):
        writer.write(b"GET /wait HTTP/1.1\r\nHost: n\r\n\r\n")
        await eventually(lambda: app.scopes, "it is under way")
        assert not worker.seen[0].is_idle
        app.go_on.set()
        assert await answer_of(reader) == (200, b"nothing")


async def test_a_request_that_nobody_has_seen_yet_is_not_idle() -> None:
    """Not one in the socket, nor one that was parsed while the connection's task has not learnt of it, nor a part of one."""
    get = b"GET / HTTP/1.1\r\nHost: n\r\n\r\n"
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(get)
        assert await answer_of(reader) == (200, b"nothing")
        [connection] = worker.seen
        await eventually(lambda: connection.is_idle, "nothing goes on")
        # Nothing of the event loop runs in between.
        os.write(writer.get_extra_info("socket").fileno(), get)
        assert not connection.is_idle
        assert await answer_of(reader) == (200, b"nothing")
        await eventually(lambda: connection.is_idle, "nothing goes on")
        connection.data_received(get[:10])
        assert not connection.is_idle
        connection.data_received(get[10:])
        assert connection._awaiting_request
        assert not connection.is_idle
        assert await answer_of(reader) == (200, b"nothing")


async def test_a_caller_that_does_not_read_is_told_to_the_hooks() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(b"GET /large HTTP/1.1\r\nHost: n\r\n\r\n")
        await eventually(lambda: worker.seen and "stalled" in worker.seen[0].calls, "the buffer is full")
        assert worker.seen[0].calls[-1] == "stalled"
        status, body = await answer_of(reader)
        assert (status, len(body)) == (200, 50_000_000)
        assert "flows" in worker.seen[0].calls


async def test_a_caller_that_goes_frees_who_waits_for_room() -> None:
    async with serving(RecordingWorker, App()) as (worker, port):
        async with connected(port) as (_, writer):
            writer.write(b"GET /large HTTP/1.1\r\nHost: n\r\n\r\n")
            await eventually(lambda: worker.seen and "stalled" in worker.seen[0].calls, "the buffer is full")
            writer.transport.abort()
        await eventually(worker.seen[0]._task.done, "the answer's task has ended", 0.9)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 10_000 + b"\r\n\r\n", 431),
        (b"PUT /x HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_what_is_no_request_is_answered_in_our_form(data: bytes, status: int) -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.read() == b"%d!" % status
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"content-type: text/x-test\r\ncontent-length: 4\r\nconnection: close\r\n" in head
        assert f"error_content {status}" in worker.seen[0].calls


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_length_that_is_too_long_for_a_number_is_answered(parser: str) -> None:
    async with (
        serving(RecordingWorker, App(), http_parser=parser) as (_, port),
        connected(port) as (reader, writer),
    ):
        writer.write(b"PUT /x HTTP/1.1\r\nHost: n\r\nContent-Length: " + b"1" * 5000 + b"\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
            assert await reader.read() == b"400!"


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_large_request_that_comes_too_early_is_answered_and_counted(parser: str) -> None:
    app = App()
    large = bytes(200_000)
    async with serving(RecordingWorker, app, http_parser=parser) as (worker, port), connected(port) as (reader, writer):
        writer.write(b"PUT /wait HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\n\r\nok" + request(large))
        await writer.drain()
        await eventually(lambda: worker.seen and worker.seen[0]._http1_buffered() > 100_000, "what waits is counted")
        assert worker.seen[0]._http1_buffered() <= len(request(large))
        app.go_on.set()
        assert await answer_of(reader) == (200, b"ok")
        assert await answer_of(reader) == (200, large)
        assert worker.seen[0].calls.count("headers_read") == 2
        name = {"fast": "RoomyParser", "python": "PythonProtocol"}[parser]
        assert type(worker.seen[0]._callback_parser).__name__ == name


async def test_a_worker_that_is_told_to_end_ends_at_once_and_in_order() -> None:
    app = App()
    async with serving(RecordingWorker, app) as (worker, port):
        async with connected(port) as (reader, writer), connected(port) as (busy_reader, busy):
            writer.write(request(b"one"))
            assert await answer_of(reader) == (200, b"one")
            busy.write(b"GET /wait HTTP/1.1\r\nHost: n\r\n\r\n")
            await eventually(lambda: len(app.scopes) == 2, "one request is under way")
            began = asyncio.get_running_loop().time()
            worker.handle_exit_signal()
            assert not worker.alive
            async with asyncio.timeout(5):
                assert await reader.read() == b"", "the idle connection is closed"
            assert asyncio.get_running_loop().time() - began < 0.9, "not at the main loop's next turn"
            assert worker.ended == [(False, 2)], "nothing was accepted any more, and both were still known"
            worker.handle_exit_signal()  # once more changes nothing
            app.go_on.set()
            assert await answer_of(busy_reader) == (200, b"nothing")
        assert len(worker.ended) == 1


async def test_an_order_to_end_before_it_serves_is_obeyed_when_it_does() -> None:
    class Ending(RecordingWorker):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.handle_exit_signal()

    async with serving(Ending, App()) as (worker, _):
        await eventually(lambda: worker.ended, "it ends")


def test_a_process_that_becomes_a_worker_uses_our_classes() -> None:
    made = RecordingWorker(
        1, 1, [], None, 15, mock.MagicMock(max_requests=0, worker_tmp_dir=None, umask=0), mock.Mock()
    )
    with mock.patch.object(gasgi.ASGIWorker, "init_process") as run:
        made.init_process()
    made.tmp.close()
    run.assert_called_once_with()
    assert gasgi.ASGIProtocol is Recording
    assert ASGIProtocol._h1c_available is FAST_PARSER_INSTALLED
    if FAST_PARSER_INSTALLED:
        assert ASGIProtocol._h1c_protocol_class.__name__ == "RoomyParser"
    assert ASGIProtocol._h1c_has_limits is FAST_PARSER_INSTALLED, (
        "found through the base class, where the parser's set-up looks"
    )


def test_a_connection_has_to_say_what_an_error_looks_like() -> None:
    with pytest.raises(NotImplementedError):
        HttpConnection(mock.Mock()).error_content(400, "")


def test_what_gunicorn_takes_for_its_settings() -> None:
    assert {"bind", "workers", "worker_class", "post_fork"} <= gunicorn_compat.known_settings()
    gunicorn_compat.check_setting("workers", 3)
    with pytest.raises(ValueError, match="many"):
        gunicorn_compat.check_setting("workers", "many")
