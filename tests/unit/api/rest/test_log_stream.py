"""The log as a stream: lines, events or JSON, from the first heartbeat to the caller's end."""

from __future__ import annotations

import asyncio

import pytest

from pgnode.api.rest.asgi import App, Event
from pgnode.api.rest.log_stream import LogStream, plain
from tests.support.polling import eventually
from tests.unit.api.fakes import GONE, Call, Node
from tests.unit.api.rest.requests import keyed


class Viewer:
    """A caller of /logs, in a task of its own."""

    def __init__(self, app: App, accept: str) -> None:
        self.call = Call("GET", "/logs", keyed(accept=accept), [])
        self.task: asyncio.Task[None] = asyncio.ensure_future(self._run(app))

    async def _run(self, app: App) -> None:
        await app(self.call.scope, self.call.receive, self.call.send)

    async def next(self) -> Event:
        async with asyncio.timeout(5):
            return await self.call.sent.get()

    async def leave(self) -> None:
        self.call.events.put_nowait(GONE)
        async with asyncio.timeout(5):
            await self.task


@pytest.mark.parametrize(
    ("accept", "heartbeat", "line", "broken"),
    [
        ("*/*", b"\n", b"hello\n", "a\ufffdb\n".encode()),
        (
            "text/html, text/event-stream;q=0.9",
            b": \n\n",
            b"id: 1-0\ndata: hello\n\n",
            "id: 2-0\ndata: a\ufffdb\n\n".encode(),
        ),
    ],
)
async def test_logs(app: App, node: Node, *, accept: str, heartbeat: bytes, line: bytes, broken: bytes) -> None:
    viewer = Viewer(app, accept)
    start = await viewer.next()
    assert start["status"] == 200
    assert node.logs.watching == 1, "the log is open before the headers go out"
    assert dict(start["headers"])[b"content-type"] == b"text/event-stream"
    assert (await viewer.next())["body"] == heartbeat
    for entry, expected in ((("1-0", b"hello"), line), (None, heartbeat), (("2-0", b"a\xffb"), broken)):
        node.logs.queue.put_nowait(entry)
        assert (await viewer.next())["body"] == expected
    assert node.logs.watching == 1
    await viewer.leave()
    assert node.logs.watching == 0


async def test_a_cancelled_viewer_leaves_nothing_behind(app: App, node: Node) -> None:
    viewer = Viewer(app, "")
    node.logs.queue.put_nowait(("1-0", b"hello"))
    for _ in range(3):
        await viewer.next()
    viewer.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await viewer.task
    assert node.logs.watching == 0


async def test_a_body_that_nobody_iterates_over_closes_the_log(node: Node) -> None:
    body = await LogStream.open(node.logs.watch(), Call("GET", "/logs", {}, []).receive, plain)
    assert node.logs.watching == 1
    assert repr(body).startswith("LogStream(")
    del body
    await eventually(lambda: node.logs.watching == 0, "the log is closed")
