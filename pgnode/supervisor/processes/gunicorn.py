"""Gunicorn's master: how it is run, when it is ready, and the ports it needs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Sequence

from pgnode.errors import PortInUseError
from pgnode.settings import Settings

#: Pause between two looks whether it answers.
LOOK_SECONDS = 0.05


def command() -> Sequence[str]:
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "python:pgnode.worker.gunicorn_conf",
    ]


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with the folder as the supervisor resolved it."""
    return {**os.environ, "STATE_DIR": str(settings.state_dir)}


def check_ports(settings: Settings) -> None:
    """Raises PortInUseError when somebody else listens on one of Gunicorn's ports."""
    family = socket.AF_INET6 if ":" in settings.node_host else socket.AF_INET
    for name, port in settings.gunicorn_ports.items():
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.node_host, port))
            except OSError as error:
                raise PortInUseError(
                    f"port {port} on {settings.node_host} cannot be used: {error.strerror}; "
                    f"end what listens there, or set {name} (or NODE_HOST) to something else"
                ) from None


def local_address(settings: Settings) -> str:
    """The address under which this machine reaches the API."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.node_host, settings.node_host)


async def ready(settings: Settings) -> None:
    """Returns when a worker completes a TLS handshake; the caller sets the deadline."""
    context = ssl.create_default_context()
    # Only asks whether somebody is there: the certificate may be an operator's for another name.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # A worker listens on all of its ports or on none.
    port = next(iter(settings.gunicorn_ports.values()))
    while True:
        try:
            async with asyncio.timeout(2):
                _, writer = await asyncio.open_connection(local_address(settings), port, ssl=context)
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()
            return
        except (OSError, TimeoutError):
            await asyncio.sleep(LOOK_SECONDS)
