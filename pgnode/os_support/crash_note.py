"""A note of a process that a signal of its own making ended: SIGSEGV, SIGABRT and their like.

Python writes it itself at that moment (:mod:`faulthandler`), so whoever comes next can tell such an end from SIGKILL, which comes
from outside and leaves nothing.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
from pathlib import Path
from typing import Any, Protocol

_MAX_BYTES = 64 * 1024


class Handler(Protocol):
    """What is needed of :mod:`faulthandler`."""

    def is_enabled(self) -> bool:
        """Whether somebody has it write elsewhere."""

    def enable(self, file: Any, all_threads: bool) -> None:
        """Have it write to a descriptor."""

    def disable(self) -> None:
        """Have it write nothing."""


class CrashNote:
    """Belongs to one process at a time. All calls do small file I/O.

    Args:
        path: Where it is written; the folder is this user's alone.
        handler: Writes it.
    """

    def __init__(self, path: Path, handler: Handler = faulthandler) -> None:
        self._path = path
        self._handler = handler
        self._descriptor = -1

    def __repr__(self) -> str:
        return f"CrashNote({self._path})"

    def take(self) -> str:
        """Return how the process ended that began a note and did not end it; "" where it was no crash. The note is removed."""
        text = ""
        with contextlib.suppress(OSError):
            with self._path.open("rb") as file:
                text = file.read(_MAX_BYTES).decode(errors="replace")
            self._path.unlink()
        return text.strip().partition("\n")[0]

    def begin(self) -> None:
        """Have a crash noted from now on; where that is not possible, or somebody else has it noted, nothing happens."""
        if self._handler.is_enabled():
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with contextlib.suppress(OSError):
            self._descriptor = os.open(self._path, flags, 0o600)
            self._handler.enable(self._descriptor, all_threads=False)

    def end(self) -> None:
        """Note nothing any more, and remove what is there."""
        if self._descriptor >= 0:
            self._handler.disable()
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(OSError):
                self._path.unlink()
