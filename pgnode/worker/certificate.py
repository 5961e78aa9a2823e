"""The node's certificate as it is on disk now: new files are taken for new connections, without a restart."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pgnode.os_support.beats import BEAT_SECONDS, pause_to_beat
from pgnode.os_support.lasting import keep_going

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

log = structlog.get_logger(__name__)

#: Seconds between two checks of the files at least.
CHECK_SECONDS = 1.0

_Signature = tuple[tuple[int, int, int], ...]


def served_files(settings: Settings) -> tuple[Path, Path]:
    """Name the files to serve: the supervisor's copy, which can always be used, else the operator's own.

    Args:
        settings: The node's settings.

    Returns:
        The files with certificate and key; both may be one.
    """
    served = settings.served_pem
    return (served, served) if served.is_file() else (settings.cert_file, settings.cert_key_file)


class CertificateFiles:
    """A certificate and its key, and whether they have changed. Not for several threads at once.

    Args:
        cert_file: The certificate chain, PEM.
        key_file: The private key, PEM.
        check_seconds: Seconds between two checks of the files at least; calls in between say "not changed".
    """

    def __init__(self, cert_file: Path, key_file: Path, *, check_seconds: float = CHECK_SECONDS) -> None:
        self._files = (cert_file, key_file)
        self._check_seconds = check_seconds
        self._seen = self._signature()
        self._checked_at = time.monotonic()

    def __repr__(self) -> str:
        return f"CertificateFiles({self._files[0]})"

    def read(self) -> tuple[bytes, bytes]:
        """Read the files.

        Returns:
            Certificate chain and key, PEM.

        Raises:
            OSError: One of them cannot be read.
        """
        return self._files[0].read_bytes(), self._files[1].read_bytes()

    def changed(self) -> bool:
        """Return whether there is a new pair that fits together.

        A pair that does not fit is logged once, and the previous one stays.
        """
        now = time.monotonic()
        if now - self._checked_at < self._check_seconds:
            return False
        self._checked_at = now
        signature = self._signature()
        if signature == self._seen or not signature:
            return False
        self._seen = signature
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files, password="")
        except (OSError, ssl.SSLError) as error:
            log.warning("new certificate not used, the previous one stays", file=str(self._files[0]), error=str(error))
            return False
        log.info("new certificate taken", file=str(self._files[0]))
        return True

    def _signature(self) -> _Signature:
        """Return what differs after a change; nothing while a file is away, as it is for a moment when it is replaced."""
        try:
            found = [file.stat() for file in self._files]
        except OSError:
            return ()
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)


class LiveContext:
    """The TLS settings of a listening socket that follow the files.

    A context cannot forget a certificate, and one of another kind would stay beside the new one: so each connection is
    handed over to the newest context when its handshake begins.

    Args:
        files: The certificate and its key.
        make: Makes a context from the files as they are.
        first: What the socket is given; None: one of its own. It has the keys of the tickets with which callers resume a
            session (OpenSSL makes them with a context), and how callers are verified.
    """

    def __init__(
        self, files: CertificateFiles, make: Callable[[], ssl.SSLContext], first: ssl.SSLContext | None = None
    ) -> None:
        self._files = files
        self._make = make
        self._newest = make()
        #: What the socket is given.
        self.context = first or make()
        # Called for every handshake, also of callers that name no server (CPython, SSLContext.sni_callback).
        self.context.sni_callback = self._hand_over

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    async def follow(self, pause_seconds: float = CHECK_SECONDS + BEAT_SECONDS) -> None:
        """Check the files now and then, until cancelled.

        Args:
            pause_seconds: Seconds between two checks.
        """
        while True:
            await pause_to_beat(pause_seconds)
            if await asyncio.to_thread(self._files.changed):
                try:
                    self._newest = self._make()
                except (OSError, ssl.SSLError) as error:
                    # They changed once more in between; the next look finds that.
                    log.warning("new certificate not taken, the one before stays", error=str(error))


#: The tasks that renew the contexts of this process: the event loop holds tasks only weakly.
_following: set[asyncio.Task[None]] = set()


#: What this process made before it forked: how callers are dealt with, and a context. Workers that were forked resume the
#: sessions of each other, since they have the keys of its tickets.
_before_fork: tuple[object, ssl.SSLContext] | None = None


def live_context(
    cert_file: Path, key_file: Path, make: Callable[[], ssl.SSLContext], how: object = None
) -> ssl.SSLContext:
    """Make a context that follows the files for as long as the running event loop does.

    Where no event loop runs, it is made for the workers that are forked from this process.

    Args:
        cert_file: The certificate chain, PEM.
        key_file: The private key, PEM.
        make: Makes a context from the files as they are.
        how: How callers are dealt with. What was made before the fork is used where it is the same.

    Returns:
        The context for a listening socket.

    Raises:
        OSError: A file cannot be read, or does not fit (ssl.SSLError).
    """
    global _before_fork  # noqa: PLW0603 - what the workers of one master share
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _before_fork = how, make()
        return _before_fork[1]
    first = _before_fork[1] if _before_fork is not None and _before_fork[0] == how else None
    live = LiveContext(CertificateFiles(cert_file, key_file), make, first)
    task = loop.create_task(keep_going("certificate", live.follow))
    _following.add(task)
    task.add_done_callback(_following.discard)
    return live.context
