"""The lock on the state folder as others see it: which process holds it, and what it can be told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pgnode.errors import OperatorError
from pgnode.os_support.files import read_regular

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: The file of the lock, in the folder of sockets and records; it holds the pid.
LOCK_NAME = "node.lock"

_LOCK_BYTES = 64

#: How often a process is looked at before it counts as holding nothing, and seconds between two looks.
_LOOKS = 4
_POLL_INTERVAL_SECONDS = 0.05


def running_pid(settings: Settings, proc: Path = Path("/proc")) -> int | None:
    """Find the node that runs with this state folder. The lock is not touched: a node that starts would find it held.

    Args:
        settings: The folder.
        proc: Where the system shows its processes.

    Returns:
        The supervisor's pid; None where no node runs.

    Raises:
        OperatorError: It cannot be told, since the folder, or the process, is another user's.
    """
    path = settings.run_dir / LOCK_NAME
    try:
        pid = int(read_regular(path, _LOCK_BYTES).split()[0])
        lock = path.stat()
    except PermissionError:
        raise OperatorError(
            f"STATE_DIR={settings.state_dir} may not be looked into by this user: be the user of the node, or root"
        ) from None
    except (OSError, ValueError, IndexError):
        return None
    folder = proc / str(pid) / "fd"
    for look in range(_LOOKS):
        try:
            if _holds(folder, lock):
                return pid
        except PermissionError:
            raise OperatorError(
                f"whether the node with STATE_DIR={settings.state_dir} runs cannot be told: process {pid} is another user's, "
                "or has more rights than this one; be that user, or root"
            ) from None
        except OSError:
            return None
        if look < _LOOKS - 1:
            # A process that becomes another program shows nothing for a moment.
            time.sleep(_POLL_INTERVAL_SECONDS)
    return None


def _holds(folder: Path, lock: os.stat_result) -> bool:
    """Whether one of the descriptors in a folder is the lock. Raises OSError."""
    hidden = False
    for entry in folder.iterdir():
        try:
            if os.path.samestat(entry.stat(), lock):
                return True
        except PermissionError:
            hidden = True
        except OSError:
            continue
    if hidden and not _is_listed(folder.parent, lock):
        raise PermissionError
    return hidden


def _is_listed(process: Path, lock: os.stat_result) -> bool:
    """Whether the kernel's list of locks has this one as the process's. Raises OSError.

    The service may bind low ports. Its own user, without that right, may not see its descriptors.
    """
    wanted = [process.name, f"{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:{lock.st_ino}"]
    lines = (process.parent / "locks").read_text(encoding="ascii", errors="replace").splitlines()
    return any(line.split()[4:6] == wanted for line in lines)


def may_be_signalled(pid: int, number: signal.Signals, proc: Path = Path("/proc")) -> bool:
    """Whether a process handles a signal, or lets it wait; any other one would be ended by it.

    Args:
        pid: The process.
        number: The signal.
        proc: Where the system shows its processes.

    Returns:
        Whether it does.
    """
    try:
        lines = (proc / str(pid) / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    masks = int(fields.get("SigCgt", "0"), 16) | int(fields.get("SigBlk", "0"), 16)
    return bool(masks >> (number - 1) & 1)
