"""The certificate that the API serves: checked here, and handed to the workers only when it can be used.

Operators and their tools replace the files while the node runs, in two steps, with a wrong key, or with an empty file when the
disk is full. Workers follow a copy that this process writes, which is always a pair that works.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pgnode.errors import SettingsError
from pgnode.os_support.beats import pause_to_beat
from pgnode.os_support.files import read_regular, write_atomically
from pgnode.supervisor.host.certificate_end import end_of

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds between two looks at the files.
CHECK_SECONDS = 1.0

#: Days before the end of a certificate from which on the log says so.
EXPIRES_SOON_DAYS = 14

#: Bytes of a certificate chain, or of a key, at most.
PEM_BYTES_MAX = 4 * 1024 * 1024

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"

_Signature = tuple[tuple[int, int, int], ...]


def check_pair(settings: Settings) -> tuple[bytes, datetime.datetime]:
    """Read the certificate and its key, and find out whether they can be served.

    Args:
        settings: Where they are.

    Returns:
        Key and certificate chain in one PEM text, and when the certificate ends.

    Raises:
        SettingsError: They cannot be used; the text names the file, and says what to do.
    """
    cert_name, key_name, advice = _names(settings)
    cert = _read(cert_name, settings.cert_file, advice)
    key = _read(key_name, settings.cert_key_file, advice)
    if b"PRIVATE KEY-----" in cert and b"CERTIFICATE-----" in key and b"CERTIFICATE-----" not in cert:
        raise SettingsError(f"{cert_name} and {key_name} are swapped: the first holds the key; exchange them{advice}")
    ends = _end_if_served(settings, cert)
    if ends is None:
        # That library costs 10 MB, and knows what is wrong.
        from pgnode.supervisor.host.certificate_faults import explain  # noqa: PLC0415

        ends = explain(settings, (cert_name, cert), (key_name, key), advice)
    return key.rstrip() + b"\n" + cert, ends


def _end_if_served(settings: Settings, cert: bytes) -> datetime.datetime | None:
    """Return when the certificate ends; None where OpenSSL does not take the pair, or its end is not found."""
    try:
        # Without a password nobody is asked for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.cert_file, settings.cert_key_file, password=b""
        )
        first = cert[cert.index(_BEGIN) : cert.index(_END) + len(_END)]
        return end_of(ssl.PEM_cert_to_DER_cert(first.decode("ascii")))
    except (OSError, ValueError):
        return None


class CertificateWatch:
    """Gives workers the newest pair that can be served. Belongs to the supervisor's loop.

    Args:
        settings: Where the pair is, and where the copy goes.
        check_seconds: Seconds between two looks at the files.
    """

    def __init__(self, settings: Settings, *, check_seconds: float = CHECK_SECONDS) -> None:
        self._settings = settings
        self._check_seconds = check_seconds
        self._seen: _Signature = ()
        #: Why the files that are there now are not served, "" where they are.
        self.refused = ""
        #: When the certificate ends that is served; None before the first.
        self.until: datetime.datetime | None = None

    def __repr__(self) -> str:
        return f"CertificateWatch({self._settings.cert_file})"

    def first(self) -> None:
        """Check the pair and write the copy, before there are workers.

        Raises:
            SettingsError: The pair cannot be used.
        """
        self._seen = self._signature()
        self._take()

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            await pause_to_beat(self._check_seconds)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take what is new, if it can be used; else say once why not."""
        signature = self._signature()
        if signature == self._seen or not signature:
            return
        self._seen = signature
        try:
            self._take()
        except SettingsError as error:
            self.refused = str(error)
            log.warning("new certificate not taken, the one before stays", audit="certificate", error=self.refused)
        else:
            self.refused = ""
            log.info("new certificate taken", audit="certificate", file=str(self._settings.cert_file))

    def _take(self) -> None:
        pem, ends = check_pair(self._settings)
        self.until = ends
        left = ends - datetime.datetime.now(datetime.UTC)
        if left < datetime.timedelta(days=EXPIRES_SOON_DAYS):
            said = "has expired" if left < datetime.timedelta() else "expires soon"
            log.warning(
                f"the certificate {said}", file=str(self._settings.cert_file), until=f"{ends:%Y-%m-%d %H:%M} UTC"
            )
        path = self._settings.served_pem
        with contextlib.suppress(OSError):
            if read_regular(path, PEM_BYTES_MAX * 2) == pem:
                return
        try:
            write_atomically(path, pem)
        except OSError as error:
            log.warning("the certificate was not handed to the workers", file=str(path), error=error.strerror)

    def _signature(self) -> _Signature:
        """Return what differs after a change; nothing while a file is away, as it is for a moment when it is replaced."""
        try:
            found = [file.stat() for file in (self._settings.cert_file, self._settings.cert_key_file)]
        except OSError:
            return ()
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)


def _names(settings: Settings) -> tuple[str, str, str]:
    """Name the two files as the operator knows them, and what else can be done than mending them."""
    if settings.ssl_cert_file is not None:
        return f"SSL_CERT_FILE={settings.cert_file}", f"SSL_KEY_FILE={settings.cert_key_file}", ""
    return str(settings.cert_file), str(settings.cert_key_file), ", or delete both files: the node makes new ones"


def _read(name: str, path: Path, advice: str) -> bytes:
    try:
        data = read_regular(path, PEM_BYTES_MAX)
    except OSError as error:
        raise SettingsError(f"{name} cannot be read: {error.strerror}; let this user read it{advice}") from None
    if not data.strip():
        raise SettingsError(f"{name} is empty; give a PEM file{advice}")
    return data
