"""Arm fault points of a node from a test: see ``pgnode.os_support.fault_points`` for what they do."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pgnode
from pgnode.supervisor.lifecycle.actions import STEP_POINTS

#: Pause between two looks for a file.
POLL_SECONDS = 0.005

_POINT = re.compile(r"\b(?:async_)?fault_point\(\s*\"([^\"]+)\"")


@functools.cache
def known_points() -> frozenset[str]:
    """Return the names of all fault points in the code."""
    sources = Path(pgnode.__file__).parent.rglob("*.py")
    named = {name for source in sources for name in _POINT.findall(source.read_text(encoding="utf-8"))}
    return frozenset(named | set(STEP_POINTS.values()))


class ArmedFaults:
    """The folder through which a test arms the points of processes.

    Args:
        folder: Made when it is missing. Processes find it by :attr:`environment`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment."""
        return {"PGNODE_FAULT_POINTS": str(self.folder)}

    def arm(self, name: str, action: str, *, skip: int = 0) -> None:
        """Arm a point.

        Args:
            name: The point.
            action: ``kill``, ``stop``, ``raise``, ``raise ENOSPC`` or ``wait``.
            skip: How many passes go first.

        Raises:
            ValueError: There is no such point in the code.
        """
        if name not in known_points():
            raise ValueError(f"no code has the fault point {name!r}; there are {sorted(known_points())}")
        self.disarm(name)
        new = self.folder / f"{name}.new"
        new.write_text(f"{action} {skip}")
        new.rename(self.folder / name)

    def disarm(self, name: str) -> None:
        """Forget a point; what waits there goes on."""
        (self.folder / name).unlink(missing_ok=True)
        (self.folder / f"{name}.reached").unlink(missing_ok=True)
        (self.folder / f"{name}.go").unlink(missing_ok=True)

    def reached_by(self, name: str) -> int:
        """Return the pid of the process that came to an armed point; 0 while none did."""
        try:
            return int((self.folder / f"{name}.reached").read_text())
        except FileNotFoundError:
            return 0

    async def reached(self, name: str, timeout_seconds: float = 30.0) -> int:
        """Wait until a process came to an armed point.

        Args:
            name: The point.
            timeout_seconds: How long that may take.

        Returns:
            Its pid.

        Raises:
            AssertionError: Nobody came in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (pid := self.reached_by(name)):
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody came to the fault point {name!r} within {timeout_seconds:g} s")
            await asyncio.sleep(POLL_SECONDS)
        return pid

    def let_go(self, name: str) -> None:
        """Let what waits at a point go on."""
        (self.folder / f"{name}.go").touch()

    def let_all_go(self) -> None:
        """Disarm every point, and let everything that waits go on."""
        for path in self.folder.iterdir():
            name = path.name.removesuffix(".reached")
            if path.suffix == ".reached":
                self.let_go(name)
            elif path.suffix != ".go":
                path.unlink(missing_ok=True)
