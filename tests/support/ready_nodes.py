"""Nodes whose supervisors are forked from a process that has loaded what supervisors share with their children.

``pgnode run`` is two programs in one process, and half of what a start computes is that Python starts twice. Here the first is
a command at hand (:mod:`tests.support.ready_commands`). Instead of the exec with which it would become the supervisor, it hands
what it checked to the process of this module. That has loaded what a supervisor has at the moment at which it forks its children
(:mod:`pgnode.supervisor.beginning`) and nothing of the node beside that; it forks, and from there on all is as ever. Each later
exec, that of a restart in place, is one.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pgnode.os_support import lean_start, shown_words
from pgnode.os_support.surroundings import reset_signals
from tests.support import once
from tests.support.ready_commands import (
    MESSAGE_BYTES,
    Server,
    fork_for_each,
    message_to,
    place_outputs,
    report_end,
    server,
    take_environment,
)

#: The command line of a node.
WORDS = [sys.executable, "-m", "pgnode", "run"]

#: What stands in variables that nodes of this kind may have otherwise than the process that they are forked from.
_OWN = ("PGNODE_", "PYTEST_")

#: Descriptors below this one are closed, but for the outputs.
_DESCRIPTOR = 64


class ReadyNode:
    """The process of a node, as asyncio has processes."""

    def __init__(self, pid: int, connection: socket.socket, stdout: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._connection = connection
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(connection, self._take_end)

    def send_signal(self, number: int) -> None:
        """Send it a signal. ProcessLookupError."""
        if self.returncode is None:
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end and return the exit code."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _take_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._connection)
        with self._connection:
            self.returncode = int(self._connection.recv(100))
        self._ended.set()


class Launcher:
    """Starts nodes in this way, but for the first one of all tests and those with surroundings of their own."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._surroundings: object = None

    async def __call__(self, environment: Mapping[str, str], folder: Path) -> ReadyNode | None:
        """Start ``pgnode run``; None: start it as an operator would."""
        if self._server is None:
            self._surroundings = _surroundings(os.environ)
            self._server = await asyncio.to_thread(server)
        if _surroundings(environment) != self._surroundings or (folder / "pgnode").exists() or once.is_first("node"):
            return None
        connection, output = message_to(self._server.path, ["run"], environment, folder)
        connection.setblocking(False)
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), output)
        return ReadyNode(int(await loop.sock_recv(connection, 100)), connection, reader)


def _surroundings(environment: Mapping[str, str]) -> object:
    """What a process that is started has from its parent at once: limits, control groups, and variables that are no settings."""
    from pgnode.settings import Settings

    settings = {name.upper() for name in Settings.model_fields}
    own = {name: value for name, value in environment.items() if name not in settings and not name.startswith(_OWN)}
    limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)]
    return own, limits, Path("/proc/self/cgroup").read_text()


# --- in the process of the command --------------------------------------------------------------------------------------


def hand_on(path: str, descriptors: Sequence[int], environment: Mapping[str, str]) -> None:
    """Have the supervisor forked that this process would have become: its output, what was checked, and who is told of it."""
    message = json.dumps({"environment": dict(environment), "folder": str(Path.cwd())}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        other.connect(path)
        socket.send_fds(other, [message], list(descriptors))


# --- in the process that is forked --------------------------------------------------------------------------------------


def serve(path: str) -> None:
    """Fork supervisors until standard input ends."""
    # Whoever ends the tests by Ctrl-C ends them, and they their nodes.
    os.setsid()
    lean_start.begin()
    from pgnode.supervisor import beginning

    for name in beginning.COMMON:
        importlib.import_module(name)
    fork_for_each(path, _watch_over)


def _watch_over(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MESSAGE_BYTES)
        message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 3)
    output, checked, caller = descriptors
    pid = os.fork()
    if pid == 0:
        _become(json.loads(message), output, checked)
    os.close(output)
    os.close(checked)
    with socket.socket(fileno=caller) as answered:
        report_end(pid, answered)
    os._exit(0)


def _become(message: Mapping[str, object], output: int, checked: int) -> None:
    """Be the supervisor, as after the exec of ``python -m pgnode run``."""
    environment, folder = message["environment"], str(message["folder"])
    assert isinstance(environment, dict)
    os.setsid()
    reset_signals()
    kept = fcntl.fcntl(checked, fcntl.F_DUPFD, _DESCRIPTOR)
    place_outputs(output)
    os.closerange(3, kept)
    variables = {**environment, lean_start.CHECKED_VARIABLE: str(kept)}
    take_environment(variables, folder)
    shown_words.show(WORDS, variables)
    sys.path[0] = folder
    sys.argv[:] = ["-m", "run"]
    sys.orig_argv[:] = WORDS
    runpy.run_module("pgnode", run_name="__main__", alter_sys=True)
