"""A gRPC worker's line to the supervisor: signs of life one way, permission to end the other way.

A socket pair. The worker sends :data:`BEAT` every second, from the event loop that serves calls, so that one which hangs
falls silent; and :data:`LEAVING` when it was told to end by somebody else than the supervisor, which then starts another
one and closes its end when that one has the port. A closed end always means: end now.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

BEAT = b"."
LEAVING = b"L"

#: Seconds between two signs of life.
BEAT_SECONDS = 1.0

#: Seconds that a worker which was told to end goes on taking calls while its replacement comes up.
REPLACEMENT_SECONDS = 8.0


class HeartbeatChannel:
    """The worker's end; without a socket (a worker started by hand) nobody listens, and nobody has to let it go."""

    def __init__(self, file_number: int | None) -> None:
        self._socket = None if file_number is None else socket.socket(fileno=file_number)
        if self._socket is not None:
            self._socket.setblocking(False)
        #: Set when the supervisor wants the worker to end, or has ended itself.
        self.stop_requested = asyncio.Event()

    def start(self) -> None:
        """Tell of the first sign of life, which says that calls are taken, and of all that follow."""
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._read)
            self._beat()

    def leave(self) -> None:
        """Ask for a replacement."""
        if self._socket is None:
            self.stop_requested.set()
        else:
            self._send(LEAVING)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _beat(self) -> None:
        if self._socket is not None:
            self._send(BEAT)
            asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _send(self, what: bytes) -> None:
        # A supervisor that does not read for a while has many beats to find.
        with contextlib.suppress(OSError):
            assert self._socket is not None
            self._socket.send(what)

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            if not self._socket.recv(64):
                asyncio.get_running_loop().remove_reader(self._socket)
                self.stop_requested.set()
