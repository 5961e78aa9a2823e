"""The fast parser of HTTP requests, gunicorn_h1c, with more room. It is used where it is installed, which takes a C compiler."""

from __future__ import annotations

from typing import Any

from gunicorn_h1c import H1CProtocol, InvalidHTTPVersion

#: How a request line ends; without a version a caller of HTTP/0.9 waits for its answer, and sends no headers.
_VERSION = b" HTTP/"

#: Bytes given to the parser at once: less than the 64 KiB that it keeps of what follows a complete request.
FEED_BYTES = 32 * 1024


class RoomyParser(H1CProtocol):  # type: ignore[misc]
    """The parser, with room for a request that comes before the parser was reset.

    An answer is on its way some turns of the event loop before Gunicorn resets the parser. A caller that sends its next
    request right then finds the parser complete, which keeps 64 KiB of it; Gunicorn closes the connection of a caller
    whose request was longer, without an answer (gunicorn_h1c 0.6.10, ``remaining_truncated``).

    It also looks at the request line before the headers are complete.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: What waits for :meth:`reset`, apart from the parser's own part.
        self.tail = b""
        #: The request line as far as it is there; None when it was looked at.
        self._line: bytes | None = b""

    def feed(self, data: bytes) -> None:
        """Parse bytes; those that follow a complete request are kept.

        Args:
            data: What came from the caller.

        Raises:
            InvalidHTTPVersion: The request line names no version of HTTP.
        """
        if len(data) <= FEED_BYTES and not self.is_complete:
            super().feed(data)
            if self._line is not None and not self.path:
                self._check_line(data)
            return
        for at in range(0, len(data), FEED_BYTES):
            if self.is_complete:
                self.tail += data[at:]
                return
            super().feed(data[at : at + FEED_BYTES])

    def _check_line(self, data: bytes) -> None:
        line, ended, _ = ((self._line or b"") + data).partition(b"\n")
        if not ended:
            self._line = line
            return
        self._line = None
        if _VERSION not in line:
            raise InvalidHTTPVersion("no version of HTTP")

    def remaining(self) -> bytes:
        """Return what followed the complete request."""
        kept: bytes = super().remaining()
        return kept + self.tail if self.tail else kept

    def reset(self) -> None:
        """Begin with the next request; what :meth:`remaining` returned is forgotten."""
        self.tail = b""
        self._line = b""
        super().reset()
