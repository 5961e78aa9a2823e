"""The process that becomes an embedded core: started ahead of its config, so that both are made at the same time.

It is started by ``multiprocess`` with the spawn method. Nothing of the program's ``__main__`` is imported in it
(``_without_main``), so it starts fast and stays small. Until it is told its config it is no core: it has no output, no folder
and no library, and ends with the pipe on which it waits, be it closed or be its other end dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import multiprocess
import multiprocess.connection
import multiprocess.resource_tracker

from pgnode.xray.process import embedded_main as embedded

#: The core looks for geo files in the folder that this variable names.
ASSETS_VARIABLE: Final = "XRAY_LOCATION_ASSET"

#: How long one that is not needed has to end.
_DISCARD_SECONDS: Final = 2.0


class Child(Protocol):
    """What is known of a core's process that this process started itself."""

    def exit_code(self) -> int | None:
        """The exit code once the process has ended (negative: killed by that signal); reaps it."""


class Runner:
    """One such process: ``go`` or ``discard``, once."""

    def __init__(self, assets_dir: Path | None) -> None:
        context = multiprocess.get_context("spawn")
        reader, self._orders = context.Pipe(duplex=False)
        self._process = context.Process(target=embedded.run, args=(reader,), name="pgnode-core")
        try:
            with _without_main(), _assets_in_environment(assets_dir):
                self._process.start()
        except BaseException:
            self._orders.close()
            raise
        finally:
            reader.close()
        # multiprocess waits at exit for every child it knows; this one may outlive us.
        _forget(self._process)

    def __repr__(self) -> str:
        return f"<Runner pid={self.pid}>"

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    def exit_code(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def go(self, config: Path, fifo: Path) -> None:
        """Become the core of this config, with output to this FIFO. Raises OSError where the process has ended."""
        with contextlib.closing(self._orders):
            self._orders.send_bytes(os.fsencode(config))
            self._orders.send_bytes(os.fsencode(fifo))

    async def discard(self) -> None:
        """It is not needed; returns when it has ended."""
        self._orders.close()
        await asyncio.to_thread(self._process.join, _DISCARD_SECONDS)
        if self.exit_code() is None:
            self._process.kill()
            await asyncio.to_thread(self._process.join, _DISCARD_SECONDS)


def end_tracker() -> None:
    """End the helper process that ``multiprocess`` keeps while this process spawns: it would outlive us by a moment."""
    multiprocess.resource_tracker._resource_tracker._stop()


_main_lock = threading.Lock()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide ``__main__`` from the spawn method, which would run the program's script again in the child.

    That would be harmless (console scripts guard themselves), but costs the runner the time and memory of all imports.
    """
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextlib.contextmanager
def _assets_in_environment(assets_dir: Path | None) -> Iterator[None]:
    """The spawn method passes on our own environment, and the core's library knows only what its process began with."""
    before = os.environ.get(ASSETS_VARIABLE)
    if assets_dir is not None:
        os.environ[ASSETS_VARIABLE] = str(assets_dir)
    try:
        yield
    finally:
        if before is not None:
            os.environ[ASSETS_VARIABLE] = before
        elif assets_dir is not None:
            del os.environ[ASSETS_VARIABLE]


def _forget(process: Any) -> None:
    children: set[Any] = multiprocess.process._children
    children.discard(process)
