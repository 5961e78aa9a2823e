"""Operators' commands as processes that are forked from one which has loaded them: to start Python takes longer than they do.

``python -m tests.support.ready_commands SOCKET`` listens there and ends with its standard input. Each connection brings one
command: JSON with its words, environment and folder, together with a descriptor for both its outputs. It is answered by the
command's pid and, when that has ended, by its exit code, a line each.

``run`` is a node: its command checks the settings, and where it would become the supervisor by an exec, that is forked from a
second process. That one has loaded just what a supervisor has at the moment at which it forks its children
(:mod:`pgnode.supervisor.beginning`), so that all the node's processes are those of any other node from there on.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import functools
import importlib
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

#: What a command may be in bytes, with its environment.
MESSAGE_BYTES = 1 << 20

#: Seconds in which the server comes up: a machine with other things to do may need long.
_START_SECONDS = 60.0

#: Descriptors from here on are kept.
_DESCRIPTOR = 64


#: Exit code of a node's command that has handed on what it checked.
_HANDED_ON = 77


class Server:
    """The process in which commands are ready, and where it listens."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ready-commands"))
        self.path = self._folder / "s"
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        atexit.register(self._end)
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], _START_SECONDS)[0], "it did not come up"
        assert [self._process.stdout.readline() for _ in range(2)] == 2 * [b"ready\n"]

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def server() -> Server:
    """The one of this process; it takes a moment to come up."""
    return Server()


async def run_ready(words: Sequence[str], *, env: Mapping[str, str], timeout_seconds: float) -> tuple[int, str]:
    """Exit code and output, both streams, of ``python -m pgnode WORDS``. TimeoutError; it is killed then."""
    connection, output = message_to((await asyncio.to_thread(server)).path, words, env, Path.cwd())
    pid = 0
    with connection, output:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                pid = int(await loop.sock_recv(connection, 100))
                said = await asyncio.to_thread(output.read)
                code = int(await loop.sock_recv(connection, 100))
        except TimeoutError:
            if pid:
                os.kill(pid, signal.SIGKILL)
            raise
    return code, said.decode(errors="replace")


def message_to(
    path: Path, words: Sequence[str], env: Mapping[str, str], folder: Path
) -> tuple[socket.socket, BinaryIO]:
    """Tell the process that listens there what to run; returns where it answers, and the end of the command's outputs."""
    out, its_out = os.pipe()
    request = json.dumps({"words": list(words), "env": dict(env), "cwd": str(folder)}).encode()
    connection, output = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), os.fdopen(out, "rb")
    try:
        with os.fdopen(its_out, "wb"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
            connection.connect(str(path))
            socket.send_fds(connection, [request], [its_out])
    except BaseException:
        connection.close()
        output.close()
        raise
    return connection, output


def _serve(path: str) -> None:
    """Fork commands until standard input ends; another process forks nodes, and has loaded nothing of commands."""
    nodes = f"{path}n"
    pid = os.fork()
    if pid == 0:
        from tests.support import ready_nodes

        ready_nodes.serve(nodes)
        os._exit(0)
    _serve_commands(path, nodes)


def _serve_commands(path: str, nodes: str) -> None:
    import pgnode.cli

    for module in pkgutil.iter_modules(pgnode.cli.__path__, "pgnode.cli."):
        importlib.import_module(module.name)
    fork_for_each(path, functools.partial(_watch_over, nodes=nodes))


def fork_for_each(path: str, watch_over: Callable[[socket.socket], None]) -> None:
    """Fork for each connection until standard input ends; ``watch_over`` ends the fork."""
    # Nobody waits for those who watch over a process.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                watch_over(connection)
            connection.close()


def _watch_over(connection: socket.socket, nodes: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MESSAGE_BYTES)
    message, [output], _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 1)
    request = json.loads(message)
    is_node = request["words"] == ["run"]
    pid = os.fork()
    if pid == 0:
        if is_node:
            _hand_on_instead_of_exec(nodes, fcntl.fcntl(connection, fcntl.F_DUPFD, _DESCRIPTOR))
        connection.close()
        os._exit(_command(request, output))
    os.close(output)
    if is_node:
        # Where it handed on what it checked, whoever forks the node tells of that.
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != _HANDED_ON:
            connection.send(b"%d" % pid)
            connection.send(b"%d" % code)
    else:
        report_end(pid, connection)
    os._exit(0)


def report_end(pid: int, connection: socket.socket) -> None:
    """Tell the pid of a child of this process and, when it has ended, its exit code."""
    connection.send(b"%d" % pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.send(b"%d" % code)


def _hand_on_instead_of_exec(nodes: str, caller: int) -> None:
    from pgnode.os_support.lean_start import CHECKED_VARIABLE
    from tests.support import ready_nodes

    def execve(_program: str, _words: Sequence[str], variables: Mapping[str, str]) -> None:
        ready_nodes.hand_on(nodes, [1, int(variables[CHECKED_VARIABLE]), caller], variables)
        os._exit(_HANDED_ON)

    os.execve = execve  # type: ignore[assignment]


def place_outputs(output: int) -> None:
    """Have nothing as standard input, and this descriptor as both outputs, which Python makes streams of as at its start."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(output, number)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def take_environment(environment: Mapping[str, str], folder: str) -> None:
    """Have this environment, and be in this folder."""
    from pgnode.os_support import fault_points

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    points = environment.get("PGNODE_FAULT_POINTS")
    fault_points.use_folder(Path(points) if points else None)


def _command(request: dict[str, object], output: int) -> int:
    """Be ``python -m pgnode`` with these words. Returns the exit code."""
    words, env, cwd = request["words"], request["env"], request["cwd"]
    assert isinstance(words, list)
    assert isinstance(env, dict)
    place_outputs(output)
    os.closerange(3, output + 1)
    take_environment(env, str(cwd))
    sys.argv[:] = ["-m", *words]
    sys.orig_argv[:] = [sys.executable, "-m", "pgnode", *words]
    code = 0
    try:
        runpy.run_module("pgnode", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # What a node says is written by a thread, which is waited for at the end of a process.
    atexit._run_exitfuncs()
    return code


if __name__ == "__main__":
    _serve(sys.argv[1])
