"""Short-lived processes: what they are given, and that none is left."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from pgnode.errors import StartFailedError
from pgnode.xray.process import short_lived

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


async def test_it_reads_what_it_is_fed_and_prints_to_one_stream() -> None:
    script = "cat; echo problem >&2"
    async with short_lived.running("the shell", ["sh", "-c", script], ENVIRONMENT) as (process, into, out_of):
        await short_lived.feed(into, "config ")
        assert await out_of.read() == b"config problem\n"
        assert await process.wait() == 0


async def test_one_that_still_runs_is_killed() -> None:
    async with short_lived.running("the shell", ["sh", "-c", "exec sleep 60"], ENVIRONMENT) as (process, _, _out):
        pid = process.pid
    assert process.returncode == -9
    assert not psutil.pid_exists(pid)


async def test_one_that_has_ended_reads_nothing() -> None:
    async with short_lived.running("the shell", ["sh", "-c", "exit 3"], ENVIRONMENT) as (process, into, _):
        assert await process.wait() == 3
        await short_lived.feed(into, "x" * 1_000_000)


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(StartFailedError, match=r"^the shell cannot be run: No such file"):
        async with short_lived.running("the shell", ["/none"], ENVIRONMENT):
            pass


async def test_a_system_without_room_for_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_room(*_: object, **__: object) -> None:
        raise OSError(-1, "Unknown error -1")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_room)
    with pytest.raises(StartFailedError, match=r"^the shell cannot be run: the system has no room for another process"):
        async with short_lived.running("the shell", ["sh"], {}):
            pass
