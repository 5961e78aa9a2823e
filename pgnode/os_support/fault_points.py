"""Named moments at which a test stops, ends or fails a process exactly there.

Without the environment variable ``PGNODE_FAULT_POINTS`` a fault point does nothing. With it, the variable names a
folder, and a test arms the point ``name`` by writing the file ``name`` there. The first process that comes to the point
takes the file away, writes its pid to ``name.reached``, and does what the file said:

* ``kill``: the process ends by SIGKILL;
* ``stop``: the process stops by SIGSTOP, until somebody sends SIGCONT;
* ``raise``: the point raises :class:`InjectedFaultError`; ``raise ENOSPC`` raises the OSError of that name;
* ``wait``: the point waits until the file ``name.go`` is there, or ``name.reached`` is not any more. In a coroutine
  (:func:`async_fault_point`) only that coroutine waits, in a thread the thread.

A number at the end of the file lets that many passes go first: ``kill 2`` is the third pass.
``pgnode.testing.faults`` is the test's side.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from pathlib import Path

#: Pause between two checks for ``name.go``.
_POLL_SECONDS = 0.002


class InjectedFaultError(Exception):
    """A test wanted something to fail here."""


class FaultPoints:
    """The points of this process.

    Args:
        folder: Where tests arm points; None: no point ever does anything.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        #: How often an armed point was passed, by the file that armed it.
        self._passes: dict[tuple[str, int], int] = {}

    def take(self, name: str) -> str | None:
        """Take what a point was armed with.

        Args:
            name: The point.

        Returns:
            The action, None when the point is not armed or its turn has not come.
        """
        if self.folder is None:
            return None
        armed = self.folder / name
        try:
            identity = armed.stat().st_ino
            words = armed.read_text().split()
        except OSError:
            return None
        passes = self._passes[name, identity] = self._passes.get((name, identity), 0) + 1
        skip = int(words.pop()) if words[-1].isdigit() else 0
        if passes <= skip:
            return None
        reached = self.folder / f"{name}.reached"
        mine = self.folder / f"{name}.{os.getpid()}"
        mine.write_text(str(os.getpid()))
        try:
            armed.unlink()
        except FileNotFoundError:  # another process was first
            mine.unlink()
            return None
        mine.rename(reached)
        return " ".join(words)

    def act(self, name: str, action: str) -> None:
        """Do what a point was armed with, except for waiting.

        Args:
            name: The point.
            action: What it was armed with.

        Raises:
            InjectedFaultError: The action is ``raise``.
            OSError: The action is ``raise`` with the name of an errno.
        """
        match action.split():
            case ["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["stop"]:
                os.kill(os.getpid(), signal.SIGSTOP)
            case ["raise"]:
                raise InjectedFaultError(name)
            case ["raise", word]:
                number = int(getattr(errno, word))
                raise OSError(number, f"{os.strerror(number)} (fault point {name})")
            case _:
                raise ValueError(f"fault point {name}: {action!r} is no action")

    def may_go(self, name: str) -> bool:
        """Whether a point that waits may go on."""
        assert self.folder is not None
        return (self.folder / f"{name}.go").exists() or not (self.folder / f"{name}.reached").exists()


def _of_environment() -> FaultPoints:
    folder = os.environ.get("PGNODE_FAULT_POINTS")
    return FaultPoints(Path(folder) if folder else None)


_points = _of_environment()


def use_folder(folder: Path | None) -> None:
    """Have this process's points armed from ``folder``, or with None from nowhere."""
    global _points  # noqa: PLW0603 - one set of points for the process, as one environment
    _points = FaultPoints(folder)


def fault_point(name: str) -> None:
    """Be the moment ``name``; nothing happens unless a test armed it."""
    if _points.folder is None:
        return
    points = _points
    action = points.take(name)
    if action == "wait":
        while not points.may_go(name):
            time.sleep(_POLL_SECONDS)
    elif action is not None:
        points.act(name, action)


async def async_fault_point(name: str) -> None:
    """Be the moment ``name`` in a coroutine; where it waits, only this coroutine does."""
    if _points.folder is None:
        return
    points = _points
    action = points.take(name)
    if action == "wait":
        while not points.may_go(name):  # noqa: ASYNC110 - what it waits for is a file
            await asyncio.sleep(_POLL_SECONDS)
    elif action is not None:
        points.act(name, action)
