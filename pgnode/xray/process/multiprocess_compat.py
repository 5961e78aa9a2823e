"""What is used of ``multiprocess`` beyond what it promises. Nothing else in the project touches its private parts.

``multiprocess`` is the standard library's ``multiprocessing``, kept by itself. The versions that are known to work are in
:mod:`pgnode.dependencies`; tests/unit/xray/process/test_multiprocess_compat.py holds each member to what is needed of it.
"""

from __future__ import annotations

import contextlib
import os
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


def without_helper() -> None:
    """Keep ``multiprocess`` from starting its resource tracker, a process that it would keep beside the core.

    The tracker keeps account of semaphores and shared memory, of which there are none here. It is written to through a
    descriptor, and not started where there is one that takes what is written.
    """
    tracker = multiprocess.resource_tracker._resource_tracker
    if tracker._fd is None:
        vars(tracker)["_fd"] = os.open(os.devnull, os.O_WRONLY)
