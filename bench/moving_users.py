"""Many users who move bytes through a node (:mod:`bench.moving_users_process`), and readings of what that costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.load import REPOSITORY
from bench.moving_users_process import LIMIT_SECONDS
from pgnode.wire import service_pb2 as pb


class MovingUsersError(Exception):
    """Users could not move their bytes, so there is nothing to measure."""


class MovingUsers:
    """Users of a plain VLESS inbound on ``port``. Every call raises MovingUsersError where users failed."""

    def __init__(self, port: int, users: Iterable[pb.User]) -> None:
        self._port = port
        with tempfile.NamedTemporaryFile(prefix="pgnusers", delete=False) as file:
            file.write(b"".join(uuid.UUID(user.proxies.vless.id).bytes for user in users))
        self._ids = Path(file.name)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> MovingUsers:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.moving_users_process", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"port": self._port, "ids": str(self._ids)}).encode() + b"\n")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._ids.unlink(missing_ok=True)

    async def move(self, first: int, count: int) -> float:
        """These users connect, move a block each way and go; returns the seconds that took."""
        return await self._do({"do": "move", "first": first, "count": count})

    async def hold(self, first: int, count: int) -> float:
        """These users connect, move a block each way and stay."""
        return await self._do({"do": "hold", "first": first, "count": count})

    async def pulse(self) -> float:
        """Everybody who stayed moves another block each way."""
        return await self._do({"do": "pulse"})

    async def release(self) -> float:
        """Everybody who stayed goes."""
        return await self._do({"do": "release"})

    async def _do(self, order: dict[str, Any]) -> float:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(LIMIT_SECONDS + 10):
            line = await process.stdout.readline()
        if not line:
            raise MovingUsersError(f"the process of the users ended during {order}")
        answer = json.loads(line)
        if answer["failed"]:
            raise MovingUsersError(f"{answer['failed']} users could not move their bytes ({order})")
        return float(answer["seconds"])


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process, finer than the ticks of /proc/PID/stat; threads that ended do not count."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


def descendants(pid: int) -> dict[str, list[int]]:
    """What a supervisor has started, but for the core, by what it is: "workers" (Gunicorn's master among them), "store"."""
    found: dict[str, list[int]] = {"workers": [], "store": []}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:  # it has just ended
            continue
        if "gunicorn" in command or "grpc_worker" in command:
            found["workers"].append(process.pid)
        elif "valkey" in command:
            found["store"].append(process.pid)
    return found


def disk_bytes(pid: int) -> int:
    """Read how much a process has sent towards the disk since it began; 0 once it has gone, and on a file system in memory."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(": ")
            if name == "write_bytes":
                return int(value)
    return 0


def silences_ms(ask: Callable[[], object], seconds: float) -> Sequence[float]:
    """How long the supervisor's loop took for each of many questions, in milliseconds.

    It answers operators itself, out of its memory. So this sees whatever keeps the loop from its next turn: its own work, a
    thread that has the interpreter, and that the processors are taken. For a thread.
    """
    found = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        ask()
        found.append((time.monotonic() - begun) * 1000)
        time.sleep(0.002)
    return found
