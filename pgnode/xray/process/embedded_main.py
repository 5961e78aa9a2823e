"""The insides of the processes that hold the embedded core (PyPI ``Xray-core``, import ``xray``).

Two uses: ``run`` is the target of the runner process that ``pgnode.xray.process.runner`` spawns, and this file run as a script
(``python -I embedded_main.py < config.json``) is a short-lived process that tries a config. So to import it imports nothing of
pgnode; the runner does so later.

The library runs one core for the life of its process and ends the process itself: exit code 23 when it refuses the
config, 255 when the start fails, 0 on SIGTERM (Xray-core 1.8.26.13, measured). It gives no reason for 23.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import Protocol

#: Room for a burst of log lines while nobody reads; the default is 64 KiB, an unprivileged process may have 1 MiB.
LOG_PIPE_BYTES = 1024 * 1024


def open_log(fifo: Path) -> int:
    """Open a core's log FIFO for reading and writing, so that a reader that vanished neither kills nor blocks it.

    Non-blocking, since a Go panic writes its text straight to the descriptor: a full pipe must not hold up the end.
    """
    descriptor = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, LOG_PIPE_BYTES)
    return descriptor


class Orders(Protocol):
    """The reading end of a multiprocess pipe."""

    def recv_bytes(self) -> bytes:
        """One message. Raises EOFError when the other end is closed."""

    def close(self) -> None:
        """Close it."""


def run(orders: Orders) -> None:
    """Be the runner: a session of its own, no descriptor of the parent kept, output to the FIFO; does not return.

    ``orders`` brings the config and the path of the FIFO, when they are there; nothing is done when they never come. The config
    comes this way, and not as a file, since it has to come on a full disk as well.
    """
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    try:
        config = orders.recv_bytes().decode()
        log_fifo = Path(os.fsdecode(orders.recv_bytes()))
    except EOFError:
        return
    # Else it would be closed once more at the end, and say in the core's log that it cannot be.
    orders.close()
    # Among these may be a pipe that somebody waits to see closed.
    for descriptor in _open_descriptors():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    log = open_log(log_fifo)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)
    os.chdir("/")
    _let_connections_be_ended(log_fifo.parent)
    _start(config)


def _let_connections_be_ended(folder: Path) -> None:
    """Have a thread answer the supervisor; the core comes up without it, too."""
    with contextlib.suppress(Exception):
        from pgnode.xray.process import reach_inside, reach_messages  # noqa: PLC0415 - not for a short-lived core

        reach_inside.begin(folder / reach_messages.REACH_NAME)


def _open_descriptors() -> list[int]:
    """List the descriptors of this process, its standard input and output left out."""
    return [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]


def _start(config: str) -> None:
    # The Go runtime looks at fd 1 and 2 when the library is loaded: they have to be what they will be.
    import xray  # noqa: PLC0415

    xray.startFromJSON(config)


if __name__ == "__main__":
    os.umask(0o077)
    _start(sys.stdin.read())
