"""Which nodes run on this machine, as the system shows its processes: whoever holds the lock of a state folder is one."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from pgnode.supervisor.host.node_lock import LOCK_NAME

#: What stands in the command line of every supervisor.
_MARK = b"pgnode"

#: Bytes of a command line that are looked at.
_COMMAND_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that runs."""

    pid: int
    state_dir: Path
    #: The name of the user that it belongs to, or the number where there is no name.
    user: str

    def __str__(self) -> str:
        return f"STATE_DIR={self.state_dir} (pid {self.pid}, user {self.user})"


def running_nodes(proc: Path = Path("/proc")) -> list[RunningNode]:
    """Find the nodes that this user may see: its own, or all of them for root.

    Args:
        proc: Where the system shows its processes.

    Returns:
        The nodes, by their folders. One in a container, whose folder this machine does not know by that name, is left out.
    """
    found: dict[Path, RunningNode] = {}
    try:
        entries = [entry for entry in os.listdir(proc) if entry.isdigit()]
    except OSError:
        return []
    for entry in entries:
        node = _node_of(proc / entry)
        if node is not None:
            found[node.state_dir] = node
    return [found[folder] for folder in sorted(found)]


def _node_of(process: Path) -> RunningNode | None:
    """Return the node that a process is the supervisor of; None where it is none, or may not be looked at."""
    try:
        with (process / "cmdline").open("rb") as file:
            if _MARK not in file.read(_COMMAND_BYTES):
                return None
        for descriptor in os.listdir(process / "fd"):
            state_dir = _state_dir_of(process / "fd" / descriptor)
            if state_dir is not None:
                return RunningNode(int(process.name), state_dir, user_name(process.stat().st_uid))
    except OSError:
        # It has ended, or is another user's.
        pass
    return None


def _state_dir_of(descriptor: Path) -> Path | None:
    """Return the folder whose lock this descriptor is; None where it is something else."""
    try:
        target = descriptor.readlink()
        if target.name == LOCK_NAME and target.parent.name == "run" and target.samefile(descriptor):
            return target.parent.parent
    except OSError:
        pass
    return None


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
