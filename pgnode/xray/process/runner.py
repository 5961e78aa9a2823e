"""The process that becomes an embedded core: started ahead of its config, so that both are made at the same time.

It is started by ``multiprocess`` with the spawn method. Nothing of the program's ``__main__`` is imported in it, so it starts
fast and stays small. Until it has its config it is no core: it has no output, no folder and no library, and ends with the pipe
on which it waits, be it closed or be its other end dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import multiprocess

from pgnode.os_support.pidfd import Pidfd
from pgnode.os_support.request_signals import kept_from_children
from pgnode.xray.process import embedded_main, multiprocess_compat

#: The core looks for geo files in the folder that this variable names.
ASSETS_VARIABLE: Final = "XRAY_LOCATION_ASSET"

#: Seconds one that is not needed has to end by itself.
_DISCARD_SECONDS: Final = 2.0

#: Seconds a killed process has to end. The kernel may need a moment to free its memory; no wait for a child is longer.
END_SECONDS: Final = 5.0

#: Seconds in which the process must have taken its config.
_TAKE_SECONDS: Final = 20.0

#: Room in the pipe, as much as an unprivileged process may have: a large config takes fewer turns.
_PIPE_BYTES: Final = 1024 * 1024


class Child(Protocol):
    """What is known of a core's process that this process started itself."""

    @property
    def pidfd(self) -> Pidfd:
        """Its descriptor, which whoever has the running core closes."""

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended (negative: killed by that signal); reaps it, and never waits."""

    async def kill(self) -> None:
        """End a process that is no use, and give back what it holds here. Returns within a limit, whatever it does."""


async def end_child(child: Child) -> None:
    """End a process, reap it, and close its descriptor. Returns within a limit, whatever the process does."""
    child.pidfd.send(signal.SIGKILL)
    await ended_within(child.pidfd, END_SECONDS)
    child.exit_code()
    child.pidfd.close()


async def ended_within(process: Pidfd, seconds: float) -> bool:
    """Wait for the end of a process, but not for ever; returns whether it has ended."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await process.wait()
    return process.has_ended()


class Runner:
    """One such process: ``start_core`` or ``discard``, once.

    Args:
        assets_dir: Folder of geo files for the core.
        discard_seconds: Seconds the process has to end by itself when it is not needed.
        take_seconds: Seconds in which it must have taken its config.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        assets_dir: Path | None,
        *,
        discard_seconds: float = _DISCARD_SECONDS,
        take_seconds: float = _TAKE_SECONDS,
    ) -> None:
        self._discard_seconds = discard_seconds
        self._take_seconds = take_seconds
        multiprocess_compat.without_helper()
        context = multiprocess.get_context("spawn")
        reader, self._orders = context.Pipe(duplex=False)
        self._process = context.Process(target=embedded_main.run, args=(reader,), name="pgnode-core")
        try:
            with multiprocess_compat.without_main(), _assets_in_environment(assets_dir), kept_from_children():
                self._process.start()
            self._pidfd = Pidfd(self.pid)
            multiprocess_compat.forget(self._process)
        except BaseException:
            # A process that was started ends with the pipe, and multiprocess, which knows it still, reaps it.
            self._orders.close()
            raise
        finally:
            reader.close()

    def __repr__(self) -> str:
        return f"<Runner pid={self.pid}>"

    @property
    def pid(self) -> int:
        """The pid of the process, which is the core's later on."""
        pid: int = self._process.pid
        return pid

    @property
    def pidfd(self) -> Pidfd:
        """Its descriptor."""
        return self._pidfd

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended (negative: killed by that signal); reaps it, and never waits."""
        code: int | None = self._process.exitcode
        return code

    async def start_core(self, config_json: str, fifo: Path) -> None:
        """Let the process become the core of this config, with output to this FIFO.

        Args:
            config_json: The config.
            fifo: The path of the FIFO.

        Raises:
            OSError: It has ended, or did not take the config in time.
        """
        sending = asyncio.ensure_future(asyncio.to_thread(self._send, config_json.encode(), os.fsencode(fifo)))
        try:
            await asyncio.wait({sending}, timeout=self._take_seconds)
        finally:
            if not sending.done():
                # Nothing else ends a write to a pipe that nobody reads.
                self._pidfd.send(signal.SIGKILL)
                await asyncio.wait({sending}, timeout=END_SECONDS)
        sending.result()

    def _send(self, *messages: bytes) -> None:
        with contextlib.closing(self._orders):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._orders.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            for message in messages:
                self._orders.send_bytes(message)

    async def discard(self) -> None:
        """End the process, which is not needed; returns when it has ended, or cannot be ended."""
        if self._pidfd.fileno() < 0:
            return
        self._orders.close()
        # Never by multiprocess's own join: its wait has no limit once the process has closed its descriptors.
        await ended_within(self._pidfd, self._discard_seconds)
        await end_child(self)

    async def kill(self) -> None:
        """End the process at once, also one that is a core by now."""
        self._orders.close()
        await end_child(self)


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
