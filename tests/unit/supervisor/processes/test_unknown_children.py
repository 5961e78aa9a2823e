"""Children that nobody knows."""

from __future__ import annotations

import asyncio
import subprocess

from pgnode.supervisor.processes.unknown_children import find_unknown, reap
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
