"""Children that nobody knows."""

from __future__ import annotations

import asyncio
import subprocess

from pgnode.supervisor.processes.strays import find_strays, reap
from tests.unit.supervisor.processes.test_own_process import is_reaped


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


async def test_a_child_that_nobody_knows_is_no_zombie_for_ever() -> None:
    unknown, known, ours = (sleeper() for _ in range(3))
    others = [child for child in find_strays({known.pid}, lambda pid: pid == ours.pid) if child.pid != unknown.pid]
    for stray in others:
        stray.close()
    assert not {known.pid, ours.pid} & {stray.pid for stray in others}
    strays = [
        child
        for child in find_strays({known.pid, ours.pid}, lambda pid: pid != unknown.pid)
        if child.pid == unknown.pid
    ]
    reaping = asyncio.create_task(reap(strays))
    unknown.kill()
    await reaping
    assert is_reaped(unknown.pid)
    for child in (unknown, known, ours):
        child.kill()
        child.wait()
