"""Gunicorn's master: how it is run, and when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pgnode
from pgnode.os_support.aio import retry
from pgnode.os_support.log_output import LINES_VARIABLE
from pgnode.settings.handover import READY_VARIABLE, SOCKETS_VARIABLE, Handover
from pgnode.supervisor.processes.child import Attached, ChildSpec

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: Named as a file, which Gunicorn runs again at each reload; a module is run once.
CONFIGURATION = Path(pgnode.__file__).parent / "worker" / "gunicorn_conf.py"

#: What its master runs.
COMMAND = (sys.executable, "-m", "gunicorn", "-c", f"file:{CONFIGURATION}")

#: Seconds between two attempts to reach it.
POLL_SECONDS = 0.05

#: Seconds that a TLS handshake may take.
HANDSHAKE_SECONDS = 2.0

#: Seconds that closing a connection may take.
CLOSE_SECONDS = 1.0


class WorkerSignal:
    """A pipe through which a new Gunicorn's first worker says that it is there: the one before may still answer on its ports."""

    def __init__(self) -> None:
        self._ends: list[int] = []

    def __repr__(self) -> str:
        return f"WorkerSignal({self._ends})"

    def open(self) -> int:
        """Make the pipe for one start; returns the end for the worker."""
        self.close()
        self._ends = list(os.pipe())
        return self._ends[1]

    async def wait(self) -> None:
        """Wait for the signal; at once where no pipe was made. Cancelled when it does not come."""
        if not self._ends:
            return
        loop, (reader, writer) = asyncio.get_running_loop(), self._ends
        os.close(writer)
        self._ends = [reader]
        heard = asyncio.Event()
        loop.add_reader(reader, heard.set)
        try:
            await heard.wait()
        finally:
            loop.remove_reader(reader)
        if not os.read(reader, 1):
            # Nobody is left who could say it.
            await asyncio.Event().wait()

    def close(self) -> None:
        """Close what is open of it."""
        for number in self._ends:
            os.close(number)
        self._ends = []


def spec(settings: Settings, handover: Handover, sockets: Callable[[], Sequence[int]] = tuple) -> ChildSpec:
    """Return how Gunicorn is run.

    Args:
        settings: The node's settings.
        handover: How workers get them.
        sockets: The sockets that it listens on; without any it makes its own.

    Returns:
        What to run.
    """
    signal = WorkerSignal()

    def attach() -> Attached:
        numbers, writer = list(sockets()), signal.open()
        variables = {SOCKETS_VARIABLE: ",".join(map(str, numbers))} if numbers else {}
        return Attached({**variables, READY_VARIABLE: str(writer)}, (*numbers, writer))

    async def is_ready() -> None:
        await signal.wait()
        signal.close()
        await ready(settings)

    return ChildSpec(
        name="gunicorn",
        command=COMMAND,
        environment={**os.environ, **handover.environment, LINES_VARIABLE: "json"},
        ready=is_ready,
        pass_fds=handover.pass_fds,
        attach=attach,
    )


async def ready(settings: Settings) -> None:
    """Return when a worker completes a TLS handshake; the caller sets the deadline."""
    context = ssl.create_default_context()
    # Only asks whether somebody is there: the certificate may be an operator's for another name.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A worker listens on all of its ports or on none.
    port = next(iter(settings.gunicorn_ports.values()))

    hosts = itertools.cycle(settings.local_hosts)

    async def handshake() -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            _, writer = await asyncio.open_connection(next(hosts), port, ssl=context)
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.wait_closed()

    await retry(handshake, (OSError, TimeoutError), pause_seconds=POLL_SECONDS)
