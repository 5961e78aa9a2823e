"""Children that nobody knows."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.processes.unknown_children import find_unknown, reap, reap_orphans
from tests.support.polling import eventually
from tests.unit.supervisor.processes.test_own_process import is_reaped


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


async def test_a_child_that_nobody_knows_is_no_zombie_for_ever() -> None:
    unknown, known, ours = (sleeper() for _ in range(3))
    others = [child for child in find_unknown({known.pid}, lambda pid: pid == ours.pid) if child.pid != unknown.pid]
    for child in others:
        child.close()
    assert not {known.pid, ours.pid} & {child.pid for child in others}
    found = [
        child
        for child in find_unknown({known.pid, ours.pid}, lambda pid: pid != unknown.pid)
        if child.pid == unknown.pid
    ]
    reaping = asyncio.create_task(reap(found))
    unknown.kill()
    await reaping
    assert is_reaped(unknown.pid)
    for started in (unknown, known, ours):
        started.kill()
        started.wait()


async def test_orphans_that_have_ended_are_reaped_and_those_that_run_are_not() -> None:
    ended, running = sleeper(), sleeper()
    reaping = asyncio.create_task(reap_orphans(0.01))
    ended.kill()
    # Not asked of waitpid, which would reap it itself.
    await eventually(lambda: not Path(f"/proc/{ended.pid}").exists(), "it is no zombie any more")
    assert not reaping.done()
    assert running.poll() is None
    await end_tasks([reaping])
    running.kill()
    running.wait()
    ended.wait()


async def test_a_process_without_children_reaps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def none(*_: object) -> None:
        loop.call_soon_threadsafe(looked.set)
        raise ChildProcessError

    monkeypatch.setattr(os, "waitid", none)
    reaping = asyncio.create_task(reap_orphans(0.01))
    await asyncio.wait_for(looked.wait(), 10)
    assert not reaping.done()
    await end_tasks([reaping])
