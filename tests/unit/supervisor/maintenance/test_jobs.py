"""One maintenance job at a time, over a real bus: who is answered what, also after a crash."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Command, Kind
from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.bus.server import CommandServer
from pgnode.errors import ConflictError, InternalError, UnavailableError, UpdateFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.store.changes import Journal
from pgnode.supervisor.maintenance.jobs import Job, Maintenance
from pgnode.supervisor.persistence.committer import StateCommitter
from tests.support.polling import eventually
from tests.support.valkey import running_valkey


class Bus:
    """A caller and the supervisor's end, with maintenance behind it."""

    def __init__(self, url: str, run_dir: Path) -> None:
        keys = Keys("pgnode")
        self._redis = connect(url)
        self._server = CommandServer(url, keys, block_seconds=0.2)
        self._link = PipelinedRedis(url)
        committer = StateCommitter(
            Journal(), cast(Any, None), self._server, self._redis, self._link, tell=lambda _pipe: None
        )
        #: Who does which kind; may be changed until the first call.
        self.jobs: dict[Kind, Job] = {}
        self.maintenance = Maintenance(run_dir, self._server, committer, self.jobs)
        self.client = CommandClient(url, keys, f"tests:{id(self)}")
        self.taken: list[Command] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Bus:
        self.client.start()
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end_supervisor()
        await self.client.close()
        self._link.drop()
        await self._redis.aclose()

    async def end_supervisor(self) -> None:
        """As by a crash: nothing more is taken or answered."""
        assert self._task is not None
        await end_tasks([self._task])
        await self.maintenance.close()
        await self._server.close()

    async def call(self, kind: Kind, request: object = None) -> str:
        body = b"" if request is None else json.dumps(request).encode()
        answer: dict[str, str] = json.loads(await self.client.call(kind, body, 20))
        return answer["detail"]

    async def _serve(self) -> None:
        while True:
            for command in await self._server.take():
                self.taken.append(command)
                self.maintenance.take(command)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path


@pytest_asyncio.fixture
async def url() -> AsyncIterator[str]:
    async with running_valkey() as server:
        yield server.url


async def test_one_at_a_time(url: str, run_dir: Path) -> None:
    go_on, asked = asyncio.Event(), []

    async def job(request: dict[str, str]) -> str:
        asked.append(request)
        await go_on.wait()
        return f"done with {request['region']}"

    async with Bus(url, run_dir) as bus:
        bus.jobs |= {Kind.GEOFILES: job, Kind.UPDATE: job}
        first = asyncio.ensure_future(bus.call(Kind.GEOFILES, {"region": "iran"}))
        await eventually(lambda: asked, "the job has begun")
        for kind in (Kind.GEOFILES, Kind.UPDATE):
            with pytest.raises(ConflictError, match=r"^geofiles iran is under way since \d\d:\d\d:\d\d"):
                await bus.call(kind, {"region": "china"})
        go_on.set()
        assert await first == "done with iran"
        assert await bus.call(Kind.UPDATE, {"region": "x"}) == "done with x"
        assert asked == [{"region": "iran"}, {"region": "x"}]
        await eventually(lambda: not list(run_dir.iterdir()), "the note is gone")


async def test_what_goes_wrong_in_a_job(url: str, run_dir: Path) -> None:
    async def full(_request: dict[str, str]) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state/cores")

    async def fault(_request: dict[str, str]) -> str:
        raise ZeroDivisionError

    async with Bus(url, run_dir) as bus:
        bus.jobs |= {Kind.GEOFILES: full, Kind.UPDATE: fault}
        with pytest.raises(UpdateFailedError, match=r"^No space left on device: /state/cores"):
            await bus.call(Kind.GEOFILES)
        with pytest.raises(InternalError, match="the node's log"):
            await bus.call(Kind.UPDATE)
        with pytest.raises(InternalError, match="malformed command"):
            await bus.call(Kind.UPDATE, ["no", "object"])


async def test_a_job_that_was_interrupted_is_answered_and_not_run_again(url: str, run_dir: Path) -> None:
    begun: list[str] = []

    async def hangs(_request: dict[str, str]) -> str:
        begun.append("first")
        await asyncio.Event().wait()
        return ""

    async def works(_request: dict[str, str]) -> str:
        begun.append("second")
        return "done"

    async with Bus(url, run_dir) as caller:
        caller.jobs |= {Kind.CORE_UPDATE: hangs}
        call = asyncio.ensure_future(caller.client.call(Kind.CORE_UPDATE, b'{"core_version": "26.10.10"}', 20))
        await eventually(lambda: begun and list(run_dir.iterdir()), "the job has begun")
        # What was taken and never answered is delivered to the next one.
        await caller.end_supervisor()
        next_one = Bus(url, run_dir)
        next_one.jobs |= {Kind.CORE_UPDATE: works}
        next_one.maintenance.restore()
        async with next_one:
            with pytest.raises(UnavailableError, match=r"^core_update 26\.10\.10 was interrupted when the node ended"):
                await call
            assert begun == ["first"]
            await eventually(lambda: not list(run_dir.iterdir()), "it was told, so the note is gone")
            assert await next_one.call(Kind.CORE_UPDATE, {"core_version": "26.10.10"}) == "done"
            assert begun == ["first", "second"]


async def test_an_update_that_restarts_the_node_in_place_is_answered_by_the_next_supervisor(
    url: str, run_dir: Path
) -> None:
    begun = asyncio.Event()

    async def restarts(_request: dict[str, str]) -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    async with Bus(url, run_dir) as caller:
        caller.jobs |= {Kind.UPDATE: restarts}
        call = asyncio.ensure_future(caller.client.call(Kind.UPDATE, b"{}", 20))
        await begun.wait()
        await caller.end_supervisor()
        next_one = Bus(url, run_dir)
        next_one.maintenance.restore("9.9.9")
        async with next_one:
            assert b"pgnode 9.9.9 runs now" in await call


def idle(run_dir: Path) -> Maintenance:
    """Maintenance without a bus."""
    redis, server = connect("unix:///nowhere"), CommandServer("unix:///nowhere", Keys("pgnode"))
    link = PipelinedRedis("unix:///nowhere")
    committer = StateCommitter(Journal(), cast(Any, None), server, redis, link, tell=lambda _pipe: None)
    return Maintenance(run_dir, server, committer, {})


def test_a_command_that_ended_with_its_bus_is_not_waited_for(run_dir: Path) -> None:
    note = run_dir / "maintenance.json"
    note.write_text('{"id": "x", "job": "core_update 26.10.10"}')
    idle(run_dir).restore()
    assert note.exists()
    idle(run_dir).restore(bus_is_new=True)
    assert not note.exists()


@pytest.mark.parametrize("note", ["", "[]", "[" * 60_000, '{"id": "x"}', '{"id": "x", "job": "old"}'])
def test_notes_that_tell_nothing(run_dir: Path, note: str) -> None:
    path = run_dir / "maintenance.json"
    path.write_text(note)
    os.utime(path, (0, 0))
    maintenance = idle(run_dir)
    maintenance.restore()
    assert "idle" in repr(maintenance)
    assert path.exists() == ("job" not in note), "an old one is removed"
