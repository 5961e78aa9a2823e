"""Downloads of maintenance jobs: streamed into a file, hashed on the way, with limits of size and time.

HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are obeyed. A redirect from https to http is not followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import certifi

from pgnode.errors import DownloadFailedError, NotFoundError, UpdateFailedError
from pgnode.supervisor.maintenance.releases import Algorithm, version_of_tag

if TYPE_CHECKING:
    import httpx

    from pgnode.settings import Settings

#: Seconds within which a server must take a connection, or send something more.
STEP_SECONDS = 20.0

#: Largest text (a digest) that is taken.
TEXT_BYTES = 64 * 1024

#: What is hashed and written at once, in a thread.
BLOCK_BYTES = 1024 * 1024

#: Redirects that are followed on the way to the latest release's page.
REDIRECTS = 5

#: Called with the bytes received and the bytes expected (0: not known).
Progress = Callable[[int, int], None]


class Downloads:
    """Fetches files and small texts. Belongs to the supervisor's loop.

    Args:
        settings: Limits of size and time for one file.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.download_max_mib * 1024 * 1024
        self._timeout_seconds = settings.download_timeout_seconds
        self._own_certificate = settings.ssl_cert_file is not None

    async def text(self, url: str) -> str:
        """Fetch a small text.

        Args:
            url: Its address.

        Returns:
            The text.

        Raises:
            NotFoundError: The server says that there is no such thing.
            DownloadFailedError: It could not be fetched.
            UpdateFailedError: It is too large.
        """
        data = bytearray()
        async with self._get(url) as answer:
            async for part in answer.aiter_raw():
                data += part
                if len(data) > TEXT_BYTES:
                    raise UpdateFailedError(f"no digest: more than {TEXT_BYTES} bytes came ({url})")
        return data.decode(errors="replace")

    async def file(self, url: str, path: Path, algorithm: Algorithm, progress: Progress) -> str:
        """Download a file.

        Args:
            url: Its address.
            path: Where it is written.
            algorithm: The hash computed on the way.
            progress: Called now and then.

        Returns:
            The digest, in hexadecimal.

        Raises:
            NotFoundError: The server says that there is no such file.
            DownloadFailedError: It could not be fetched, or was cut short.
            UpdateFailedError: It is too large.
        """
        digest = hashlib.new(algorithm)
        size = 0
        async with self._get(url) as answer:
            announced = int(answer.headers.get("content-length", "0"))
            if announced > self._max_bytes:
                raise self._too_large(url, announced)
            with await asyncio.to_thread(path.open, "wb") as target:

                def keep(block: bytes) -> None:
                    digest.update(block)
                    target.write(block)

                async for block in answer.aiter_raw(BLOCK_BYTES):
                    size += len(block)
                    if size > self._max_bytes:
                        raise self._too_large(url, size)
                    await asyncio.to_thread(keep, block)
                    progress(size, announced)
        if announced and size != announced:
            raise DownloadFailedError(f"cut short after {size} bytes of {announced}: {url}")
        return digest.hexdigest()

    async def latest_version(self, url: str) -> str:
        """Return the version whose page ``url`` redirects to. Raises DownloadFailedError."""
        at = url
        for _ in range(REDIRECTS):
            try:
                async with self._get(at, follow=False) as answer:
                    if not answer.has_redirect_location:
                        break
                    at = urljoin(at, answer.headers["location"])
            except NotFoundError:
                break
            version = version_of_tag(at)
            if version is not None:
                return version
        raise DownloadFailedError(f"the latest release is not known: no redirect to the page of a version ({url})")

    def _too_large(self, url: str, size: int) -> UpdateFailedError:
        return UpdateFailedError(
            f"too large: {size} bytes or more, allowed are {self._max_bytes}; raise DOWNLOAD_MAX_MIB ({url})"
        )

    @asynccontextmanager
    async def _get(self, url: str, *, follow: bool = True) -> AsyncIterator[httpx.Response]:
        """Send a request; yield the answer, its body not read yet. All within the time limit."""
        secure = url.startswith("https://")

        async def stay_secure(request: httpx.Request) -> None:
            if secure and request.url.scheme != "https":
                raise DownloadFailedError(
                    f"redirected to an address without https, not followed: {url} to {request.url}"
                )

        # Most nodes never download anything, and no other call waits for this import.
        await asyncio.to_thread(import_module, "httpx")
        import httpx  # noqa: PLC0415 - it is there by now

        try:
            context = await asyncio.to_thread(self._tls)
            client = httpx.AsyncClient(
                verify=context,
                follow_redirects=follow,
                timeout=httpx.Timeout(STEP_SECONDS),
                # The bytes are hashed as they were sent: nothing is decompressed on the way.
                headers={"Accept-Encoding": "identity", "User-Agent": "pgnode"},
                event_hooks={"request": [stay_secure]},
            )
        except (ValueError, ImportError, OSError) as error:
            raise DownloadFailedError(
                f"the proxy or certificate settings of the environment cannot be used: {error}"
            ) from None
        try:
            async with asyncio.timeout(self._timeout_seconds), client, client.stream("GET", url) as answer:
                if answer.status_code in (404, 410):
                    raise NotFoundError(f"does not exist ({answer.status_code}): {url}")
                if answer.is_error:
                    raise DownloadFailedError(f"answer {answer.status_code} {answer.reason_phrase}: {url}")
                yield answer
        except TimeoutError:
            raise DownloadFailedError(
                f"too slow: not complete within {self._timeout_seconds:g} s; raise DOWNLOAD_TIMEOUT_SECONDS ({url})"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise DownloadFailedError(f"download failed: {str(error) or type(error).__name__} ({url})") from None

    def _tls(self) -> ssl.SSLContext:
        """Return the machine's list of CAs, or the one that SSL_CERT_FILE names; with certifi's, for machines without any."""
        if self._own_certificate:
            # Here SSL_CERT_FILE is this node's own certificate, which OpenSSL would take for the list of CAs.
            return ssl.create_default_context(cafile=certifi.where())
        context = ssl.create_default_context()
        if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
            context.load_verify_locations(certifi.where())
        return context


def progress_logger(log: Any, name: str, every_bytes: int = 8 * 1024 * 1024) -> Progress:
    """Return a Progress that logs now and then."""
    told = 0

    def progress(there: int, announced: int) -> None:
        nonlocal told
        if there - told >= every_bytes:
            told = there
            log.info("downloading", file=name, mib=round(there / 2**20, 1), of=round(announced / 2**20, 1) or "unknown")

    return progress
