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
import ssl
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.asgi import protocol
from gunicorn.asgi.parser import PythonProtocol
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from pgnode.worker import gunicorn_compat
from pgnode.worker.gunicorn_compat import (
    HttpConnection,
    HttpWorker,
    LineLimitParser,
    keep_workers_in_want_of_room,
    sparing_the_others,
)
from pgnode.worker.http_parsers import FAST_PARSER_INSTALLED
from tests.support.certificates import make_certificate
from tests.support.gunicorn_worker import App, Recording, RecordingWorker, answer_of, connected, request, serving
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
    "_send_response_start": "(self, status, headers, request, close=False)",
    "_serve_http_request": "(self, request, sockname, peername)",
    "_will_close": "(self, request, response_requires_close)",
    "connection_lost": "(self, exc)",
    "connection_made": "(self, transport)",
    "pause_writing": "(self)",
    "resume_writing": "(self)",
}

#: Attributes of a connection.
CONNECTION_ATTRIBUTES = {"_awaiting_request", "_body_receiver", "_callback_parser", "_closed", "_finishing_calls"}
CONNECTION_ATTRIBUTES |= {"_flow_control", "_post_request", "_pre_request", "_request_ready", "_response_buffer"}

#: What a connection has of the body that comes.
RECEIVER_ATTRIBUTES = {"_chunks", "_complete"}

#: Where the connection's class keeps the parser's.
CLASS_ATTRIBUTES = {"_h1c_protocol_class"}

#: Of the module of the connection's class.
MODULE_ATTRIBUTES = {"_CACHED_SERVER_HEADER", "PythonProtocol"}

#: Members of Gunicorn's own parser, and what they take.
PARSER = {"_find_line": "(self, limit, error)"}

#: Members of the master, and what they take.
MASTER = {"manage_workers": "(self)", "spawn_worker": "(self)", "spawn_workers": "(self)"}

WORKER = {
    "_serve": "(self)",
    "_shutdown": "(self)",
    "handle_exit_signal": "(self)",
    "init_process": "(self)",
}

#: What a worker asks for in its turn, and what that takes.
ASKED = {"_get_ssl_context": "(self)", "notify": "(self)"}

#: Attributes of a worker.
WORKER_ATTRIBUTES = {"alive", "loop", "servers"}

#: What this project's classes add.
OURS: dict[type, set[str]] = {
    HttpConnection: {"_came_behind", "_may_answer_whole", "_send_whole", "answer_whole"}
    | {"_tail", "closed", "close", "error_content", "flows", "headers_read", "is_idle", "answer_is_last"}
    | {
        "_take_named_caller",
        "caller_named",
        "named_caller",
        "opened",
        "request_begun",
        "scope_built",
        "stalled",
        "was_asked",
    },
    LineLimitParser: set(),
    HttpWorker: {"_has_tls", "_main", "_tls", "about_to_end", "arriving", "connection_class", "connections"}
    | {"tls_again_seconds"},
}


@pytest.fixture(autouse=True)
def untouched() -> Any:
    """Gunicorn's module is left as it was found."""
    names = [name for name in vars(ASGIProtocol) if name.startswith("_h1c")]
    before = {name: vars(ASGIProtocol)[name] for name in names}
    server_header = protocol._CACHED_SERVER_HEADER
    yield
    protocol.PythonProtocol = PythonProtocol
    protocol._CACHED_SERVER_HEADER = server_header
    gasgi.ASGIProtocol = ASGIProtocol
    for name, value in before.items():
        setattr(ASGIProtocol, name, value)


# --- every member -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONNECTION)
def test_a_member_of_the_connection(name: str) -> None:
    assert str(inspect.signature(getattr(ASGIProtocol, name))) == CONNECTION[name]
    assert inspect.iscoroutinefunction(getattr(ASGIProtocol, name)) == (name == "_serve_http_request")


@pytest.mark.parametrize("name", ASKED)
def test_what_a_worker_asks_for(name: str) -> None:
    assert str(inspect.signature(getattr(gasgi.ASGIWorker, name))) == ASKED[name]


@pytest.mark.parametrize("name", WORKER)
def test_a_member_of_the_worker(name: str) -> None:
    assert str(inspect.signature(getattr(gasgi.ASGIWorker, name))) == WORKER[name]
    assert inspect.iscoroutinefunction(getattr(gasgi.ASGIWorker, name)) == name.startswith("_")


@pytest.mark.parametrize("name", MASTER)
def test_a_member_of_the_master(name: str) -> None:
    assert str(inspect.signature(getattr(Arbiter, name))) == MASTER[name]


@pytest.mark.parametrize("name", PARSER)
def test_a_member_of_the_parser(name: str) -> None:
    assert str(inspect.signature(getattr(PythonProtocol, name))) == PARSER[name]


