"""Process descriptors (pidfd_open(2)): signals to exactly one process, and its end; never another process that got its pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal


class Pidfd:
    """A descriptor of one process, also of one that is no child of ours. Close it after use.

    Whoever cannot be sure that ``pid`` still is the process it means checks that afterwards: from then on the descriptor
    refers to this process alone.

    Args:
        pid: The process.

    Raises:
        OSError: There is no such process, or no descriptor is left.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def __repr__(self) -> str:
        return f"Pidfd({self.pid}, {'open' if self._descriptor >= 0 else 'closed'})"

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when the process has ended; -1 after :meth:`close`."""
        return self._descriptor

    def has_ended(self) -> bool:
        """Return whether the process has ended; it may still have to be reaped."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended or the descriptor is closed."""
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def reap(self) -> int | None:
        """Take the exit code of a child that has ended; never waits.

        Returns:
            The code, negative for a signal; None when it has not ended, is no child of this process, or was reaped before.
        """
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
            if found is not None:
                return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        return None

    async def wait(self) -> None:
        """Return when the process has ended. One caller at a time."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = self._descriptor
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)

    def close(self) -> None:
        """Give the descriptor back. The process goes on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Pidfd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
