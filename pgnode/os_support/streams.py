"""Standard output and standard error that never fail and never make anybody wait.

A log line is worth less than the node. Whoever reads our output may be slow, hang or have gone, its disk may be full, and its
character set may not know what is printed. What cannot be written is dropped and counted; everything else goes on.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from pgnode.os_support.log_text import printable_lines

#: Bytes that may wait for a slow reader; what comes beyond them is dropped.
WAITING_BYTES: Final = 1024 * 1024

#: Seconds that waiting lines get at the end of the process.
DRAIN_SECONDS: Final = 1.0

#: The descriptors of standard input, output and error.
STANDARD: Final = (0, 1, 2)


class SafeStream(io.TextIOBase):
    r"""A text stream on a descriptor. Writing puts the text into a queue, which a thread of its own empties.

    May be written to by any thread, and by the child of a fork, which begins with an empty queue.

    Args:
        descriptor: Where the text goes; it stays open.
        encoding: The character set; characters that it lacks are written as ``\xNN`` or ``\uNNNN``.
        waiting_bytes: Bytes that may wait.
    """

    def __init__(self, descriptor: int, encoding: str = "utf-8", *, waiting_bytes: int = WAITING_BYTES) -> None:
        self._descriptor = descriptor
        self._encoding = _known(encoding)
        self._waiting_bytes = waiting_bytes
        #: Writes whose text was dropped since the process began.
        self.dropped = 0
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Begin with nothing: neither a lock that was held at a fork, nor a thread, lives on in the child."""
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._untold = 0
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"SafeStream({self._descriptor}, {self._queued_bytes} bytes waiting, {self.dropped} dropped)"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The character set."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What is done with characters that the set lacks."""
        return "backslashreplace"

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether somebody looks at a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Return that text may be written."""
        return True

    def write(self, text: str) -> int:
        """Put text into the queue; drop it when the queue is full.

        Args:
            text: What to write.

        Returns:
            The number of characters, also of those that were dropped.
        """
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._queued_bytes + len(data) > self._waiting_bytes:
                self._drop()
            elif data:
                self._queue.append(data)
                self._queued_bytes += len(data)
                self._wake()
        return len(text)

    def flush(self) -> None:
        """Do nothing: waiting for the reader is what this stream is there to avoid. See :meth:`drain`."""

    def drain(self, seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until everything was written.

        Args:
            seconds: How long to wait at most.

        Returns:
            Whether nothing waits any more.
        """
        end = time.monotonic() + seconds
        with self._changed:
            while self._queued_bytes:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def _drop(self) -> None:
        self.dropped += 1
        self._untold += 1

    def _wake(self) -> None:
        if self._thread is None:
            # A thread that hangs in a write must not keep the process from its end.
            self._thread = threading.Thread(target=self._write_all, name=f"stream {self._descriptor}", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # No thread can be had, at the end of the process for one.
                self._thread = None
                self._queue.clear()
                self._queued_bytes = 0
                self._drop()
        self._changed.notify_all()

    def _write_all(self) -> None:
        """Write what waits, for as long as the process lives."""
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                data = self._queue.popleft()
                untold, self._untold = self._untold, 0
            note = f"[{untold} log lines dropped: they could not be written]\n".encode() if untold else b""
            written = self._write_out(note + data)
            with self._changed:
                self._queued_bytes -= len(data)
                if not written:
                    self._untold += untold
                    self._drop()
                self._changed.notify_all()

    def _write_out(self, data: bytes) -> bool:
        """Write it all; return whether that worked."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Somebody who shares the descriptor made it non-blocking.
                time.sleep(0.01)
            except OSError:
                return False
        return True


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        return "utf-8"


def open_missing(numbers: Sequence[int] = STANDARD, nowhere: str = os.devnull) -> None:
    """Open what holds nothing where a standard descriptor is closed: the next file that is opened would take its number.

    Args:
        numbers: The descriptors; 0 is read from, the others are written to.
        nowhere: The device that holds nothing.

    Raises:
        OSError: Neither the device nor a pipe can be opened.
    """
    for number in numbers:
        try:
            os.fstat(number)
        except OSError:
            found = _open_nowhere(nowhere, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if found != number:
                os.dup2(found, number)
                os.close(found)
            os.set_inheritable(number, True)


def _open_nowhere(device: str, flags: int) -> int:
    """Open what swallows everything and holds nothing."""
    try:
        return os.open(device, flags)
    except OSError:
        # A jail without /dev: a pipe whose other end is closed reads as empty, and refuses what is written.
        reader, writer = os.pipe()
        keep, close = (reader, writer) if flags == os.O_RDONLY else (writer, reader)
        os.close(close)
        return keep


def make_safe() -> None:
    """Make ``sys.stdout`` and ``sys.stderr`` of this process such streams; calling it again changes nothing.

    Raises:
        OSError: A closed descriptor could not be replaced.
    """
    open_missing()
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if not isinstance(before, SafeStream):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                before.flush()
            stream = SafeStream(number, getattr(before, "encoding", None) or "utf-8")
            setattr(sys, name, stream)
            atexit.register(stream.drain)


def say(text: str) -> None:
    """Print one or more lines to standard error, whatever they hold: no terminal obeys them."""
    sys.stderr.write(f"{printable_lines(text)}\n")
    sys.stderr.flush()


def drain(seconds: float = DRAIN_SECONDS) -> None:
    """Wait until what was printed so far was written, as far as it is.

    Args:
        seconds: How long to wait at most for each stream.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, SafeStream):
            stream.drain(seconds)
