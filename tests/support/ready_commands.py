"""Operators' commands as processes that are forked from one which has loaded them: to start Python takes longer than they do.

``python -m tests.support.ready_commands SOCKET`` listens there and ends with its standard input. Each connection brings one
command: JSON with its words, environment and folder, together with a descriptor for both its outputs. It is answered by the
command's pid and, when that has ended, by its exit code, a line each.
"""

from __future__ import annotations

import asyncio
import atexit
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
from collections.abc import Mapping, Sequence
from pathlib import Path

#: What a command may be in bytes, with its environment.
_MESSAGE_BYTES = 1 << 20

#: Seconds in which the server comes up: a machine with other things to do may need long.
_START_SECONDS = 60.0


class _Server:
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
        assert self._process.stdout.readline() == b"ready\n"

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


@functools.cache
def _server() -> _Server:
    return _Server()


async def run_ready(words: Sequence[str], *, env: Mapping[str, str], timeout_seconds: float) -> tuple[int, str]:
    """Exit code and output, both streams, of ``python -m pgnode WORDS``. TimeoutError; it is killed then."""
    server = await asyncio.to_thread(_server)
    out, its_out = os.pipe()
    request = json.dumps({"words": list(words), "env": dict(env), "cwd": str(Path.cwd())}).encode()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = 0
    with connection, os.fdopen(out, "rb") as output:
        with os.fdopen(its_out, "wb"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
            connection.connect(str(server.path))
            socket.send_fds(connection, [request], [its_out])
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


def _serve(path: str) -> None:
    import pgnode.cli

    for module in pkgutil.iter_modules(pgnode.cli.__path__, "pgnode.cli."):
        importlib.import_module(module.name)
    # Nobody waits for those who watch over commands.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _watch_over(connection)
            connection.close()


def _watch_over(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MESSAGE_BYTES)
    message, [output], _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 1)
    pid = os.fork()
    if pid == 0:
        connection.close()
        os._exit(_command(json.loads(message), output))
    os.close(output)
    connection.send(b"%d" % pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.send(b"%d" % code)
    os._exit(0)


def _command(request: dict[str, object], output: int) -> int:
    """Be ``python -m pgnode`` with these words. Returns the exit code."""
    from pgnode.os_support import fault_points

    words, env, cwd = request["words"], request["env"], request["cwd"]
    assert isinstance(words, list)
    assert isinstance(env, dict)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(output, number)
    os.closerange(3, output + 1)
    os.chdir(str(cwd))
    os.environ.clear()
    os.environ.update(env)
    folder = env.get("PGNODE_FAULT_POINTS")
    fault_points.use_folder(Path(folder) if folder else None)
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
    return code


if __name__ == "__main__":
    _serve(sys.argv[1])
