"""The node's certificate as it is on disk now: new files are taken for new connections, without a restart."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

#: Seconds between two looks at the files at least.
LOOK_SECONDS = 1.0

_Signature = tuple[tuple[int, int, int], ...]


class CertificateFiles:
    """A certificate and its key, and whether they have changed. Not for several threads at once."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self._seen = self._signature()
        self._looked_at = time.monotonic()

    def __repr__(self) -> str:
        return f"CertificateFiles({self._files[0]})"

    def read(self) -> tuple[bytes, bytes]:
        """Certificate chain and key, PEM."""
        return self._files[0].read_bytes(), self._files[1].read_bytes()

    def changed(self) -> bool:
        """Whether there is a new pair that fits together; a pair that does not is told to the log once and left alone."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        signature = self._signature()
        if signature == self._seen or not signature:
            return False
        self._seen = signature
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            log.warning("new certificate not taken, the one before stays", file=str(self._files[0]), error=str(error))
            return False
        log.info("new certificate taken", file=str(self._files[0]))
        return True

    def _signature(self) -> _Signature:
        """What differs after a change; nothing while a file is away, as it is for a moment when files are replaced."""
        try:
            found = [file.stat() for file in self._files]
        except OSError:
            return ()
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)


class LiveContext:
    """The TLS settings of a listening socket that follow the files.

    A context cannot forget a certificate, and one of another kind would stay beside the new one: so each connection is
    handed over to the newest context when its handshake begins.
    """

    def __init__(self, files: CertificateFiles, make: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._newest = make()
        #: What the socket is given.
        self.context = make()
        # Called for every handshake, also of callers that name no server (CPython, SSLContext.sni_callback).
        self.context.sni_callback = self._hand_over

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    async def follow(self) -> None:
        """Look at the files now and then, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS + 0.1)
            if await asyncio.to_thread(self._files.changed):
                self._newest = self._make()


#: The contexts of this process and the tasks that renew them.
_live: list[tuple[LiveContext, asyncio.Task[None]]] = []


def live_context(cert_file: Path, key_file: Path, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context that follows the files for as long as the running event loop does; ``make`` reads them."""
    live = LiveContext(CertificateFiles(cert_file, key_file), make)
    _live.append((live, asyncio.get_running_loop().create_task(live.follow())))
    return live.context
