"""A gRPC worker's channel to the supervisor: signs of life one way, the request to stop the other way.

A socket pair. The worker sends :data:`BEAT` every second, from the event loop that serves calls, so that a worker that hangs
sends none. When it was told to end by somebody else than the supervisor it sends :data:`LEAVING` in place of beats. The
supervisor then starts another one, and closes its end when that one has the port. A closed end always means: end now. The
kernel closes it, too, when the supervisor ends, so a worker need not count the seconds for which it waits. Before it closes its
end the supervisor sends :data:`OTHERS_SERVE` where callers find another worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

BEAT = b"."
LEAVING = b"L"
OTHERS_SERVE = b"O"

#: Seconds between two heartbeats.
BEAT_SECONDS = 1.0


class HeartbeatChannel:
    """The worker's end; without a socket (a worker started by hand) nobody listens, and nobody has to be asked.

    Attributes:
        stop_requested: Set when the supervisor wants the worker to end, or has ended itself.
        others_serve: Whether other workers serve the port then, as the supervisor said.

    Args:
        file_number: Of the socket; it is closed with the channel. None: there is none.
        beat_seconds: Seconds between two heartbeats.
    """

    def __init__(self, file_number: int | None, *, beat_seconds: float = BEAT_SECONDS) -> None:
        self.stop_requested = asyncio.Event()
        self.others_serve = False
        self._beat_seconds = beat_seconds
        self._sign = BEAT
        self._socket = None if file_number is None else socket.socket(fileno=file_number)
        if self._socket is not None:
            self._socket.setblocking(False)

    def __repr__(self) -> str:
        state = "closed" if self._socket is None else "stop requested" if self.stop_requested.is_set() else "open"
        return f"HeartbeatChannel({state})"

    def start(self) -> None:
        """Send the first sign of life, which says that calls are taken, and all that follow."""
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._read)
            self._beat()

    def leave(self) -> None:
        """Ask for a replacement, and ask again with each beat: what a supervisor that does not read was sent may be lost."""
        self._sign = LEAVING
        if self._socket is None:
            self.stop_requested.set()
        else:
            self._send(LEAVING)

    def close(self) -> None:
        """Close the channel, which tells the supervisor that this worker ends."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _beat(self) -> None:
        if self._socket is not None:
            self._send(self._sign)
            asyncio.get_running_loop().call_later(self._beat_seconds, self._beat)

    def _send(self, what: bytes) -> None:
        # A supervisor that does not read for a while has many beats to find.
        with contextlib.suppress(OSError):
            assert self._socket is not None
            self._socket.send(what)

    def _read(self) -> None:
        """Read what there is: uvloop does not call again where the other end was closed with beats that nobody has read."""
        assert self._socket is not None
        while True:
            try:
                said = self._socket.recv(64)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                asyncio.get_running_loop().remove_reader(self._socket)
                self.stop_requested.set()
                return
            if OTHERS_SERVE in said:
                self.others_serve = True