def test_attributes_are_there() -> None:
    worker = mock.Mock()
    assert vars(ASGIProtocol(worker)).keys() >= CONNECTION_ATTRIBUTES
    assert set(protocol.BodyReceiver.__slots__) >= RECEIVER_ATTRIBUTES
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
    listed = {*CONNECTION, *CONNECTION_ATTRIBUTES, *CLASS_ATTRIBUTES, *MODULE_ATTRIBUTES, *PARSER, *WORKER, *ASKED}
    listed |= RECEIVER_ATTRIBUTES
    ours = {
        "_tail",
        "_main",
        "_take_named_caller",
        "_has_tls",
        "_tls",
        "_may_answer_whole",
        "_send_whole",
        "_came_behind",
    }
    assert private - ours == {name for name in listed if name.startswith("_")}


@pytest.mark.parametrize("ours", OURS)
def test_what_is_added_hides_nothing_of_gunicorns(ours: type) -> None:
    theirs = ours.__mro__[1]
    assert {name for name in OURS[ours] if hasattr(theirs, name)} == set()
    added = {name for name in vars(ours) if not name.startswith("__") and not hasattr(theirs, name)}
    assert added - OURS[ours] == set()


def test_versions_are_checked() -> None:
    with mock.patch("pgnode.dependencies.check") as asked:
        gunicorn_compat.check()
    asked.assert_called_once_with("gunicorn", "gunicorn_h1c")


# --- the master ---------------------------------------------------------------------------------------------------


def test_a_master_with_workers_outlives_a_want_of_room() -> None:
    # Pid, or what the system says.
    outcomes: list[int | OSError] = [
        BlockingIOError(11, "no room"),
        OSError(28, "full"),
        7,
        BlockingIOError(11, "again"),
    ]

    def spawn(_arbiter: Any) -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    made = sparing_the_others(spawn)
    arbiter = mock.Mock(WORKERS={5: object()}, pid=os.getpid())
    assert [made(arbiter) for _ in range(4)] == [None, None, 7, None]
    assert [str(call.args[1]) for call in arbiter.log.warning.call_args_list] == [
        "[Errno 11] no room",
        "[Errno 11] again",
    ]


@pytest.mark.parametrize(
    ("workers", "is_new"), [({}, False), ({5: object()}, True)], ids=["no worker", "a new process"]
)
def test_others_end_by_it(workers: dict[int, object], is_new: bool) -> None:
    def spawn(_arbiter: Any) -> int:
        raise BlockingIOError(11, "no room")

    with pytest.raises(BlockingIOError):
        sparing_the_others(spawn)(mock.Mock(WORKERS=workers, pid=1 if is_new else os.getpid()))


def test_gunicorns_master_makes_workers_that_way() -> None:
    before = Arbiter.spawn_worker
    try:
        for _ in range(2):
            keep_workers_in_want_of_room()
        arbiter = mock.Mock(WORKERS={5: object()}, num_workers=2, worker_age=0, timeout=15, pid=os.getpid())
        arbiter.spawn_worker = Arbiter.spawn_worker.__get__(arbiter)
        arbiter.worker_class.side_effect = OSError(24, "no file left")
        Arbiter.spawn_workers(arbiter)
        arbiter.log.warning.assert_called_once()
    finally:
        Arbiter.spawn_worker = before


# --- a worker, and its connections --------------------------------------------------------------------------------


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
        worker.seen[0].answer_is_last()
        # What follows it in the same packet is not answered.
        writer.write(request(b"two") * 3)
        assert await answer_of(reader) == (200, b"two")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""


async def test_closing_an_idle_connection_ends_its_task() -> None:
    async with serving(RecordingWorker, App()) as (worker, port), connected(port) as (reader, writer):
        await eventually(lambda: worker.seen, "the connection is there")
        worker.seen[0].close()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        await eventually(worker.seen[0]._task.done, "Gunicorn's task for it has ended")
        assert worker.seen[0].calls == ["opened", "closed", "flows"]
        writer.close()


#: What a proxy says first, in both forms: its caller is 198.51.100.7, port 4711.
NAMED = {
    "v1": b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 443\r\n",
    "v2": b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11\0\x0c" + bytes([198, 51, 100, 7, 203, 0, 113, 1]) + b"\x12\x67\x01\xbb",
}

#: And where it speaks for itself.
UNNAMED = {"v1": b"PROXY UNKNOWN\r\n", "v2": b"\r\n\r\n\0\r\nQUIT\n" + b"\x20\0\0\0"}


