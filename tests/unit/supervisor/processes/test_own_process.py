"""A child of this process, started here or before a restart in place."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from pgnode.supervisor.processes.own_process import UNKNOWN_CODE, OwnProcess
from tests.support.polling import eventually


def started(*command: str) -> int:
    """The pid of a child that nobody else waits for."""
    return os.posix_spawnp(command[0], command, os.environ)


def sleeper() -> int:
    return started("sleep", "600")


def is_reaped(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


async def test_all_who_wait_learn_of_the_end() -> None:
    process = OwnProcess(started(sys.executable, "-S", "-c", "raise SystemExit(3)"))
    assert set(await asyncio.gather(process.wait(), process.wait())) == {3}
    assert await process.wait() == 3
    assert "3" in repr(process)
    assert process.has_ended()
    process.send_signal(signal.SIGTERM)


async def test_one_that_was_there_before() -> None:
    child = sleeper()
    process = OwnProcess(child)
    assert "running" in repr(process)
    assert not process.has_ended()
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM
    assert is_reaped(child)


async def test_one_whose_code_somebody_else_took() -> None:
    child = sleeper()
    process = OwnProcess(child)
    os.kill(child, signal.SIGKILL)
    await eventually(process.has_ended, "it has ended")
    assert not is_reaped(child), "until now"
    assert await process.wait() == UNKNOWN_CODE


async def test_one_that_is_left_to_somebody_else() -> None:
    child = sleeper()
    first = OwnProcess(child)
    waiting = asyncio.create_task(first.wait())
    await asyncio.wait({waiting}, timeout=0)
    first.let_go()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    second = OwnProcess(child)
    second.send_signal(signal.SIGKILL)
    await eventually(second.has_ended, "it has ended")
    second.give_up()
    assert is_reaped(child)
