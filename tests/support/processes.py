"""Processes, sockets and ports of a node, found from outside: what runs, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import psutil

from pgnode.testing.node import NodeProcess
from pgnode.testing.processes import command_line, is_running, tree
from tests.support import once
from tests.support.polling import eventually
from tests.support.ready_commands import run_ready


def core_pid(node: NodeProcess) -> int:
    """The process that holds the core, by the record beside its socket; 0 when there is none."""
    return core_in(node.run_dir)


def core_in(folder: Path) -> int:
    """The process of the core whose record is in a folder; 0 when there is none."""
    try:
        pid = int(json.loads((folder / "core.json").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return 0
    return pid if is_running(pid) else 0


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped: some go on for a moment after SIGSTOP was sent."""
    states = [task.read_bytes().rpartition(b")")[2].split()[0] for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return bool(states) and all(state in (b"T", b"t") for state in states)


async def stop(pid: int) -> None:
    """SIGSTOP for a process, and wait until it does nothing any more: its threads go on for a moment, and answer in it."""
    assert pid > 1, "there is no such process"
    os.kill(pid, signal.SIGSTOP)
    # Whoever watches over it may be sooner, and end it.
    await eventually(lambda: is_stopped(pid) or not is_running(pid), f"process {pid} stands still", errors=(OSError,))


@contextlib.asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    """A process that hangs for as long as this is entered. It may end, or be ended, meanwhile."""
    try:
        await stop(pid)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def valkey_pid(node: NodeProcess) -> int:
    """The embedded store; 0 when it is not there."""
    return next((p.pid for p in tree(node.pid) if "valkey-server" in command_line(p)), 0)


def gunicorn_master_pid(node: NodeProcess) -> int:
    """Gunicorn's master; 0 when it is not there."""
    for process in tree(node.pid):
        # One that has just ended is none.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "gunicorn" in command_line(process) and process.ppid() == node.pid:
                return process.pid
    return 0


def worker_pids(node: NodeProcess) -> list[int]:
    """The API workers."""
    master = gunicorn_master_pid(node)
    return [p.pid for p in tree(master)[1:]] if master else []


def kill(pid: int) -> None:
    """SIGKILL for a process that the test's own node started."""
    assert pid > 1, "there is no such process"
    os.kill(pid, signal.SIGKILL)


def of_state_dir(state_dir: Path) -> list[str]:
    """All processes that name the folder in their command line or environment, or work in it: "pid: command"."""
    wanted = str(state_dir)
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            places = [command_line(process), process.cwd(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(wanted in place for place in places):
            found.append(f"{process.pid}: {command_line(process)}")
    return found


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody takes connections on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(10.0)
        return probe.connect_ex((host, port)) == 0


def sockets_in(folder: Path) -> list[Path]:
    """Unix sockets in the folder that still have a listener."""
    found = []
    for path in folder.glob("*"):
        if not path.is_socket():
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(10.0)
            if probe.connect_ex(str(path)) == 0:
                found.append(path)
    return found


#: How operators' commands begin.
PGNODE = (sys.executable, "-m", "pgnode")


async def run_to_end(command: Sequence[str], *, env: Mapping[str, str], timeout_seconds: float = 60) -> tuple[int, str]:
    """Exit code and output, both streams, of a command that ends by itself.

    The first time that tests run an operator's command, that is as an operator would; from then on it is at hand.
    """
    if tuple(command[:3]) == PGNODE and not once.is_first(f"command-{command[3]}"):
        return await run_ready(command[3:], env=env, timeout_seconds=timeout_seconds)
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, output.decode(errors="replace")