@pytest.mark.parametrize("form", NAMED)
@pytest.mark.parametrize("setting", ["auto", "own"])
async def test_who_calls_is_whom_a_proxy_names(form: str, setting: str) -> None:
    """For all requests of the connection, also where its bytes come one by one."""
    app = App()
    wanted = {"proxy_protocol": form if setting == "own" else "auto", "http_parser": "python"}
    async with serving(RecordingWorker, app, **wanted) as (worker, port), connected(port) as (reader, writer):
        for byte in NAMED[form] + request(b"one"):
            writer.write(bytes([byte]))
            await writer.drain()
        assert await answer_of(reader) == (200, b"one")
        writer.write(request(b"two"))
        assert await answer_of(reader) == (200, b"two")
        assert [scope["client"] for scope in app.scopes] == [("198.51.100.7", 4711)] * 2
        calls = [call for call in worker.seen[0].calls if call != "request_begun"]
        assert calls == ["opened", "caller_named 198.51.100.7", *["headers_read", "scope_built /x"] * 2]


@pytest.mark.parametrize("said", [b"", *UNNAMED.values()], ids=["nothing", *UNNAMED])
async def test_a_proxy_that_names_nobody_is_the_caller_itself(said: bytes) -> None:
    app = App()
    wanted = {"proxy_protocol": "auto", "http_parser": "python"}
    async with serving(RecordingWorker, app, **wanted) as (worker, port), connected(port) as (reader, writer):
        writer.write(said + request(b"one"))
        assert await answer_of(reader) == (200, b"one")
        assert app.scopes[0]["client"] == ("127.0.0.1", writer.get_extra_info("sockname")[1])
        assert worker.seen[0].named_caller is None


@pytest.mark.parametrize("form", NAMED)
@pytest.mark.parametrize(
    "settings", [{}, {"proxy_protocol": "auto", "proxy_allow_ips": "192.0.2.1"}], ids=["off", "not from there"]
)
async def test_nobody_else_may_name_a_caller(form: str, settings: dict[str, str]) -> None:
    app = App()
    wanted = {"http_parser": "python", **settings}
    async with serving(RecordingWorker, app, **wanted) as (_, port), connected(port) as (reader, writer):
        writer.write(NAMED[form] + request(b"one"))
        assert (await answer_of(reader))[0] == 400
        assert app.scopes == []


async def test_a_caller_who_may_not_call_is_not_asked_what_it_wants() -> None:
    app = App()
    wanted = {"proxy_protocol": "auto", "http_parser": "python"}
    async with serving(RecordingWorker, app, **wanted) as (worker, port), connected(port) as (reader, writer):
        await eventually(lambda: worker.seen, "the connection is there")
        worker.seen[0].unwanted = "198.51.100.7"
        writer.write(NAMED["v1"] + request(b"one"))
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        await eventually(lambda: not worker.connections, "the connection has gone")
        assert app.scopes == []
        assert worker.seen[0].calls == ["opened", "caller_named 198.51.100.7", "closed", "flows"]


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


async def test_a_worker_without_a_certificate_that_works_serves_nobody_until_it_has_one(tmp_path: Path) -> None:
    """Gunicorn by itself serves without TLS then, and everything that callers send goes in the clear."""

    cert, key = make_certificate(tmp_path, ["localhost"], ["127.0.0.1"])
    as_written, tries = key.read_bytes(), []
    key.unlink()

    class Hasty(RecordingWorker):
        tls_again_seconds = 0.01

        async def _has_tls(self) -> bool:
            tries.append(await super()._has_tls())
            assert self.servers == []
            key.write_bytes(as_written)
            return tries[-1]

    async with serving(Hasty, App(), certfile=str(cert), keyfile=str(key)) as (_, port):
        assert tries == [False, True]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=ssl.create_default_context(cafile=str(cert))
        )
        writer.write(request(b"one"))
        assert await answer_of(reader) == (200, b"one")
        writer.close()


async def test_a_worker_that_waits_for_its_certificate_ends_when_it_is_told_to(tmp_path: Path) -> None:
    class Ending(RecordingWorker):
        tls_again_seconds = 0.01

        async def _has_tls(self) -> bool:
            self.handle_exit_signal()
            return await super()._has_tls()

    missing = str(tmp_path / "missing.pem")
    async with serving(Ending, App(), certfile=missing, keyfile=missing) as (worker, _):
        assert worker.servers == []


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
    assert protocol.PythonProtocol is gunicorn_compat.LineLimitParser
    assert ASGIProtocol._h1c_available is FAST_PARSER_INSTALLED
    if FAST_PARSER_INSTALLED:
        assert ASGIProtocol._h1c_protocol_class.__name__ == "RoomyParser"
    assert ASGIProtocol._h1c_has_limits is FAST_PARSER_INSTALLED, (
        "found through the base class, where the parser's set-up looks"
    )


def test_a_connection_has_to_say_what_an_error_looks_like() -> None:
    with pytest.raises(NotImplementedError):
        HttpConnection(mock.Mock()).error_content(400, "")
