"""The process in which the panel's client runs: takes calls as JSON lines on stdin and answers on stdout.

Runs in the panel's own environment, where pgnode is not installed: it knows the client and nothing of the node.

A line in is ``{"id", "client", "do", ...}``, a line out ``{"id", "result"}`` or ``{"id", "error": {"code", "detail"}}``.
``do`` is ``create`` (with ``connection`` and ``options``), ``call`` (``method``, ``args``), ``rejected``, ``pending``,
``open_logs``, ``close_logs`` or ``drop``. Lines of an open log come as ``{"log": viewer, "line"}``, its end
as ``{"log": viewer, "error"}``. Messages are ``{"message": name, "bytes": base64}`` both ways.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import sys
from typing import Any

import PasarGuardNodeBridge as Bridge
from google.protobuf.message import Message
from PasarGuardNodeBridge.common import service_pb2 as service
from PasarGuardNodeBridge.controller import FailedUsers

#: Longest line: a list of a few thousand users.
LINE_BYTES = 64 * 1024 * 1024


def encoded(value: Any) -> Any:
    """A result of the client as JSON."""
    if isinstance(value, FailedUsers):
        return {"failed": [user.email for user in value], "rejected": value.rejected, "detail": value.detail}
    if isinstance(value, Message):
        data = base64.b64encode(value.SerializeToString()).decode()
        return {"message": value.DESCRIPTOR.name, "bytes": data}
    if isinstance(value, list | tuple):
        return [encoded(item) for item in value]
    if hasattr(value, "status_code"):  # an answer of the maintenance API
        return {"status": value.status_code, "body": value.text}
    return value


def decoded(value: Any) -> Any:
    """An argument for the client."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, dict) and "message" in value:
        return getattr(service, value["message"]).FromString(base64.b64decode(value["bytes"]))
    return value


class Driver:
    """All clients of this process, by the names that the tests gave them."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}
        self._logs: dict[str, contextlib.AsyncExitStack] = {}
        self._logger = logging.getLogger("client")
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until stdin ends."""
        reader = asyncio.StreamReader(limit=LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            task = asyncio.create_task(self._answer(json.loads(line)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: dict[str, Any]) -> None:
        try:
            do = getattr(self, f"do_{request['do']}")
            answer = {"result": encoded(await do(request["client"], request))}
        except Bridge.NodeAPIError as error:
            answer = {"error": {"code": error.code, "detail": error.detail}}
        except Exception as error:  # the tests show it
            answer = {"error": {"code": None, "detail": f"{type(error).__name__}: {error}"}}
        say({"id": request["id"], **answer})

    async def do_create(self, name: str, request: dict[str, Any]) -> None:
        connection = Bridge.NodeType(request["connection"])
        self._clients[name] = Bridge.create_node(connection, name=name, logger=self._logger, **request["options"])

    async def do_call(self, name: str, request: dict[str, Any]) -> Any:
        method = getattr(self._clients[name], request["method"])
        return await method(**{key: decoded(value) for key, value in request["args"].items()})

    async def do_rejected(self, name: str, _request: dict[str, Any]) -> dict[str, str]:
        """The users that the client holds back because the node rejected them, with the node's text."""
        return {email: entry.error for email, entry in self._clients[name]._sync_retries.items()}

    async def do_pending(self, name: str, _request: dict[str, Any]) -> dict[str, Any]:
        """What is still to be sent, and whether the client thinks that its node has to be reset."""
        client = self._clients[name]
        pending = await client._user_sync_store.has_pending(client.node_id)
        return {"pending": bool(pending), "reset": client.requires_hard_reset()}

    async def do_open_logs(self, name: str, request: dict[str, Any]) -> None:
        stack = contextlib.AsyncExitStack()
        queue = await stack.enter_async_context(self._clients[name].stream_logs())
        self._logs[request["viewer"]] = stack
        task = asyncio.create_task(self._pass_on(request["viewer"], queue))
        stack.callback(task.cancel)

    async def _pass_on(self, viewer: str, queue: asyncio.Queue[Any]) -> None:
        while True:
            item = await queue.get()
            if isinstance(item, str):
                say({"log": viewer, "line": item})
            else:
                say({"log": viewer, "error": {"code": item.code, "detail": item.detail}})

    async def do_close_logs(self, _name: str, request: dict[str, Any]) -> None:
        await self._logs.pop(request["viewer"]).aclose()

    async def do_drop(self, name: str, _request: dict[str, Any]) -> None:
        """Let the client go without a word to the node, as a panel that ends does."""
        client = self._clients.pop(name)
        await client.disconnect()
        await client._json_client.close()
        if hasattr(client, "channel"):
            client.channel.close()
        else:
            await client._client.close()


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(Driver().serve())
