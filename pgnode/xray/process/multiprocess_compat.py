"""What is used of ``multiprocess`` beyond what it promises. Nothing else in the project touches its private parts.

``multiprocess`` is the standard library's ``multiprocessing``, kept by itself. The versions that are known to work are in
:mod:`pgnode.dependencies`; tests/unit/xray/process/test_multiprocess_compat.py holds each member to what is needed of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import multiprocess.process
import multiprocess.resource_tracker
import multiprocess.spawn

_main_lock = threading.Lock()


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Hide ``__main__`` from the spawn method, which would run the program's script again in the child.

    That would be harmless (console scripts guard themselves), but costs the child the time and memory of all imports.
    ``multiprocess.spawn.get_preparation_data`` reads ``sys.modules["__main__"]`` when a process is started.
    """
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def forget(process: Any) -> None:
    """Take a process out of ``multiprocess.process._children``: at exit it would be waited for, and it may outlive us."""
    children: set[Any] = multiprocess.process._children
    children.discard(process)


def stop_resource_tracker() -> None:
    """End the helper process that ``multiprocess`` keeps for every process that spawns: it would outlive us by a moment.

    It keeps account of semaphores and shared memory, of which there are none here. By itself it ends when the last process that
    inherited its pipe has, which would be waited for without a limit.
    """
    tracker = multiprocess.resource_tracker._resource_tracker
    if tracker._pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(tracker._pid, signal.SIGKILL)
    tracker._stop()
