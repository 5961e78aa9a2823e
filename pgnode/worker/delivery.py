"""Whether an answer has reached the peer's kernel: what TCP itself knows about a connection (Linux).

A transport tells when its buffer is empty, which means no more than that this machine's kernel has the bytes. What the peer's
kernel has acknowledged is ``tcpi_bytes_acked`` of TCP_INFO, and what it has not is SIOCOUTQ (tcp(7), linux/tcp.h). An answer has
arrived when nothing is unacknowledged and as many bytes as the answer has, in TLS records, were acknowledged since before it was
written: the second part matters because bytes may still wait in the event loop, out of the kernel's sight, while
its queue is empty for a moment, or when the peer has closed the connection after half of them.

While an answer is watched its socket lingers for no time: if this process dies, the kernel throws away what it has not sent yet
in place of sending it later, unknown to the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import termios
from typing import Any

#: Pauses between two polls of the kernel: an answer on a short way arrives within the first ones.
_FIRST_PAUSE_SECONDS = 0.0005
_LAST_PAUSE_SECONDS = 0.02

#: Offset of ``tcpi_bytes_acked`` (64 bits) in ``struct tcp_info``; Linux has it since 4.1.
_BYTES_ACKED_AT = 120
_TCP_INFO_BYTES = 192

#: The state of a connection that is over (linux/tcp.h).
_TCP_CLOSE = 7

#: A TLS record holds 16 KiB at most. Around them are its header (5), its tag (16), and in TLS 1.3 its type (RFC 8446, 5.2).
_RECORD_BYTES = 16 * 1024
_RECORD_OVERHEAD_BYTES = 21
_RECORD_OVERHEAD_BYTES_1_3 = 22

_connect = ctypes.CDLL(None, use_errno=True).connect
#: A socket address without a family.
_UNSPECIFIED = struct.pack("H14x", socket.AF_UNSPEC)

_LINGER_NOT = struct.pack("ii", 1, 0)
_LINGER_AS_USUAL = struct.pack("ii", 0, 0)


class TcpDelivery:
    """Watches one answer, from before its first byte. Closes nothing but its own copy of the socket.

    Args:
        transport: The connection that the answer is about to be written to.
        limit_seconds: Seconds that the answer may be on its way; then its connection is reset, so that it cannot arrive later.
    """

    def __init__(self, transport: Any, *, limit_seconds: float) -> None:
        self._transport = transport
        tls = transport.get_extra_info("ssl_object")
        #: Bytes around each record; None without TLS.
        self._overhead: int | None = None
        if tls is not None:
            self._overhead = _RECORD_OVERHEAD_BYTES_1_3 if tls.version() == "TLSv1.3" else _RECORD_OVERHEAD_BYTES
        # A copy: the transport's own may be closed and its number given to another connection while this one looks.
        self._socket: socket.socket | None = None
        self._before = 0
        #: Resets the connection: also while the answer is still being written, to a caller that does not read.
        self._limit = asyncio.get_running_loop().call_later(limit_seconds, self._reset)
        try:
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            self._before = self._acknowledged() + self._unacknowledged()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        except (OSError, AttributeError):
            self._let_go()

    def __repr__(self) -> str:
        return f"TcpDelivery({'watching' if self._socket is not None else 'ended'})"

    async def arrived(self, answer_bytes: int) -> bool:
        """Wait until the answer has arrived, or cannot any more.

        Args:
            answer_bytes: How long it is, at least.

        Returns:
            Whether the peer's kernel has all of it.
        """
        pause = _FIRST_PAUSE_SECONDS
        while self._socket is None or not self._has_arrived(answer_bytes):
            if self._socket is None or self._transport.is_closing() or self._is_closed():
                return self.close(answer_bytes)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LAST_PAUSE_SECONDS)
        return True

    def close(self, answer_bytes: int) -> bool:
        """Poll a last time and let go of the socket; what has not arrived by now is kept from arriving later.

        Args:
            answer_bytes: How long the answer is, at least.

        Returns:
            Whether the peer's kernel has all of it.
        """
        if self._socket is None:
            return False
        arrived = self._has_arrived(answer_bytes)
        if arrived:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_AS_USUAL)
        else:
            self._reset()
        self._let_go()
        return arrived

    def _reset(self) -> None:
        """Reset the connection at once: the queue is thrown away (connect(2))."""
        if self._socket is not None:
            _connect(self._socket.fileno(), _UNSPECIFIED, len(_UNSPECIFIED))
        if not self._transport.is_closing():
            self._transport.abort()

    def _has_arrived(self, answer_bytes: int) -> bool:
        records = -(-answer_bytes // _RECORD_BYTES)
        needed = answer_bytes + records * (self._overhead or 0)
        try:
            if self._acknowledged() - self._before < needed:
                return False
            # What a closing connection has not sent yet is TLS's closing alert.
            return self._transport.is_closing() or self._is_closed() or not self._unacknowledged()
        except OSError:
            return False

    def _acknowledged(self) -> int:
        """Return the bytes that the peer has acknowledged since the connection was made."""
        assert self._socket is not None
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int(struct.unpack_from("Q", info, _BYTES_ACKED_AT)[0])

    def _unacknowledged(self) -> int:
        """Return the bytes that the kernel has and the peer has not acknowledged (SIOCOUTQ)."""
        assert self._socket is not None
        # TIOCOUTQ and SIOCOUTQ are one number (linux/sockios.h).
        return int(struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))[0])

    def _is_closed(self) -> bool:
        """Return whether the connection is over: TCP_INFO begins with its state."""
        assert self._socket is not None
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE

    def _let_go(self) -> None:
        self._limit.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
