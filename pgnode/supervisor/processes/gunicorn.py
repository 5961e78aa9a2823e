"""Gunicorn's master: how it is run, and when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from pathlib import Path

import pgnode
from pgnode.os_support.aio import retry
from pgnode.settings import Settings
from pgnode.settings.handover import Handover
from pgnode.supervisor.processes.child import ChildSpec

#: Named as a file, which Gunicorn runs again at each reload; a module is run once.
CONFIGURATION = Path(pgnode.__file__).parent / "worker" / "gunicorn_conf.py"

#: Seconds between two attempts to reach it.
POLL_SECONDS = 0.05

#: Seconds that a TLS handshake may take.
HANDSHAKE_SECONDS = 2.0

#: Seconds that closing a connection may take.
CLOSE_SECONDS = 1.0


def spec(settings: Settings, handover: Handover) -> ChildSpec:
    """Return how Gunicorn is run."""
    return ChildSpec(
        name="gunicorn",
        command=[sys.executable, "-m", "gunicorn", "-c", f"file:{CONFIGURATION}"],
        environment={**os.environ, **handover.environment},
        ready=lambda: ready(settings),
        pass_fds=handover.pass_fds,
    )


async def ready(settings: Settings) -> None:
    """Return when a worker completes a TLS handshake; the caller sets the deadline."""
    context = ssl.create_default_context()
    # Only asks whether somebody is there: the certificate may be an operator's for another name.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A worker listens on all of its ports or on none.
    port = next(iter(settings.gunicorn_ports.values()))

    async def handshake() -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            _, writer = await asyncio.open_connection(settings.local_host, port, ssl=context)
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.wait_closed()

    await retry(handshake, (OSError, TimeoutError), pause_seconds=POLL_SECONDS)
