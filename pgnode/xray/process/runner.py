"""The process that becomes an embedded core: started ahead of its config, so that both are made at the same time.

It is started by ``multiprocess`` with the spawn method. Nothing of the program's ``__main__`` is imported in it, so it starts
fast and stays small. Until it has its config it is no core: it has no output, no folder and no library, and ends with the pipe
on which it waits, be it closed or be its other end dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import multiprocess

from pgnode.xray.process import embedded_main, multiprocess_compat

#: The core looks for geo files in the folder that this variable names.
ASSETS_VARIABLE: Final = "XRAY_LOCATION_ASSET"

#: Seconds one that is not needed has to end by itself.
_DISCARD_SECONDS: Final = 2.0


class Child(Protocol):
    """What is known of a core's process that this process started itself."""

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended (negative: killed by that signal); reaps it."""


class Runner:
    """One such process: ``start_core`` or ``discard``, once.

    Args:
        assets_dir: Folder of geo files for the core.
        discard_seconds: Seconds the process has to end by itself when it is not needed.
    """

    def __init__(self, assets_dir: Path | None, *, discard_seconds: float = _DISCARD_SECONDS) -> None:
        self._discard_seconds = discard_seconds
        context = multiprocess.get_context("spawn")
        reader, self._orders = context.Pipe(duplex=False)
        self._process = context.Process(target=embedded_main.run, args=(reader,), name="pgnode-core")
        try:
            with multiprocess_compat.without_main(), _assets_in_environment(assets_dir):
                self._process.start()
        except BaseException:
            self._orders.close()
            raise
        finally:
            reader.close()
        multiprocess_compat.forget(self._process)

    def __repr__(self) -> str:
        return f"<Runner pid={self.pid}>"

    @property
    def pid(self) -> int:
        """The pid of the process, which is the core's later on."""
        pid: int = self._process.pid
        return pid

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended (negative: killed by that signal); reaps it."""
        code: int | None = self._process.exitcode
        return code

    def start_core(self, config: Path, fifo: Path) -> None:
        """Let the process become the core of this config, with output to this FIFO. Raises OSError when it has ended."""
        with contextlib.closing(self._orders):
            self._orders.send_bytes(os.fsencode(config))
            self._orders.send_bytes(os.fsencode(fifo))

    async def discard(self) -> None:
        """End the process, which is not needed; returns when it has ended."""
        self._orders.close()
        await asyncio.to_thread(self._process.join, self._discard_seconds)
        if self.exit_code() is None:
            self._process.kill()
            await asyncio.to_thread(self._process.join, self._discard_seconds)


@contextlib.contextmanager
def _assets_in_environment(assets_dir: Path | None) -> Iterator[None]:
    """Name the folder of geo files in our own environment for a moment.

    The spawn method passes on our environment, and the core's library knows only the one that its process began with.
    """
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
