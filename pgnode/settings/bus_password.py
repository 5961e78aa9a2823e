"""The password of the node's own Valkey: whoever only reaches its socket can do nothing there.

It is in a configuration file of Valkey's that this user alone can read, and so in no command line, environment or log. The
supervisor makes a new one at each of its starts; workers and commands such as ``pgnode users`` read it.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Final

from pgnode.os_support.files import read_regular, set_aside, write_atomically

#: The file's name, in the folder of sockets.
NAME: Final = "valkey.conf"

_DIRECTIVE: Final = "requirepass"
_MAX_BYTES: Final = 4096


def path_in(run_dir: Path) -> Path:
    """Return the file's path.

    Args:
        run_dir: The folder of sockets.

    Returns:
        The path, whether there is a file or not.
    """
    return run_dir / NAME


def read(run_dir: Path) -> str | None:
    """Read the password.

    Args:
        run_dir: The folder of sockets.

    Returns:
        The password; None where there is none.
    """
    try:
        words = read_regular(path_in(run_dir), _MAX_BYTES).decode().split()
    except (OSError, ValueError):
        return None
    return words[1] if len(words) == 2 and words[0] == _DIRECTIVE and words[1].isalnum() else None


def make(run_dir: Path) -> str | None:
    """Make a new password. Where it cannot be written, the one that is there stays.

    Args:
        run_dir: The folder of sockets.

    Returns:
        The password from now on; None where there is none, and none can be written.
    """
    with contextlib.suppress(OSError):
        keep(run_dir, secrets.token_hex(32))
    return read(run_dir)


def keep(run_dir: Path, password: str) -> None:
    """Write the password, unless it is there.

    Args:
        run_dir: The folder of sockets.
        password: The password.

    Raises:
        OSError: It cannot be written.
    """
    if read(run_dir) != password:
        if path_in(run_dir).is_dir():
            set_aside(path_in(run_dir))
        write_atomically(path_in(run_dir), f"{_DIRECTIVE} {password}\n", durable=False)
