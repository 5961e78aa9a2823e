"""The children of a process, as the kernel tells them; also where it tells nothing of the machine (``subset=pid``)."""

from __future__ import annotations

from pathlib import Path

#: The state of a process that has ended and was not reaped.
ZOMBIE = "Z"


def children(pid: int, proc: Path = Path("/proc")) -> dict[int, str]:
    """Find the children of a process.

    Args:
        pid: The process.
        proc: Where the system shows its processes.

    Returns:
        Pid of each child -> the letter of its state; nothing where the process has ended, or its children may not be seen.
    """
    found: dict[int, str] = {}
    try:
        entries = [entry for entry in proc.iterdir() if entry.name.isdecimal()]
    except OSError:
        return found
    for entry in entries:
        try:
            # The name of a process may hold anything, brackets too.
            state, parent = (
                (entry / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[:2]
            )
        except (OSError, ValueError):
            continue
        if parent == str(pid):
            found[int(entry.name)] = state
    return found
