"""What the service stands on, in memory, and an ASGI caller without a server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pgnode.api.rest.asgi import App, Event
from pgnode.api.service.node_service import NodeService
from pgnode.api.service.ports import LogEntry
from pgnode.api.service.stats_queries import StatQueries
from pgnode.api.service.tracked import Settle
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import IndexedBlock
from pgnode.bus.snapshots import NodeStatus
from pgnode.bus.state import State

KEY = "123e4567-e89b-42d3-a456-426614174000"


def status(state: str = "running", *, api_error: str = "") -> NodeStatus:
    return NodeStatus(
        state=State(state),
        core_ready=state == "running",
        core_version="26.10.10",
        node_version="9.9.9",
        core_api_error=api_error,
        core_run=1,
    )


@dataclass
class FakeReads:
    status: NodeStatus | None = field(default_factory=status)
    bodies: dict[str, bytes] = field(default_factory=dict)
    blocks: dict[str, IndexedBlock] = field(default_factory=dict)
    age: float | None = None
    too_old: str = ""
    renew_at: float = math.inf
    stale_at: float = math.inf
    inbounds_counted: bool | None = True
    #: Snapshots that show what was handed out since.
    void: set[str] = field(default_factory=set)
    #: Those of which there is a newer one elsewhere, and those that were wanted.
    behind: set[str] = field(default_factory=set)
    wanted: list[str] = field(default_factory=list)
    #: What takes over what has come, one each turn of the event loop.
    unheard: list[Callable[[], None]] = field(default_factory=list)
    hearing: bool = False
    #: Set by whoever brings newer figures.
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def fresh_block(self, name: str) -> IndexedBlock | None:
        return None if self.too_old or name in self.void | self.behind else self.blocks.get(name)

    def is_void(self, name: str) -> bool:
        return name in self.void

    def is_behind(self, name: str) -> bool:
        return name in self.behind

    def want(self, name: str) -> None:
        self.wanted.append(name)

    def has_unheard(self) -> bool:
        if self.unheard and not self.hearing:
            self.hearing = True
            asyncio.get_running_loop().call_soon(self._hear)
        return bool(self.unheard)

    def _hear(self) -> None:
        self.hearing = False
        self.unheard.pop(0)()

    async def news(self) -> None:
        self.came.clear()
        await self.came.wait()

    def age_seconds(self) -> float | None:
        return self.age

    def overdue(self) -> str:
        return self.too_old

    def body(self, name: str) -> bytes | None:
        return self.bodies.get(name)

    def block(self, name: str) -> IndexedBlock | None:
        return self.blocks.get(name)


@dataclass
class FakeCommands:
    calls: list[tuple[Kind, bytes, float]] = field(default_factory=list)
    reply: bytes = b""
    error: Exception | None = None
    #: Whether what was lent has arrived, as the protocol told it.
    settled: list[bool] = field(default_factory=list)

    async def call(self, kind: Kind, body: bytes, timeout_seconds: float) -> bytes:
        self.calls.append((kind, body, timeout_seconds))
        if self.error is not None:
            raise self.error
        return self.reply

    async def lend(self, kind: Kind, body: bytes, timeout_seconds: float) -> tuple[bytes, Settle]:
        return await self.call(kind, body, timeout_seconds), self.settled.append


class FakeLogs:
    """Entries put into ``queue`` reach the one viewer; ``watching`` counts entered contexts."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[LogEntry] = asyncio.Queue()
        self.watching = 0

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[LogEntry]]:
        self.watching += 1
        try:
            yield self._entries()
        finally:
            self.watching -= 1

    async def _entries(self) -> AsyncIterator[LogEntry]:
        while True:
            yield await self.queue.get()


@dataclass
class Node:
    """A service on fakes."""

    reads: FakeReads = field(default_factory=FakeReads)
    commands: FakeCommands = field(default_factory=FakeCommands)
    logs: FakeLogs = field(default_factory=FakeLogs)
    #: What the next look for news finds; None leaves everything as it is.
    news: NodeStatus | None = None
    refreshes: int = 0

    async def refresh(self) -> None:
        self.refreshes += 1
        if self.news is not None:
            self.reads.status = self.news

    def service(self, write_timeout_seconds: float = 30.0, *, queries: StatQueries | None = None) -> NodeService:
        return NodeService(
            self.reads,
            self.commands,
            self.logs,
            self.refresh,
            write_timeout_seconds=write_timeout_seconds,
            node_version="0.3.0",
            queries=queries,
        )


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Call:
    """One request to an ASGI callable; ``events`` are what its receive returns, after them it waits."""

    def __init__(self, method: str, path: str, headers: dict[str, str], events: list[Event]) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "scheme": "https",
            "server": ("127.0.0.1", 1),
            "client": ("127.0.0.1", 2),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self.received = 0
        self.sent: asyncio.Queue[Event] = asyncio.Queue()
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        for event in events:
            self.events.put_nowait(event)

    async def receive(self) -> Event:
        event = await self.events.get()
        self.received += 1
        return event

    async def send(self, event: Event) -> None:
        self.sent.put_nowait(event)

    async def run(self, app: App) -> Answer:
        async with asyncio.timeout(5):
            await app(self.scope, self.receive, self.send)
        start = self.sent.get_nowait()
        body = b""
        while not self.sent.empty():
            body += self.sent.get_nowait().get("body", b"")
        return Answer(start["status"], dict(start["headers"]), body)


def part(body: bytes, *, more: bool = False) -> Event:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Event = {"type": "http.disconnect"}
