"""Signals to one process, and its end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pgnode.os_support.pidfd import Pidfd


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as child:
        yield child
        child.kill()


async def test_a_process_is_signalled_and_its_end_is_seen(process: subprocess.Popen[bytes]) -> None:
    with Pidfd(process.pid) as found:
        assert not found.has_ended()
        assert repr(found) == f"Pidfd({process.pid}, open)"
        assert found.fileno() >= 0
        ended = asyncio.create_task(found.wait())
        found.send(signal.SIGKILL)
        async with asyncio.timeout(10):
            await ended
        assert found.has_ended()
        assert process.wait() == -signal.SIGKILL
        # Nobody is hit by a signal for a process that has been reaped.
        found.send(signal.SIGKILL)
    found.send(signal.SIGKILL)
    found.close()
    assert repr(found) == f"Pidfd({process.pid}, closed)"


async def test_a_cancelled_wait_leaves_nothing_behind(process: subprocess.Popen[bytes]) -> None:
    with Pidfd(process.pid) as found:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await found.wait()
        assert not asyncio.get_running_loop().remove_reader(found.fileno())


def test_there_is_no_such_process(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        Pidfd(process.pid)


async def test_a_child_is_reaped_once(process: subprocess.Popen[bytes]) -> None:
    with Pidfd(process.pid) as found:
        assert found.reap() is None, "it runs"
        found.send(signal.SIGTERM)
        await found.wait()
        assert found.reap() == -signal.SIGTERM
        assert found.reap() is None


async def test_the_code_of_a_child_that_ends_by_itself() -> None:
    child = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-S", "-c", "raise SystemExit(7)"])
    with Pidfd(child.pid) as found:
        await found.wait()
        assert found.reap() == 7
    await asyncio.to_thread(child.wait)
