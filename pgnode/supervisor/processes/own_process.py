"""A process that is a child of this one: its end, and its exit code. Also one that this process had before a restart in place."""

from __future__ import annotations

import asyncio
import signal

from pgnode.os_support.pidfd import Pidfd

#: What is said of a child whose exit code somebody else took.
UNKNOWN_CODE = 255


class OwnProcess:
    """Belongs to the event loop of its first :meth:`wait`.

    Args:
        pid: The process; a child of this one, which nobody else waits for.

    Raises:
        OSError: There is no such process, or no descriptor is left.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = Pidfd(pid)
        self._ended: asyncio.Future[int] | None = None

    def __repr__(self) -> str:
        return f"OwnProcess({self.pid}, {'running' if self.returncode is None else self.returncode})"

    async def wait(self) -> int:
        """Wait for its end.

        Returns:
            The exit code, negative for a signal.
        """
        if self.returncode is not None:
            return self.returncode
        if self._ended is None:
            loop = asyncio.get_running_loop()
            self._ended = loop.create_future()
            loop.add_reader(self._pidfd.fileno(), self._on_end, loop)
        return await asyncio.shield(self._ended)

    def has_ended(self) -> bool:
        """Return whether it has ended, also before anybody waited for that."""
        return self.returncode is not None or self._pidfd.has_ended()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended."""
        self._pidfd.send(number)

    def give_up(self) -> None:
        """Reap it if it has ended, and know it no more; nobody may wait for it."""
        self._pidfd.reap()
        self.let_go()

    def let_go(self) -> None:
        """Leave it to somebody else, who reaps it; nobody may wait for it here."""
        if self._ended is not None and not self._ended.done():
            self._ended.get_loop().remove_reader(self._pidfd.fileno())
            self._ended.cancel()
        self._pidfd.close()

    def _on_end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd.fileno())
        code = self._pidfd.reap()
        self.returncode = UNKNOWN_CODE if code is None else code
        self._pidfd.close()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(self.returncode)
