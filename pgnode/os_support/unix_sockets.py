"""Unix sockets of other processes."""

from __future__ import annotations

import errno
import socket
from pathlib import Path


def is_served(path: str | Path) -> bool:
    """Whether somebody takes connections on a unix socket; a process that stands still does. Never blocks."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            return probe.connect_ex(str(path)) in (0, errno.EAGAIN)
    except OSError:
        # A path that is too long, or no descriptor left.
        return False
