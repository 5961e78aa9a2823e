"""Another host on this machine: a network and processes of its own, and a line to this one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from pgnode.os_support.children import children
from tests.support.polling import eventually

#: The ends of the line (of a network for tests of devices), here and there.
HERE, THERE = "198.18.77.1", "198.18.77.2"

_APART = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@functools.cache
def can_have_hosts() -> bool:
    """Whether this machine lets us make one: root, and the commands of iproute2 and util-linux."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    command = ["unshare", *_APART, "ip", "link", "add", "pgn-try", "type", "veth", "peer", "name", "pgn-try2"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class FarHost:
    """How commands are run there, and the addresses."""

    before: Sequence[str]
    here: str = HERE
    there: str = THERE


@contextlib.asynccontextmanager
async def far_host() -> AsyncIterator[FarHost]:
    """Make one; it goes with all of its processes."""
    command = ["unshare", *_APART, "sleep", "infinity"]
    holder = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        [first] = await eventually(lambda: children(holder.pid), "its first process runs")
        enter = ("nsenter", "--target", str(first), "--all", "--")
        await _run("ip", "link", "add", "pgn-here", "type", "veth", "peer", "name", "pgn-there", "netns", str(first))
        await _run("ip", "address", "add", f"{HERE}/30", "dev", "pgn-here")
        await _run("ip", "link", "set", "pgn-here", "up")
        await _run(*enter, "ip", "address", "add", f"{THERE}/30", "dev", "pgn-there")
        for device in ("lo", "pgn-there"):
            await _run(*enter, "ip", "link", "set", device, "up")
        yield FarHost(enter)
    finally:
        holder.kill()
        await holder.wait()


async def _run(*command: str) -> None:
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = await running.communicate()
    assert running.returncode == 0, f"{' '.join(command)}: {said.decode()}"
