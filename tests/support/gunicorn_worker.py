"""A real Gunicorn worker in the event loop of a test, on a port of its own, without a master and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, TypeVar

from gunicorn.config import Config
from gunicorn.glogging import Logger

from pgnode.os_support.aio import end_tasks
from pgnode.worker.gunicorn_compat import HttpWorker, use_connection_class
from tests.support.polling import eventually

WorkerT = TypeVar("WorkerT", bound=HttpWorker)

#: As the node's configuration has it, and quick to end.
SETTINGS: dict[str, Any] = {
    "http_parser": "auto",
    "keepalive": 75,
    "graceful_timeout": 2,
    "asgi_lifespan": "on",
    "asgi_disconnect_grace_period": 1,
    "loglevel": "error",
}


@contextlib.asynccontextmanager
async def serving(worker_class: type[WorkerT], app: Any, **settings: Any) -> AsyncIterator[tuple[WorkerT, int]]:
    """The worker, which serves ``app``, and its port. It is ended as by SIGTERM, unless it has ended by then."""
    config = Config()
    for name, value in (SETTINGS | settings).items():
        config.set(name, value)
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    worker = worker_class(1, os.getppid(), [SimpleNamespace(sock=listener)], None, 15, config, Logger(config))
    worker.loop, worker.asgi = asyncio.get_running_loop(), app
    use_connection_class(worker_class.connection_class)
    serve = asyncio.create_task(worker._serve())
    try:
        await eventually(lambda: worker.servers or serve.done(), "the worker serves")
        yield worker, port
        worker.handle_exit_signal()
        async with asyncio.timeout(30):
            await serve
    finally:
        await end_tasks([serve])
        worker.tmp.close()
        listener.close()


async def lifespan(receive: Any, send: Any) -> None:
    """What an application does when it is called for its life."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
