"""What operators may ask: all of it is answered by somebody."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ask
from pgnode.supervisor.control.operators import control_server
from tests.support.polling import eventually


async def test_every_question_has_an_answer() -> None:
    def says(name: str) -> Any:
        async def answer(_values: object) -> dict[str, str]:
            return {"by": name}

        return answer

    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    parts: list[Any] = [
        SimpleNamespace(by_question={messages.STATUS: says("answers")}),
        SimpleNamespace(live=says("live"), traffic=says("traffic")),
        [SimpleNamespace(order=says(name)) for name in ("orders", "drain", "sessions")],
    ]
    running = asyncio.create_task(control_server(folder, *cast(Any, parts)).run())
    try:
        await eventually((folder / messages.SOCKET_NAME).exists, "it listens")
        for question, by in (
            (messages.STATUS, "answers"),
            (messages.LIVE, "live"),
            (messages.TRAFFIC, "traffic"),
            (messages.WORKERS, "orders"),
            (messages.DRAIN, "drain"),
            (messages.SESSIONS, "sessions"),
        ):
            assert await asyncio.to_thread(ask, folder, question, seconds=30) == {"by": by}
    finally:
        await end_tasks([running])
        shutil.rmtree(folder)
