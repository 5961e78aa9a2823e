"""The tests' side of the panel's client: starts its process and calls it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from google.protobuf.message import Message

from pgnode.testing.node import NodeProcess
from pgnode.wire import service_pb2 as pb

Protocol = Literal["rest", "grpc"]

#: A call of the client has limits of its own; this is for a driver that hangs.
ANSWER_TIMEOUT_SECONDS = 120.0

#: Longest line of an answer: a list of a few thousand users.
LINE_BYTES = 64 * 1024 * 1024

_DRIVER = Path(__file__).with_name("driver.py")


class ClientError(Exception):
    """What the client raised. ``code`` is an HTTP status, or the client's own below 1; None for a fault of its own."""

    def __init__(self, code: int | None, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Failed(NamedTuple):
    """Users that a sync did not apply, as the client sees it."""

    emails: list[str]
    rejected: bool
    detail: str


class Driver:
    """The client's process. ``async with Driver(python) as driver:``."""

    def __init__(self, python: Path) -> None:
        self._python = python
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.logs: dict[str, asyncio.Queue[str | ClientError]] = {}
        self.output: deque[str] = deque(maxlen=200)

    @property
    def output_text(self) -> str:
        """What the process printed, its last lines."""
        return "\n".join(self.output)

    async def __aenter__(self) -> Driver:
        self._process = await asyncio.create_subprocess_exec(
            self._python,
            _DRIVER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._tasks = [
            asyncio.create_task(self._read(self._process.stdout)),
            asyncio.create_task(self._keep(self._process.stderr)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 10.0)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await asyncio.gather(*self._tasks)

    async def ask(self, client: str, do: str, **request: Any) -> Any:
        """One call. Raises ClientError."""
        assert self._process is not None
        assert self._process.stdin is not None
        key = uuid.uuid4().hex
        answer = self._waiting[key] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": key, "client": client, "do": do, **request}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            return _decoded(await answer)

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        while line := await stdout.readline():
            said = json.loads(line)
            if "log" in said:
                entry = _error(said) if "error" in said else str(said["line"])
                self.logs[said["log"]].put_nowait(entry)
                continue
            waiting = self._waiting.pop(said["id"])
            if waiting.done():
                continue
            if "error" in said:
                waiting.set_exception(_error(said))
            else:
                waiting.set_result(said["result"])
        for waiting in self._waiting.values():
            waiting.set_exception(ClientError(None, "the client's process ended:\n" + self.output_text))

    async def _keep(self, stderr: asyncio.StreamReader) -> None:
        while line := await stderr.readline():
            self.output.append(line.decode("utf-8", "replace").rstrip())


class Client:
    """One client of the panel, for one node. Calls have the client's own names and arguments."""

    def __init__(self, driver: Driver, name: str, protocol: Protocol) -> None:
        self._driver = driver
        self.name = name
        self.protocol: Protocol = protocol

    @classmethod
    async def create(cls, driver: Driver, node: NodeProcess, protocol: Protocol, **options: Any) -> Client:
        """A client as the panel makes it; ``options`` are laid over the usual ones."""
        client = cls(driver, f"{protocol}-{uuid.uuid4().hex[:8]}", protocol)
        usual = {
            "address": node.host,
            "port": port_of(node, protocol),
            "api_port": node.api_port,
            "server_ca": node.ca_file.read_text(),
            "api_key": node.api_key,
            "sync_poll_interval": 0.1,
        }
        await driver.ask(client.name, "create", connection=protocol, options=usual | options)
        return client

    async def call(self, method: str, **args: Any) -> Any:
        """Call the client. Raises ClientError."""
        encoded = {name: _encoded(value) for name, value in args.items()}
        return await self._driver.ask(self.name, "call", method=method, args=encoded)

    async def start(self, config: Mapping[str, Any], users: Sequence[pb.User] = ()) -> pb.BaseInfoResponse:
        answer = await self.call("start", config=json.dumps(config), backend_type=0, users=list(users))
        assert isinstance(answer, pb.BaseInfoResponse)
        return answer

    async def stats(self, kind: pb.StatType, name: str = "", *, reset: bool = False) -> list[pb.Stat]:
        answer = await self.call("get_stats", stat_type=int(kind), name=name, reset=reset)
        return list(answer.stats)

    async def counted(self, kind: pb.StatType, name: str = "", *, reset: bool = False) -> dict[tuple[str, str], int]:
        """Counters by (name, type), those at zero left out."""
        return {(stat.name, stat.type): stat.value for stat in await self.stats(kind, name, reset=reset) if stat.value}

    async def sync_chunked(self, users: Sequence[pb.User], **options: Any) -> Failed | None:
        """What the client holds for failed; None when all went well."""
        answer = await self.call("sync_users_chunked", users=list(users), **options)
        return Failed(answer["failed"], answer["rejected"], answer["detail"]) if answer else None

    async def queue(self, users: Sequence[pb.User]) -> None:
        """Hand changes to the client's own queue, which sends them in the background."""
        await self.call("update_users", users=list(users))

    async def rejected(self) -> dict[str, str]:
        """The users that the client holds back because the node rejected them, with the node's text."""
        found: dict[str, str] = await self._driver.ask(self.name, "rejected")
        return found

    async def settled(self) -> bool:
        """Whether the client has sent all that was queued."""
        state = await self._driver.ask(self.name, "pending")
        assert not state["reset"], "the client would reset the node"
        return not state["pending"]

    async def drop(self) -> None:
        """Let it go without a word to the node."""
        await self._driver.ask(self.name, "drop")

    @contextlib.asynccontextmanager
    async def logs(self) -> AsyncIterator[Viewer]:
        viewer = uuid.uuid4().hex
        lines = self._driver.logs[viewer] = asyncio.Queue()
        await self._driver.ask(self.name, "open_logs", viewer=viewer)
        try:
            yield Viewer(lines)
        finally:
            await self._driver.ask(self.name, "close_logs", viewer=viewer)


class Viewer:
    """An open log of the client."""

    def __init__(self, lines: asyncio.Queue[str | ClientError]) -> None:
        self._lines = lines

    async def wait_for(self, text: str, timeout_seconds: float = 30.0) -> str:
        """The next line that holds ``text``. Raises TimeoutError, and the ClientError that the log ended with."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                line = self._line(await self._lines.get())
                if text in line:
                    return line

    def take(self) -> list[str]:
        """All lines that have come by now. Raises the ClientError that the log ended with."""
        found = []
        while not self._lines.empty():
            found.append(self._line(self._lines.get_nowait()))
        return found

    @staticmethod
    def _line(entry: str | ClientError) -> str:
        if isinstance(entry, ClientError):
            raise entry
        return entry


def _error(said: dict[str, Any]) -> ClientError:
    return ClientError(said["error"]["code"], str(said["error"]["detail"]))


def _encoded(value: Any) -> Any:
    if isinstance(value, Message):
        data = base64.b64encode(value.SerializeToString()).decode()
        return {"message": value.DESCRIPTOR.name, "bytes": data}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict) and "message" in value:
        message: Message = getattr(pb, value["message"]).FromString(base64.b64decode(value["bytes"]))
        return message
    return value


def port_of(node: NodeProcess, protocol: Protocol) -> int:
    """The node's port for a protocol."""
    return node.port if protocol == "rest" else int(node.environment()["GRPC_PORT"])
